"""Several keys of one agent: the changes that each sees and takes back, and what its templates may hold."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from private_servers import PrivateApache, PrivateNginx
from running_agent import RunningAgent, free_port
from scalarizr.client import Client
from several_keys import error_of, give_key, holder

PORT = free_port()


class Web:
    """An agent with an nginx of its own, and keys for parts of it."""

    def __init__(self, directory: Path, more: str = "") -> None:
        self.nginx = PrivateNginx(directory)
        self.agent = RunningAgent(directory, self.nginx.settings + more)
        give_key(self.agent, "proxies", "nginx.make_proxy", "change.*")
        give_key(self.agent, "removes", "nginx.remove_proxy", "change.*")
        give_key(self.agent, "all_of_nginx", "nginx.*", "change.*", "operation.*")
        give_key(self.agent, "everything", "*")
        give_key(self.agent, "history", "change.*")
        self.agent.start()

    def end(self) -> None:
        self.agent.__exit__()
        self.nginx.stop()

    def holder(self, identity: str) -> Client:
        return holder(self.agent, identity)

    def files(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.nginx.directory.glob("*.include")}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    made = Web(tmp_path)
    yield made
    made.end()


@pytest.fixture
def web_with_any(tmp_path: Path) -> Iterator[Web]:
    made = Web(tmp_path, 'template_directives = "any"\n')
    yield made
    made.end()


def proxy(name: str = "a.example.com", **more: Any) -> dict[str, Any]:
    return {"hostname": name, "backends": [{"host": "127.0.0.1"}], "port": PORT, "reload_service": False, **more}


@pytest.mark.nginx
@pytest.mark.root
def test_changes_are_seen_and_taken_back_by_who_may_make_such(web: Web) -> None:
    with web.agent.client(timeout=60) as full:
        full.call("nginx.make_proxy", **proxy())
        made = full.call("change.list")[0]["id"]
    files = web.files()
    for identity in ("removes", "history"):
        with web.holder(identity) as other:
            assert other.call("change.list") == []
            absent = error_of(lambda: other.call("change.show", id="0123"))
            for method in ("change.show", "change.revert", "change.confirm"):
                error = error_of(lambda method=method: other.call(method, id=made))  # type: ignore[misc]
                assert error.code == absent.code == -32011
                assert str(error) == str(absent).replace("0123", made)
    assert web.files() == files != {}
    with web.holder("proxies") as proxies:
        assert [change["id"] for change in proxies.call("change.list")] == [made]
        assert proxies.call("change.show", id=made)["files"]
        reverted = proxies.call("change.revert", id=made, reload=False)
        assert web.files() != files
        assert [change["id"] for change in proxies.call("change.list")] == [made], (
            "what took it back could be any change"
        )
        error = error_of(lambda: proxies.call("change.revert", id=reverted["id"], reload=False))
        assert error.code == -32011
    with web.holder("all_of_nginx") as all_of_nginx:
        assert [change["id"] for change in all_of_nginx.call("change.list")] == [reverted["id"], made]


@pytest.mark.nginx
@pytest.mark.root
def test_a_change_of_several_calls_is_seen_by_who_may_make_them_all(web: Web) -> None:
    with web.agent.client(timeout=60) as full:
        full.call("nginx.make_proxy", **proxy("first.example.com"))
    calls: list[tuple[str, dict[str, Any]]] = [("nginx.make_proxy", proxy(f"n{n}.example.com")) for n in range(6)]
    calls += [("nginx.remove_proxy", {"hostname": "first.example.com", "reload_service": False})]

    def make(method: str, params: dict[str, Any]) -> None:
        with web.agent.client(timeout=60) as client:
            client.call(method, **params)

    threads = [threading.Thread(target=make, args=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with web.agent.client() as full, web.holder("proxies") as proxies:
        everything = full.call("change.list")
        merged = [change["id"] for change in everything if "remove_proxy" in change["method"]]
        assert merged, "the removal is named, be it alone or with others"
        seen = [change["id"] for change in proxies.call("change.list")]
        assert not set(seen) & set(merged)


@pytest.mark.nginx
@pytest.mark.root
def test_templates_of_a_limited_key_pass_the_list_even_where_any_is_set(web_with_any: Web) -> None:
    include = {"content": "include /etc/nginx/mime.types;", "location": "/"}
    for identity in ("all_of_nginx", "proxies"):
        with web_with_any.holder(identity) as limited:
            for more in ({}, {"_dry_run": True}, {"_confirm_within": 60}):
                error = error_of(
                    lambda limited=limited, more=more: limited.call(  # type: ignore[misc]
                        "nginx.make_proxy", **proxy(templates=[include]), **more
                    )
                )
                assert error.code == -32602 and "template" in str(error.data)
    with web_with_any.holder("all_of_nginx") as limited:
        for more in ({"async_": False}, {"_dry_run": True}):
            error = error_of(
                lambda: limited.call("nginx.reconfigure", proxies=[proxy(templates=[include])], **more)  # noqa: B023
            )
            assert "template" in str(error.data) or "template" in str(error)
    assert not web_with_any.nginx.proxies.exists()
    for identity in ("everything", "default"):
        with web_with_any.holder(identity) as unlimited:
            unlimited.call("nginx.make_proxy", **proxy(f"{identity}.example.com", templates=[include]))
            unlimited.call(
                "nginx.reconfigure", proxies=[proxy(f"{identity}.example.com", templates=[include])], async_=False
            )


@pytest.mark.apache2
@pytest.mark.root
def test_templates_of_apache_pass_the_list_as_well(tmp_path: Path) -> None:
    apache = PrivateApache(tmp_path)
    agent = RunningAgent(tmp_path, f'{apache.settings}template_directives = "any"\n')
    give_key(agent, "hosts", "apache.*")
    (tmp_path / "included").write_text("# nothing\n")
    template = f"<VirtualHost *:{apache.port}>\nServerName a.example.com\nInclude {tmp_path}/included\n</VirtualHost>\n"
    described = {"hostname": "a.example.com", "port": apache.port, "ssl": False, "template": template}
    with agent:
        with holder(agent, "hosts") as hosts:
            for more in ({}, {"_dry_run": True}):
                error = error_of(lambda more=more: hosts.call("apache.create_vhost", **described, **more))  # type: ignore[misc]
                assert error.code == -32602 and "template" in str(error.data)
        with agent.client(timeout=60) as full:
            shown = full.call("apache.create_vhost", **described, _dry_run=True)
            assert shown["valid"] and "included" in str(shown["changes"])
    apache.stop()
