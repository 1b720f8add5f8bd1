"""Servers that join and leave upstreams, through a real agent and a real nginx."""

import threading

import pytest

from agent_with_nginx import AgentWithNginx, refusal, sha1
from private_servers import fetch

pytestmark = [pytest.mark.root, pytest.mark.nginx]


def test_servers_of_a_role_come_and_go(web: AgentWithNginx) -> None:
    (web.environment / "roles.toml").write_text(
        '[roles.1234]\nbehaviours = ["app"]\nservers = [{ private = "10.0.0.11" }, { private = "10.0.0.12:81" }]\n'
        "[roles.77]\n"
    )
    api = web.api.nginx
    backends = [{"farm_role_id": 1234, "port": 8000, "weight": 2}, {"farm_role_id": "77", "location": "/other"}]
    api.make_proxy(hostname="www.example.com", port=web.port, backends=backends)
    base = sha1("www.example.com")
    text = web.nginx.upstreams.read_text()
    assert f"upstream {base}__1234 {{" in text and f"upstream {base}_other__77 {{" in text
    assert "server 10.0.0.11:8000 weight=2;" in text and "server 10.0.0.12:81 weight=2;" in text
    assert "127.0.0.1" in text and fetch(web.port, "www.example.com", "/other")[0] == 502
    api.add_server_to_role(server="10.0.0.13", role_id="1234")
    api.add_server_to_role(server={"host": "10.0.0.14", "port": 99}, role_id=77)
    text = web.nginx.upstreams.read_text()
    assert "server 10.0.0.13:8000 weight=2;" in text and "server 10.0.0.14:99;" in text and "placeholder" not in text
    api.remove_server_from_role(server="10.0.0.14", role_id=77)
    api.remove_server_from_all_backends(server="10.0.0.11")
    text = web.nginx.upstreams.read_text()
    assert "10.0.0.14" not in text and "10.0.0.11" not in text and "placeholder" in text
    api.remove_server_from_role(server="10.0.0.99", role_id=5)


def test_servers_join_upstreams_by_name_or_by_its_beginning(web: AgentWithNginx) -> None:
    api = web.api.nginx
    backends = [{"host": "10.0.0.1"}, {"host": "10.0.0.2", "location": "/x"}]
    api.make_proxy(hostname="a.example.com", port=web.port, backends=backends, hash_backend_name=False)
    count = len(web.api.change.list())
    api.add_server(backend="a.example.com", server="10.0.0.9:81", update_backend_table=True)
    assert web.nginx.upstreams.read_text().count("server 10.0.0.9:81;") == 2
    api.add_server(backend="a.example.com", server="10.0.0.9:81")
    assert len(web.api.change.list()) == count + 1
    api.remove_server(backend="a.example.com_x", server={"host": "10.0.0.9", "port": "81"})
    assert web.nginx.upstreams.read_text().count("server 10.0.0.9:81;") == 1
    assert "There is no upstream b" in refusal(api.add_server, backend="b", server="10.0.0.1")
    assert "backend" in refusal(api.add_server, backend="x; }", server="10.0.0.1")


def test_a_server_that_is_only_remembered_joins_with_the_next_change(web: AgentWithNginx) -> None:
    api = web.api.nginx
    api.make_proxy(**web.proxy("a.example.com", "10.0.0.1"))
    api.add_server(backend=sha1("a.example.com"), server="10.0.0.7", update_conf=False)
    assert "10.0.0.7" not in web.nginx.upstreams.read_text()
    web.agent.stop()
    web.agent.start()
    api.add_server(backend=sha1("a.example.com"), server="10.0.0.8")
    text = web.nginx.upstreams.read_text()
    assert "10.0.0.7" in text and "10.0.0.8" in text


def test_many_calls_at_once_are_one_reload_and_each_is_answered_behind_it(web: AgentWithNginx) -> None:
    web.api.nginx.make_proxy(**web.proxy("a.example.com", "10.0.0.1"))
    before = len(web.api.change.list(limit=1000))
    failures: list[Exception] = []

    def add(number: int) -> None:
        with web.agent.client(timeout=60) as client:
            try:
                client.nginx.add_server(backend=sha1("a.example.com"), server=f"10.0.1.{number}")
                assert f"10.0.1.{number};" in web.nginx.upstreams.read_text()
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    wrong = refusal(web.api.nginx.add_server, backend="nope", server="10.0.0.1")
    for thread in threads:
        thread.join()
    assert not failures and "no upstream" in wrong
    # How few there are is a figure of the benchmarks (2 here, 10 at most); that they are not made one by one is not.
    assert len(web.api.change.list(limit=1000)) - before <= 30
    assert web.nginx.upstreams.read_text().count("server 10.0.1.") == 100
