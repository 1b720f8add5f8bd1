"""Reverse proxies of a real nginx, through a real agent."""

import hashlib
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from private_servers import PrivateNginx, backend, fetch, make_certificate
from running_agent import RunningAgent, free_port
from scalarizr.client import AgentError, Client

pytestmark = [pytest.mark.root, pytest.mark.nginx]


class Setup:
    """An agent with an nginx of its own, running."""

    def __init__(self, directory: Path, settings: str = "") -> None:
        self.nginx = PrivateNginx(directory)
        self.agent = RunningAgent(directory, self.nginx.settings + settings)
        self.environment = self.agent.etc / "environment"
        (self.environment / "certificates").mkdir(parents=True)
        self.agent.start()
        self.api: Client = self.agent.client(timeout=60)
        self.api.nginx.start_service()
        self.port = free_port()

    def close(self) -> None:
        self.api.close()
        self.nginx.stop()
        self.agent.stop()

    def proxy(self, hostname: str, *hosts: str, **more: object) -> dict[str, object]:
        backends = [{"host": host} for host in hosts]
        return {"hostname": hostname, "port": self.port, "backends": backends, **more}

    def statuses(self) -> list[str]:
        return [f"{change['method']} {change['status']}" for change in self.api.change.list()]


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    made = Setup(tmp_path)
    yield made
    made.close()


def sha1(name: str) -> str:
    return hashlib.sha1(name.encode()).hexdigest()


def refusal(call: object, **arguments: object) -> str:
    """What an error says, its data included."""
    with pytest.raises(AgentError) as caught:
        call(**arguments)  # type: ignore[operator]
    return f"{caught.value} {caught.value.data}"


def test_a_proxy_serves_at_once_and_a_person_s_files_keep_every_byte(setup: Setup) -> None:
    before = setup.nginx.main.read_text()
    with backend("one") as port:
        assert setup.api.nginx.make_proxy(**setup.proxy("www.example.com", f"127.0.0.1:{port}")) is None
        assert fetch(setup.port, "www.example.com") == (200, "one www.example.com http")
    after = setup.nginx.main.read_text()
    added = [line for line in after.splitlines() if line not in before.splitlines()]
    assert [line for line in after.splitlines() if line not in added] == before.splitlines()
    assert [line.split("/")[-1] for line in added[1:]] == [
        "error-pages.include;",
        "app-servers.include;",
        "proxies.include;",
    ]


def test_the_same_call_again_writes_nothing_and_reloads_nothing(setup: Setup) -> None:
    proxy = setup.proxy("www.example.com", "10.0.0.1", ssl=False, backend_weight="3")
    setup.api.nginx.make_proxy(**proxy)
    files, master = setup.nginx.files(), setup.nginx.master()
    stamps = [path.stat().st_mtime_ns for path in (setup.nginx.proxies, setup.nginx.upstreams, setup.nginx.main)]
    log = (setup.nginx.directory / "error.log").read_text()
    setup.api.nginx.make_proxy(**proxy)
    setup.api.nginx.recreate_proxying(proxy_list=[proxy])
    assert setup.nginx.files() == files and setup.nginx.master() == master
    assert stamps == [p.stat().st_mtime_ns for p in (setup.nginx.proxies, setup.nginx.upstreams, setup.nginx.main)]
    assert (setup.nginx.directory / "error.log").read_text() == log
    assert len(setup.api.change.list()) == 1


def test_every_parameter_stands_where_nginx_wants_it(setup: Setup) -> None:
    setup.api.nginx.make_proxy(
        hostname="www.example.com",
        port=str(setup.port),
        http="1",
        backends=[
            {"host": "10.0.0.1", "port": 8001, "weight": 2, "max_fails": 3, "fail_timeout": "15"},
            {"host": "10.0.0.2", "backup": True},
            {"host": "10.0.0.3", "down": True},
            {"host": "::1", "location": "/six"},
            {"host": "unix:/run/app.sock", "location": "/socket"},
        ],
        backend_port=8080,
        backend_max_fails=1,
        backend_fail_timeout=5,
        backend_least_conn=True,
        templates=[
            {"content": "client_max_body_size 7m;", "location": "/"},
            {"content": "return 204;", "location": "= /ping"},
        ],
        hash_backend_name=False,
    )
    upstreams = setup.nginx.upstreams.read_text()
    assert "upstream www.example.com {\n    least_conn;" in upstreams
    assert "server 10.0.0.1:8001 weight=2 max_fails=3 fail_timeout=15s;" in upstreams
    assert "server 10.0.0.2:8080 max_fails=1 fail_timeout=5s backup;" in upstreams
    assert "server 10.0.0.3:8080 max_fails=1 fail_timeout=5s down;" in upstreams
    assert "upstream www.example.com_six {" in upstreams and "server [::1]:8080" in upstreams
    assert "upstream www.example.com_socket {" in upstreams and "server unix:/run/app.sock" in upstreams
    assert fetch(setup.port, "www.example.com", "/ping")[0] == 204
    assert "client_max_body_size 7m;" in setup.nginx.proxies.read_text()


def test_a_server_template_takes_the_place_of_the_default_headers(setup: Setup) -> None:
    templates = [{"content": "server {\n  add_header X-Mine yes;\n  location /own { return 200 own; }\n}", "server": 1}]
    setup.api.nginx.make_proxy(**setup.proxy("a.example.com", "10.0.0.1", templates=templates))
    assert "proxy_set_header" not in setup.nginx.proxies.read_text()
    assert fetch(setup.port, "a.example.com", "/own") == (200, "own")


def test_tls_with_a_certificate_of_the_environment_and_a_redirect_from_http(setup: Setup) -> None:
    make_certificate(setup.environment / "certificates", "410", "www.example.com")
    tls = free_port()
    with backend("secure") as port:
        setup.api.nginx.make_proxy(
            **setup.proxy("www.example.com", f"127.0.0.1:{port}"),
            http=False,
            ssl=True,
            ssl_port=tls,
            ssl_certificate_id=410,
        )
        assert fetch(tls, "www.example.com", tls=True) == (200, "secure www.example.com https")
        status, text = fetch(setup.port, "www.example.com", "/page?x=1")
    assert status == 301 and "301" in text
    key = setup.agent.etc / "private.d" / "keys" / "nginx-https_410.key"
    assert key.stat().st_mode & 0o777 == 0o600
    shown = setup.api.change.show(id=setup.api.change.list()[0]["id"])
    assert "PRIVATE KEY" not in str(shown) and "PRIVATE KEY" not in setup.agent.log_text()
    proxies = setup.nginx.proxies.read_text()
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in proxies and "SSLv3" not in proxies


def test_ssl_is_turned_on_and_off_and_what_a_person_added_stays(setup: Setup) -> None:
    make_certificate(setup.environment / "certificates", "default", "x.example.com")
    tls = free_port()
    with backend("x") as port:
        setup.api.nginx.make_proxy(**setup.proxy("x.example.com", f"127.0.0.1:{port}"))
        text = setup.nginx.proxies.read_text().replace("    location / {", "    # mine\n    location / {")
        setup.nginx.proxies.write_text(text)
        setup.api.nginx.enable_ssl(hostname="x.example.com", ssl_port=tls)
        assert fetch(tls, "x.example.com", tls=True)[0] == fetch(setup.port, "x.example.com")[0] == 200
        before = setup.statuses()
        setup.api.nginx.enable_ssl(hostname="x.example.com", ssl_port=tls)
        assert setup.statuses() == before
        setup.api.nginx.disable_ssl(hostname="x.example.com")
        assert fetch(setup.port, "x.example.com")[0] == 200
    with pytest.raises(OSError):
        fetch(tls, "x.example.com", tls=True)
    assert setup.nginx.proxies.read_text() == text


def test_certificates_are_checked_before_anything_changes(setup: Setup) -> None:
    certificates = setup.environment / "certificates"
    make_certificate(certificates, "1", "a.example.com")
    make_certificate(certificates, "2", "b.example.com")
    (certificates / "2.key").write_text((certificates / "1.key").read_text())
    files = setup.nginx.files()
    proxy = setup.proxy("b.example.com", "10.0.0.1", ssl=True, ssl_port=free_port(), ssl_certificate_id="2")
    assert "does not match its key" in refusal(setup.api.nginx.make_proxy, **proxy)
    assert "no such certificate" in refusal(setup.api.nginx.make_proxy, **{**proxy, "ssl_certificate_id": "7"})
    assert "ssl_certificate_id" in refusal(setup.api.nginx.make_proxy, **{**proxy, "ssl_certificate_id": "../../x"})
    assert setup.nginx.files() == files


def test_servers_of_a_role_come_and_go(setup: Setup) -> None:
    (setup.environment / "roles.toml").write_text(
        '[roles.1234]\nbehaviours = ["app"]\nservers = [{ private = "10.0.0.11" }, { private = "10.0.0.12:81" }]\n'
        "[roles.77]\n"
    )
    api = setup.api.nginx
    backends = [{"farm_role_id": 1234, "port": 8000, "weight": 2}, {"farm_role_id": "77", "location": "/other"}]
    api.make_proxy(hostname="www.example.com", port=setup.port, backends=backends)
    base = sha1("www.example.com")
    text = setup.nginx.upstreams.read_text()
    assert f"upstream {base}__1234 {{" in text and f"upstream {base}_other__77 {{" in text
    assert "server 10.0.0.11:8000 weight=2;" in text and "server 10.0.0.12:81 weight=2;" in text
    assert "127.0.0.1" in text and fetch(setup.port, "www.example.com", "/other")[0] == 502
    api.add_server_to_role(server="10.0.0.13", role_id="1234")
    api.add_server_to_role(server={"host": "10.0.0.14", "port": 99}, role_id=77)
    text = setup.nginx.upstreams.read_text()
    assert "server 10.0.0.13:8000 weight=2;" in text and "server 10.0.0.14:99;" in text and "placeholder" not in text
    api.remove_server_from_role(server="10.0.0.14", role_id=77)
    api.remove_server_from_all_backends(server="10.0.0.11")
    text = setup.nginx.upstreams.read_text()
    assert "10.0.0.14" not in text and "10.0.0.11" not in text and "placeholder" in text
    api.remove_server_from_role(server="10.0.0.99", role_id=5)


def test_servers_join_upstreams_by_name_or_by_its_beginning(setup: Setup) -> None:
    api = setup.api.nginx
    backends = [{"host": "10.0.0.1"}, {"host": "10.0.0.2", "location": "/x"}]
    api.make_proxy(hostname="a.example.com", port=setup.port, backends=backends, hash_backend_name=False)
    count = len(setup.api.change.list())
    api.add_server(backend="a.example.com", server="10.0.0.9:81", update_backend_table=True)
    assert setup.nginx.upstreams.read_text().count("server 10.0.0.9:81;") == 2
    api.add_server(backend="a.example.com", server="10.0.0.9:81")
    assert len(setup.api.change.list()) == count + 1
    api.remove_server(backend="a.example.com_x", server={"host": "10.0.0.9", "port": "81"})
    assert setup.nginx.upstreams.read_text().count("server 10.0.0.9:81;") == 1
    assert "There is no upstream b" in refusal(api.add_server, backend="b", server="10.0.0.1")
    assert "backend" in refusal(api.add_server, backend="x; }", server="10.0.0.1")


def test_a_server_that_is_only_remembered_joins_with_the_next_change(setup: Setup) -> None:
    api = setup.api.nginx
    api.make_proxy(**setup.proxy("a.example.com", "10.0.0.1"))
    api.add_server(backend=sha1("a.example.com"), server="10.0.0.7", update_conf=False)
    assert "10.0.0.7" not in setup.nginx.upstreams.read_text()
    setup.agent.stop()
    setup.agent.start()
    api.add_server(backend=sha1("a.example.com"), server="10.0.0.8")
    text = setup.nginx.upstreams.read_text()
    assert "10.0.0.7" in text and "10.0.0.8" in text


def test_without_a_reload_nginx_is_left_alone_until_one_is_asked_for(setup: Setup) -> None:
    with backend("late") as port:
        proxy = setup.proxy("a.example.com", f"127.0.0.1:{port}")
        setup.api.nginx.make_proxy(**proxy, reload_service=False)
        with pytest.raises(OSError):
            fetch(setup.port, "a.example.com")
        setup.api.nginx.make_proxy(**proxy)
        assert fetch(setup.port, "a.example.com")[0] == 200


def test_a_stopped_nginx_is_started_by_a_change(setup: Setup) -> None:
    setup.api.nginx.stop_service(reason="a test")
    assert setup.api.nginx.get_service_status() == 3
    setup.api.nginx.make_proxy(**setup.proxy("a.example.com", "10.0.0.1"))
    assert setup.api.nginx.get_service_status() == 0 and "a test" in setup.agent.log_text()


@pytest.mark.parametrize(
    "name", ["*.example.com", ".example.com", "www.example.*", "a_b.example.com", "bücher.example"]
)
def test_unusual_names_are_served(setup: Setup, name: str) -> None:
    asked = {"*.example.com": "x.example.com", ".example.com": "example.com", "www.example.*": "www.example.net"}
    with backend("here") as port:
        setup.api.nginx.make_proxy(**setup.proxy(name, f"127.0.0.1:{port}"))
        host = asked.get(name) or name.encode("idna").decode()
        assert fetch(setup.port, host)[0] == 200
        setup.api.nginx.remove_proxy(hostname=name)
        assert "server {" not in setup.nginx.proxies.read_text()


@pytest.mark.parametrize(
    ("parameter", "changed"),
    [
        ("hostname", {"hostname": "~^www\\d+$"}),
        ("hostname", {"hostname": "a.com; } server { listen 81"}),
        ("hostname", {"hostname": "a b"}),
        ("port", {"port": 70000}),
        ("port", {"port": "80; include /etc/shadow"}),
        ("ssl_port", {"ssl": True, "ssl_port": "PORT"}),
        ("http", {"http": False}),
        ("backends", {"backends": []}),
        ("backends[0].host", {"backends": [{"host": "10.0.0.1; include /etc/shadow"}]}),
        ("backends[0].location", {"backends": [{"host": "10.0.0.1", "location": "/ { } location /x"}]}),
        ("backends[0].farm_role_id", {"backends": [{"farm_role_id": "1;2"}]}),
        ("backends[0].weight", {"backends": [{"host": "10.0.0.1", "weight": 0}]}),
        ("backends[0].wieght", {"backends": [{"host": "10.0.0.1", "wieght": 1}]}),
        ("templates[0].content", {"templates": [{"content": "location /x {", "location": "/"}]}),
        ("templates[0].content", {"templates": [{"content": "a 1;\n}\nserver { listen 1;", "location": "/"}]}),
        ("templates[0].content", {"templates": [{"content": "allow all;\ninclude /etc/shadow;", "location": "/"}]}),
        ("templates[0].content", {"templates": [{"content": "content_by_lua_block { x }", "server": True}]}),
        ("templates[0].content", {"templates": [{"content": "expires 1d", "location": "/"}]}),
        ("templates[0].location", {"templates": [{"content": "expires 1d;", "location": "/ {}"}]}),
    ],
)
def test_bad_input_is_refused_by_name_and_nothing_changes(
    setup: Setup, parameter: str, changed: dict[str, object]
) -> None:
    if changed.get("ssl_port") == "PORT":
        changed = {**changed, "ssl_port": setup.port}
    files = setup.nginx.files()
    said = refusal(setup.api.nginx.make_proxy, **{**setup.proxy("a.example.com", "10.0.0.1"), **changed})
    assert repr(parameter) in said and setup.nginx.files() == files
    good, bad = setup.proxy("b.example.com", "10.0.0.1"), {**setup.proxy("a.example.com", "10.0.0.1"), **changed}
    said = refusal(setup.api.nginx.recreate_proxying, proxy_list=[good, bad])
    assert f"proxy_list[1].{parameter}" in said and "'index': 1" in said and setup.nginx.files() == files


def test_nginx_s_own_words_are_mapped_to_the_template_s_line(setup: Setup) -> None:
    files = setup.nginx.files()
    bad = setup.proxy(
        "b.example.com", "10.0.0.1", templates=[{"content": "expires 1d;\n\n  nonsense on;", "location": "/"}]
    )
    many = [setup.proxy(f"{number}.example.com", "10.0.0.1") for number in range(20)]
    said = refusal(setup.api.nginx.recreate_proxying, proxy_list=[*many, bad])
    assert "proxy_list[20] (b.example.com)" in said and "proxy_list[20].templates[0].content, line 3" in said
    assert 'unknown directive "nonsense"' in said and "Nothing was changed" in said
    assert setup.nginx.files() == files


def test_text_of_other_files_never_comes_back(tmp_path: Path) -> None:
    setup = Setup(tmp_path, 'template_directives = "any"\n')
    try:
        secret = tmp_path / "secret"
        secret.write_text("root:swordfish:1;\n")
        templates = [{"content": f"include {secret};", "server": True}]
        said = refusal(setup.api.nginx.make_proxy, **setup.proxy("a.example.com", "10.0.0.1", templates=templates))
        assert "nginx says" in said and "swordfish" not in said
        assert "swordfish" not in setup.agent.log_text()
    finally:
        setup.close()


def test_a_port_that_another_program_holds_is_refused_beforehand(setup: Setup) -> None:
    with backend("other") as taken:
        proxy = {**setup.proxy("a.example.com", "10.0.0.1"), "port": taken}
        assert "held by another program" in refusal(setup.api.nginx.make_proxy, **proxy)
        assert fetch(taken, "x")[0] == 200


def test_two_proxies_that_claim_one_name_on_one_port_are_refused(setup: Setup) -> None:
    twins = [setup.proxy("a.example.com", "10.0.0.1"), setup.proxy("A.example.com", "10.0.0.2")]
    said = refusal(setup.api.nginx.recreate_proxying, proxy_list=twins)
    assert "proxy_list[1].port" in said and "proxy_list[0]" in said
    own = f"server {{ listen {setup.port}; server_name b.example.com; }}\n"
    (setup.nginx.directory / "sites-enabled" / "mine").write_text(own)
    said = refusal(setup.api.nginx.make_proxy, **setup.proxy("b.example.com", "10.0.0.1"))
    assert "b.example.com is claimed" in said and not setup.nginx.proxies.exists()
    setup.api.nginx.recreate_proxying(proxy_list=[twins[0], {**twins[1], "port": free_port()}])
    assert setup.nginx.upstreams.read_text().count("upstream ") == 2


def test_a_default_site_that_claims_the_port_is_taken_out_and_comes_back_with_a_revert(setup: Setup) -> None:
    available = setup.nginx.directory / "default-site"
    available.write_text(f"server {{ listen {setup.port} default_server; server_name _; }}\n")
    enabled = setup.nginx.directory / "sites-enabled" / "default"
    enabled.symlink_to("../default-site")
    setup.api.nginx.make_proxy(**setup.proxy("a.example.com", "10.0.0.1"))
    assert not enabled.is_symlink() and available.exists()
    assert "sites-enabled/default" in setup.nginx.proxies.read_text()
    setup.api.change.revert(id=setup.api.change.list()[0]["id"])
    assert enabled.is_symlink() and enabled.readlink() == Path("../default-site")


def test_the_proxy_for_all_other_names_is_the_default_server_where_nobody_else_is(setup: Setup) -> None:
    with backend("for-all") as everything, backend("for-a") as named:
        setup.api.nginx.make_proxy(**setup.proxy("a.example.com", f"127.0.0.1:{named}"))
        for_all = setup.proxy("_", f"127.0.0.1:{everything}")
        setup.api.nginx.make_proxy(**for_all)
        assert f"listen {setup.port} default_server;" in setup.nginx.proxies.read_text()
        assert fetch(setup.port, "other.example.com")[1].startswith("for-all")
        assert fetch(setup.port, "a.example.com")[1].startswith("for-a ")
        before = setup.api.change.list()[0]["id"]
        setup.api.nginx.make_proxy(**for_all)
        assert setup.api.change.list()[0]["id"] == before, "the same again changes nothing"
        # Somebody's own default server stays the one.
        setup.api.nginx.remove_proxy(hostname="_")
        own = setup.nginx.directory / "sites-enabled" / "own.conf"
        own.write_text(f"server {{ listen *:{setup.port} default_server; server_name own; return 204; }}\n")
        setup.api.nginx.make_proxy(**for_all)
        assert f"listen {setup.port};" in setup.nginx.proxies.read_text()
        assert fetch(setup.port, "other.example.com")[0] == 204
        assert fetch(setup.port, "_")[1].startswith("for-all")


def test_thousands_of_names_and_long_ones_fit_nginx_s_table(setup: Setup) -> None:
    names = [f"{number}.example.com" for number in range(2000)] + [f"{'long' * 15}.{'name' * 15}.example.com"]
    setup.api.nginx.recreate_proxying(proxy_list=[setup.proxy(name, "10.0.0.1") for name in names])
    assert setup.nginx.proxies.read_text().count("server_names_hash_max_size") == 1
    setup.api.nginx.recreate_proxying(proxy_list=[])
    assert "server_names_hash" not in setup.nginx.proxies.read_text()
    assert "server {" not in setup.nginx.proxies.read_text()


def test_more_sockets_than_nginx_may_open_are_refused_though_the_agent_may_open_more(setup: Setup) -> None:
    setup.api.nginx.make_proxy(**setup.proxy("a.example.com", "127.0.0.1"))
    master = setup.nginx.master()
    assert master is not None
    _soft, hard = resource.prlimit(master, resource.RLIMIT_NOFILE)
    resource.prlimit(master, resource.RLIMIT_NOFILE, (150, hard))
    assert resource.prlimit(setup.agent.pid(), resource.RLIMIT_NOFILE)[0] > 300
    files = setup.nginx.files()
    many = [{**setup.proxy(f"{port}.example.com", "127.0.0.1"), "port": port} for port in range(21000, 21210)]
    said = refusal(setup.api.nginx.recreate_proxying, proxy_list=many)
    assert "Too many open files" in said and "LimitNOFILE" in said and "Nothing was changed" in said
    assert setup.nginx.files() == files and setup.nginx.master() == master


def test_reconfigure_without_proxies_makes_the_default_proxy_to_all_application_roles(setup: Setup) -> None:
    with backend("app") as port:
        (setup.environment / "roles.toml").write_text(
            f'[roles.1]\nbehaviours = ["app"]\nservers = [{{ private = "127.0.0.1:{port}" }}]\n[roles.2]\n'
        )
        setup.api.nginx.reconfigure(proxies=[setup.proxy("old.example.com", "10.0.0.1")], async_=False)
        dry = setup.api.nginx.reconfigure(_dry_run=True, async_=True)
        assert dry["valid"] and "backend__1" in str(dry["changes"]) and "old.example.com" in str(dry["changes"])


def test_reconfigure_answers_at_once_with_an_id_unless_told_to_wait(setup: Setup) -> None:
    identity = setup.api.call("nginx.reconfigure", proxies=[setup.proxy("a.example.com", "10.0.0.1")])
    assert isinstance(identity, str)
    deadline = time.monotonic() + 30
    while setup.api.operation.result(operation_id=identity)["status"] in ("new", "in-progress"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert setup.api.operation.result(operation_id=identity)["status"] == "completed"
    assert b"a.example.com" in (setup.nginx.directory / "proxies.include").read_bytes()


def test_many_calls_at_once_are_one_reload_and_each_is_answered_behind_it(setup: Setup) -> None:
    setup.api.nginx.make_proxy(**setup.proxy("a.example.com", "10.0.0.1"))
    before = len(setup.api.change.list(limit=1000))
    failures: list[Exception] = []

    def add(number: int) -> None:
        with setup.agent.client(timeout=60) as client:
            try:
                client.nginx.add_server(backend=sha1("a.example.com"), server=f"10.0.1.{number}")
                assert f"10.0.1.{number};" in setup.nginx.upstreams.read_text()
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    wrong = refusal(setup.api.nginx.add_server, backend="nope", server="10.0.0.1")
    for thread in threads:
        thread.join()
    assert not failures and "no upstream" in wrong
    assert len(setup.api.change.list(limit=1000)) - before <= 10
    assert setup.nginx.upstreams.read_text().count("server 10.0.1.") == 100


def test_a_dry_run_shows_what_the_change_then_does(setup: Setup) -> None:
    setup.api.nginx.make_proxy(**setup.proxy("a.example.com", "10.0.0.1"))
    calls = [
        ("make_proxy", setup.proxy("b.example.com", "10.0.0.2", backend_port=81)),
        ("add_server", {"backend": sha1("b.example.com"), "server": "10.0.0.3"}),
        ("make_proxy", setup.proxy("a.example.com", "10.0.0.5")),
        ("remove_proxy", {"hostname": "b.example.com"}),
        ("recreate_proxying", {"proxy_list": [setup.proxy("c.example.com", "10.0.0.9")]}),
    ]
    for method, arguments in calls:
        files = setup.nginx.files()
        shown = getattr(setup.api.nginx, method)(**arguments, _dry_run=True)
        assert setup.nginx.files() == files and shown["valid"] and shown["services"]
        getattr(setup.api.nginx, method)(**arguments)
        done = setup.api.change.show(id=setup.api.change.list()[0]["id"])
        assert shown["changes"] == done["files"]
    refused = setup.api.nginx.make_proxy(
        **setup.proxy("d.example.com", "10.0.0.1", templates=[{"content": "bad 1;", "location": "/"}]), _dry_run=True
    )
    assert not refused["valid"] and "unknown directive" in refused["validator_output"]


def test_a_reload_that_fails_puts_the_old_files_and_the_old_service_back(setup: Setup) -> None:
    with backend("old") as port:
        setup.api.nginx.make_proxy(**setup.proxy("a.example.com", f"127.0.0.1:{port}"))
        files = setup.nginx.files()
        # nginx's test opens this log as root and says yes; the running master cannot once the directory is gone.
        elsewhere = setup.nginx.directory / "gone"
        elsewhere.mkdir()
        watcher = threading.Thread(target=_take_away_once_tested, args=(elsewhere,))
        watcher.start()
        templates = [{"content": f"access_log {elsewhere}/a.log;", "server": True}]
        proxy = setup.proxy("b.example.com", "10.0.0.1", templates=templates)
        said = refusal(setup.api.nginx.make_proxy, **proxy)
        watcher.join()
        assert "did not load the configuration" in said and "Everything was put back" in said
        assert setup.nginx.files() == files and fetch(setup.port, "a.example.com")[1].startswith("old")


def _take_away_once_tested(directory: Path) -> None:
    deadline = time.monotonic() + 20
    while not (directory / "a.log").exists() and time.monotonic() < deadline:
        time.sleep(0.0005)
    (directory / "a.log").unlink()
    directory.rmdir()


def test_one_that_died_is_told_so_and_starts_again(setup: Setup) -> None:
    master = setup.nginx.master()
    assert master is not None
    for child in Path(f"/proc/{master}/task/{master}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    os.kill(master, signal.SIGKILL)
    time.sleep(0.2)
    assert setup.api.nginx.get_service_status() == 1
    setup.api.nginx.start_service()
    assert setup.api.nginx.get_service_status() == 0
