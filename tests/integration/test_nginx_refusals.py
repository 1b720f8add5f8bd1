"""What is refused, in whose words, with nothing changed: a real agent and a real nginx."""

import resource
import subprocess
from pathlib import Path

import pytest

from agent_with_nginx import AgentWithNginx, refusal
from private_servers import backend, fetch, make_certificate
from running_agent import free_port

pytestmark = [pytest.mark.root, pytest.mark.nginx]


def test_certificates_are_checked_before_anything_changes(web: AgentWithNginx) -> None:
    certificates = web.environment / "certificates"
    make_certificate(certificates, "1", "a.example.com")
    make_certificate(certificates, "2", "b.example.com")
    (certificates / "2.key").write_text((certificates / "1.key").read_text())
    files = web.nginx.files()
    proxy = web.proxy("b.example.com", "10.0.0.1", ssl=True, ssl_port=free_port(), ssl_certificate_id="2")
    assert "does not match its key" in refusal(web.api.nginx.make_proxy, **proxy)
    assert "no such certificate" in refusal(web.api.nginx.make_proxy, **{**proxy, "ssl_certificate_id": "7"})
    assert "ssl_certificate_id" in refusal(web.api.nginx.make_proxy, **{**proxy, "ssl_certificate_id": "../../x"})
    assert web.nginx.files() == files


def test_what_the_tls_library_refuses_names_the_proxy_and_nginx_goes_on(web: AgentWithNginx) -> None:
    certificates = web.environment / "certificates"
    make_certificate(certificates, "good", "a.example.com")
    files = ["-keyout", str(certificates / "weak.key"), "-out", str(certificates / "weak.crt")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:512", "-nodes", "-subj", "/CN=a.example.com", *files]
    subprocess.run(command, check=True, capture_output=True)
    good = web.proxy("a.example.com", "10.0.0.1", ssl=True, ssl_port=free_port(), ssl_certificate_id="good")
    web.api.nginx.make_proxy(**good)
    before, master = web.nginx.files(), web.nginx.master()
    weak = {**good, "hostname": "b.example.com", "ssl_certificate_id": "weak"}
    said = refusal(web.api.nginx.make_proxy, **weak)
    assert "In the proxy b.example.com, ssl_certificate_id: nginx says:" in said and "key too small" in said
    said = refusal(web.api.nginx.recreate_proxying, proxy_list=[good, weak])
    assert "proxy_list[1].ssl_certificate_id" in said and "'index': 1" in said
    said = refusal(web.api.nginx.enable_ssl, hostname="a.example.com", ssl_certificate_id="weak")
    assert "In the proxy a.example.com: nginx says:" in said and "key too small" in said
    for directive in ("ssl_ecdh_curve nonsense;", "ssl_conf_command Curves nonsense;"):
        said = refusal(web.api.nginx.make_proxy, **{**good, "templates": [{"content": directive, "server": True}]})
        assert "nginx says" in said and "Nothing was changed" in said
    assert web.nginx.files() == before and web.nginx.master() == master


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
        ("backends[0].host", {"backends": [{"host": "0x7f.1"}]}),
        ("name", {"name": "b.example.com"}),
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
    web: AgentWithNginx, parameter: str, changed: dict[str, object]
) -> None:
    if changed.get("ssl_port") == "PORT":
        changed = {**changed, "ssl_port": web.port}
    files = web.nginx.files()
    said = refusal(web.api.nginx.make_proxy, **{**web.proxy("a.example.com", "10.0.0.1"), **changed})
    assert repr(parameter) in said and web.nginx.files() == files
    good, bad = web.proxy("b.example.com", "10.0.0.1"), {**web.proxy("a.example.com", "10.0.0.1"), **changed}
    said = refusal(web.api.nginx.recreate_proxying, proxy_list=[good, bad])
    assert f"proxy_list[1].{parameter}" in said and "'index': 1" in said and web.nginx.files() == files


def test_nginx_s_own_words_are_mapped_to_the_template_s_line(web: AgentWithNginx) -> None:
    files = web.nginx.files()
    bad = web.proxy(
        "b.example.com", "10.0.0.1", templates=[{"content": "expires 1d;\n\n  nonsense on;", "location": "/"}]
    )
    many = [web.proxy(f"{number}.example.com", "10.0.0.1") for number in range(20)]
    said = refusal(web.api.nginx.recreate_proxying, proxy_list=[*many, bad])
    assert "proxy_list[20] (b.example.com)" in said and "proxy_list[20].templates[0].content, line 3" in said
    assert 'unknown directive "nonsense"' in said and "Nothing was changed" in said
    assert web.nginx.files() == files


def test_text_of_other_files_never_comes_back(tmp_path: Path) -> None:
    web = AgentWithNginx(tmp_path, 'template_directives = "any"\n')
    try:
        secret = tmp_path / "secret"
        secret.write_text("root:swordfish:1;\n")
        templates = [{"content": f"include {secret};", "server": True}]
        said = refusal(web.api.nginx.make_proxy, **web.proxy("a.example.com", "10.0.0.1", templates=templates))
        assert "nginx says" in said and "swordfish" not in said
        assert "swordfish" not in web.agent.log_text()
    finally:
        web.close()


def test_a_port_that_another_program_holds_is_refused_beforehand(web: AgentWithNginx) -> None:
    with backend("other") as taken:
        proxy = {**web.proxy("a.example.com", "10.0.0.1"), "port": taken}
        assert "held by another program" in refusal(web.api.nginx.make_proxy, **proxy)
        assert fetch(taken, "x")[0] == 200


def test_more_sockets_than_nginx_may_open_are_refused_though_the_agent_may_open_more(web: AgentWithNginx) -> None:
    web.api.nginx.make_proxy(**web.proxy("a.example.com", "127.0.0.1"))
    master = web.nginx.master()
    assert master is not None
    _soft, hard = resource.prlimit(master, resource.RLIMIT_NOFILE)
    resource.prlimit(master, resource.RLIMIT_NOFILE, (150, hard))
    assert resource.prlimit(web.agent.pid(), resource.RLIMIT_NOFILE)[0] > 300
    files = web.nginx.files()
    ports = [free_port() for _ in range(210)]
    many = [{**web.proxy(f"{port}.example.com", "127.0.0.1"), "port": port} for port in ports]
    said = refusal(web.api.nginx.recreate_proxying, proxy_list=many)
    assert "Too many open files" in said and "LimitNOFILE" in said and "Nothing was changed" in said
    assert web.nginx.files() == files and web.nginx.master() == master
