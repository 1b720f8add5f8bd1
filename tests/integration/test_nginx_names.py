"""Names of proxies, and who is the default server, through a real agent and a real nginx."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_with_nginx import AgentWithNginx, refusal
from private_servers import backend, fetch
from running_agent import free_port

pytestmark = [pytest.mark.root, pytest.mark.nginx]


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[AgentWithNginx]:
    made = AgentWithNginx(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    "name", ["*.example.com", ".example.com", "www.example.*", "a_b.example.com", "bücher.example"]
)
def test_unusual_names_are_served(setup: AgentWithNginx, name: str) -> None:
    asked = {"*.example.com": "x.example.com", ".example.com": "example.com", "www.example.*": "www.example.net"}
    with backend("here") as port:
        setup.api.nginx.make_proxy(**setup.proxy(name, f"127.0.0.1:{port}"))
        host = asked.get(name) or name.encode("idna").decode()
        assert fetch(setup.port, host)[0] == 200
        setup.api.nginx.remove_proxy(hostname=name)
        assert "server {" not in setup.nginx.proxies.read_text()


def test_two_proxies_that_claim_one_name_on_one_port_are_refused(setup: AgentWithNginx) -> None:
    twins = [setup.proxy("a.example.com", "10.0.0.1"), setup.proxy("A.example.com", "10.0.0.2")]
    said = refusal(setup.api.nginx.recreate_proxying, proxy_list=twins)
    assert "proxy_list[1].port" in said and "proxy_list[0]" in said
    own = f"server {{ listen {setup.port}; server_name b.example.com; }}\n"
    (setup.nginx.directory / "sites-enabled" / "mine").write_text(own)
    said = refusal(setup.api.nginx.make_proxy, **setup.proxy("b.example.com", "10.0.0.1"))
    assert "b.example.com is claimed" in said and not setup.nginx.proxies.exists()
    setup.api.nginx.recreate_proxying(proxy_list=[twins[0], {**twins[1], "port": free_port()}])
    assert setup.nginx.upstreams.read_text().count("upstream ") == 2


def test_a_default_site_that_claims_the_port_is_taken_out_and_comes_back_with_a_revert(setup: AgentWithNginx) -> None:
    available = setup.nginx.directory / "default-site"
    available.write_text(f"server {{ listen {setup.port} default_server; server_name _; }}\n")
    enabled = setup.nginx.directory / "sites-enabled" / "default"
    enabled.symlink_to("../default-site")
    setup.api.nginx.make_proxy(**setup.proxy("a.example.com", "10.0.0.1"))
    assert not enabled.is_symlink() and available.exists()
    assert "sites-enabled/default" in setup.nginx.proxies.read_text()
    setup.api.change.revert(id=setup.api.change.list()[0]["id"])
    assert enabled.is_symlink() and enabled.readlink() == Path("../default-site")


def test_the_proxy_for_all_other_names_is_the_default_server_where_nobody_else_is(setup: AgentWithNginx) -> None:
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


def test_thousands_of_names_and_long_ones_fit_nginx_s_table(setup: AgentWithNginx) -> None:
    names = [f"{number}.example.com" for number in range(2000)] + [f"{'long' * 15}.{'name' * 15}.example.com"]
    setup.api.nginx.recreate_proxying(proxy_list=[setup.proxy(name, "10.0.0.1") for name in names])
    assert setup.nginx.proxies.read_text().count("server_names_hash_max_size") == 1
    setup.api.nginx.recreate_proxying(proxy_list=[])
    assert "server_names_hash" not in setup.nginx.proxies.read_text()
    assert "server {" not in setup.nginx.proxies.read_text()
