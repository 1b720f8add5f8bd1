"""Reverse proxies of a real nginx, through a real agent."""

import time

import pytest

from agent_with_nginx import AgentWithNginx, sha1
from private_servers import backend, fetch, make_certificate
from running_agent import free_port

pytestmark = [pytest.mark.root, pytest.mark.nginx]


def test_a_proxy_serves_at_once_and_a_person_s_files_keep_every_byte(web: AgentWithNginx) -> None:
    before = web.nginx.main.read_text()
    with backend("one") as port:
        assert web.api.nginx.make_proxy(**web.proxy("www.example.com", f"127.0.0.1:{port}")) is None
        assert fetch(web.port, "www.example.com") == (200, "one www.example.com http")
    after = web.nginx.main.read_text()
    added = [line for line in after.splitlines() if line not in before.splitlines()]
    assert [line for line in after.splitlines() if line not in added] == before.splitlines()
    assert [line.split("/")[-1] for line in added[1:]] == [
        "error-pages.include;",
        "app-servers.include;",
        "proxies.include;",
    ]


def test_the_same_call_again_writes_nothing_and_reloads_nothing(web: AgentWithNginx) -> None:
    proxy = web.proxy("www.example.com", "10.0.0.1", ssl=False, backend_weight="3")
    web.api.nginx.make_proxy(**proxy)
    files, master = web.nginx.files(), web.nginx.master()
    stamps = [path.stat().st_mtime_ns for path in (web.nginx.proxies, web.nginx.upstreams, web.nginx.main)]
    log = (web.nginx.directory / "error.log").read_text()
    web.api.nginx.make_proxy(**proxy)
    web.api.nginx.recreate_proxying(proxy_list=[proxy])
    assert web.nginx.files() == files and web.nginx.master() == master
    assert stamps == [p.stat().st_mtime_ns for p in (web.nginx.proxies, web.nginx.upstreams, web.nginx.main)]
    assert (web.nginx.directory / "error.log").read_text() == log
    assert len(web.api.change.list()) == 1


def test_every_parameter_stands_where_nginx_wants_it(web: AgentWithNginx) -> None:
    web.api.nginx.make_proxy(
        hostname="www.example.com",
        port=str(web.port),
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
    upstreams = web.nginx.upstreams.read_text()
    assert "upstream www.example.com {\n    least_conn;" in upstreams
    assert "server 10.0.0.1:8001 weight=2 max_fails=3 fail_timeout=15s;" in upstreams
    assert "server 10.0.0.2:8080 max_fails=1 fail_timeout=5s backup;" in upstreams
    assert "server 10.0.0.3:8080 max_fails=1 fail_timeout=5s down;" in upstreams
    assert "upstream www.example.com_six {" in upstreams and "server [::1]:8080" in upstreams
    assert "upstream www.example.com_socket {" in upstreams and "server unix:/run/app.sock" in upstreams
    assert fetch(web.port, "www.example.com", "/ping")[0] == 204
    assert "client_max_body_size 7m;" in web.nginx.proxies.read_text()


def test_a_server_template_takes_the_place_of_the_default_headers(web: AgentWithNginx) -> None:
    templates = [{"content": "server {\n  add_header X-Mine yes;\n  location /own { return 200 own; }\n}", "server": 1}]
    web.api.nginx.make_proxy(**web.proxy("a.example.com", "10.0.0.1", templates=templates))
    assert "proxy_set_header" not in web.nginx.proxies.read_text()
    assert fetch(web.port, "a.example.com", "/own") == (200, "own")


def test_tls_with_a_certificate_of_the_environment_and_a_redirect_from_http(web: AgentWithNginx) -> None:
    make_certificate(web.environment / "certificates", "410", "www.example.com")
    tls = free_port()
    with backend("secure") as port:
        web.api.nginx.make_proxy(
            **web.proxy("www.example.com", f"127.0.0.1:{port}"),
            http=False,
            ssl=True,
            ssl_port=tls,
            ssl_certificate_id=410,
        )
        assert fetch(tls, "www.example.com", tls=True) == (200, "secure www.example.com https")
        status, text = fetch(web.port, "www.example.com", "/page?x=1")
    assert status == 301 and "301" in text
    key = web.agent.etc / "private.d" / "keys" / "nginx-https_410.key"
    assert key.stat().st_mode & 0o777 == 0o600
    shown = web.api.change.show(id=web.api.change.list()[0]["id"])
    assert "PRIVATE KEY" not in str(shown) and "PRIVATE KEY" not in web.agent.log_text()
    proxies = web.nginx.proxies.read_text()
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in proxies and "SSLv3" not in proxies


def test_ssl_is_turned_on_and_off_and_what_a_person_added_stays(web: AgentWithNginx) -> None:
    make_certificate(web.environment / "certificates", "default", "x.example.com")
    tls = free_port()
    with backend("x") as port:
        web.api.nginx.make_proxy(**web.proxy("x.example.com", f"127.0.0.1:{port}"))
        text = web.nginx.proxies.read_text().replace("    location / {", "    # mine\n    location / {")
        web.nginx.proxies.write_text(text)
        web.api.nginx.enable_ssl(hostname="x.example.com", ssl_port=tls)
        assert fetch(tls, "x.example.com", tls=True)[0] == fetch(web.port, "x.example.com")[0] == 200
        before = web.statuses()
        web.api.nginx.enable_ssl(hostname="x.example.com", ssl_port=tls)
        assert web.statuses() == before
        web.api.nginx.disable_ssl(hostname="x.example.com")
        assert fetch(web.port, "x.example.com")[0] == 200
    with pytest.raises(OSError):
        fetch(tls, "x.example.com", tls=True)
    assert web.nginx.proxies.read_text() == text


def test_reconfigure_without_proxies_makes_the_default_proxy_to_all_application_roles(web: AgentWithNginx) -> None:
    with backend("app") as port:
        (web.environment / "roles.toml").write_text(
            f'[roles.1]\nbehaviours = ["app"]\nservers = [{{ private = "127.0.0.1:{port}" }}]\n[roles.2]\n'
        )
        web.api.nginx.reconfigure(proxies=[web.proxy("old.example.com", "10.0.0.1")], async_=False)
        dry = web.api.nginx.reconfigure(_dry_run=True, async_=True)
        assert dry["valid"] and "backend__1" in str(dry["changes"]) and "old.example.com" in str(dry["changes"])


def test_reconfigure_answers_at_once_with_an_id_unless_told_to_wait(web: AgentWithNginx) -> None:
    identity = web.api.call("nginx.reconfigure", proxies=[web.proxy("a.example.com", "10.0.0.1")])
    assert isinstance(identity, str)
    deadline = time.monotonic() + 30
    while web.api.operation.result(operation_id=identity)["status"] in ("new", "in-progress"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert web.api.operation.result(operation_id=identity)["status"] == "completed"
    assert b"a.example.com" in (web.nginx.directory / "proxies.include").read_bytes()


def test_a_dry_run_shows_what_the_change_then_does(web: AgentWithNginx) -> None:
    web.api.nginx.make_proxy(**web.proxy("a.example.com", "10.0.0.1"))
    calls = [
        ("make_proxy", web.proxy("b.example.com", "10.0.0.2", backend_port=81)),
        ("add_server", {"backend": sha1("b.example.com"), "server": "10.0.0.3"}),
        ("make_proxy", web.proxy("a.example.com", "10.0.0.5")),
        ("remove_proxy", {"hostname": "b.example.com"}),
        ("recreate_proxying", {"proxy_list": [web.proxy("c.example.com", "10.0.0.9")]}),
    ]
    for method, arguments in calls:
        files = web.nginx.files()
        shown = getattr(web.api.nginx, method)(**arguments, _dry_run=True)
        assert web.nginx.files() == files and shown["valid"] and shown["services"]
        getattr(web.api.nginx, method)(**arguments)
        done = web.api.change.show(id=web.api.change.list()[0]["id"])
        assert shown["changes"] == done["files"]
    refused = web.api.nginx.make_proxy(
        **web.proxy("d.example.com", "10.0.0.1", templates=[{"content": "bad 1;", "location": "/"}]), _dry_run=True
    )
    assert not refused["valid"] and "unknown directive" in refused["validator_output"]
