"""Names of proxies, and who is the default server, through a real agent and a real nginx."""

from pathlib import Path

import pytest

from agent_with_nginx import AgentWithNginx, refusal
from private_servers import backend, fetch
from running_agent import free_port

pytestmark = [pytest.mark.root, pytest.mark.nginx]


@pytest.mark.parametrize(
    "name", ["*.example.com", ".example.com", "www.example.*", "a_b.example.com", "bücher.example"]
)
def test_unusual_names_are_served(web: AgentWithNginx, name: str) -> None:
    asked = {"*.example.com": "x.example.com", ".example.com": "example.com", "www.example.*": "www.example.net"}
    with backend("here") as port:
        web.api.nginx.make_proxy(**web.proxy(name, f"127.0.0.1:{port}"))
        host = asked.get(name) or name.encode("idna").decode()
        assert fetch(web.port, host)[0] == 200
        web.api.nginx.remove_proxy(hostname=name)
        assert "server {" not in web.nginx.proxies.read_text()


def test_two_proxies_that_claim_one_name_on_one_port_are_refused(web: AgentWithNginx) -> None:
    twins = [web.proxy("a.example.com", "10.0.0.1"), web.proxy("A.example.com", "10.0.0.2")]
    said = refusal(web.api.nginx.recreate_proxying, proxy_list=twins)
    assert "proxy_list[1].port" in said and "proxy_list[0]" in said
    own = f"server {{ listen {web.port}; server_name b.example.com; }}\n"
    (web.nginx.directory / "sites-enabled" / "mine").write_text(own)
    said = refusal(web.api.nginx.make_proxy, **web.proxy("b.example.com", "10.0.0.1"))
    assert "b.example.com is claimed" in said and not web.nginx.proxies.exists()
    web.api.nginx.recreate_proxying(proxy_list=[twins[0], {**twins[1], "port": free_port()}])
    assert web.nginx.upstreams.read_text().count("upstream ") == 2


def test_a_default_site_that_claims_the_port_is_taken_out_and_comes_back_with_a_revert(web: AgentWithNginx) -> None:
    available = web.nginx.directory / "default-site"
    available.write_text(f"server {{ listen {web.port} default_server; server_name _; }}\n")
    enabled = web.nginx.directory / "sites-enabled" / "default"
    enabled.symlink_to("../default-site")
    web.api.nginx.make_proxy(**web.proxy("a.example.com", "10.0.0.1"))
    assert not enabled.is_symlink() and available.exists()
    assert "sites-enabled/default" in web.nginx.proxies.read_text()
    web.api.change.revert(id=web.api.change.list()[0]["id"])
    assert enabled.is_symlink() and enabled.readlink() == Path("../default-site")


def test_the_proxy_for_all_other_names_is_the_default_server_where_nobody_else_is(web: AgentWithNginx) -> None:
    with backend("for-all") as everything, backend("for-a") as named:
        web.api.nginx.make_proxy(**web.proxy("a.example.com", f"127.0.0.1:{named}"))
        for_all = web.proxy("_", f"127.0.0.1:{everything}")
        web.api.nginx.make_proxy(**for_all)
        assert f"listen {web.port} default_server;" in web.nginx.proxies.read_text()
        assert fetch(web.port, "other.example.com")[1].startswith("for-all")
        assert fetch(web.port, "a.example.com")[1].startswith("for-a ")
        before = web.api.change.list()[0]["id"]
        web.api.nginx.make_proxy(**for_all)
        assert web.api.change.list()[0]["id"] == before, "the same again changes nothing"
        # Somebody's own default server stays the one.
        web.api.nginx.remove_proxy(hostname="_")
        own = web.nginx.directory / "sites-enabled" / "own.conf"
        own.write_text(f"server {{ listen *:{web.port} default_server; server_name own; return 204; }}\n")
        web.api.nginx.make_proxy(**for_all)
        assert f"listen {web.port};" in web.nginx.proxies.read_text()
        assert fetch(web.port, "other.example.com")[0] == 204
        assert fetch(web.port, "_")[1].startswith("for-all")


def test_thousands_of_names_and_long_ones_fit_nginx_s_table(web: AgentWithNginx) -> None:
    names = [f"{number}.example.com" for number in range(2000)] + [f"{'long' * 15}.{'name' * 15}.example.com"]
    web.api.nginx.recreate_proxying(proxy_list=[web.proxy(name, "10.0.0.1") for name in names])
    assert web.nginx.proxies.read_text().count("server_names_hash_max_size") == 1
    web.api.nginx.recreate_proxying(proxy_list=[])
    assert "server_names_hash" not in web.nginx.proxies.read_text()
    assert "server {" not in web.nginx.proxies.read_text()
