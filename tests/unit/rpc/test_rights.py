"""What rights allow, what they show, and what an error tells of all else."""

from typing import Any

import pytest

from scalarizr.errors import PermissionRefused
from scalarizr.rpc.call import MethodNotFound, NamespaceNotFound
from scalarizr.rpc.method import command, operation, query
from scalarizr.rpc.registry import Registry
from scalarizr.rpc.rights import FULL_RIGHTS, NO_RIGHTS, Rights, present_rights

BUILT: list[str] = []


class Web:
    def __init__(self) -> None:
        BUILT.append("web")

    @query
    def list_servers(self) -> list[str]:
        return []

    @command(resource="web")
    def add_server(self) -> None: ...

    @operation(resource="web")
    def reconfigure(self, async_: bool = False) -> None: ...


class Vault:
    def __init__(self) -> None:
        BUILT.append("vault")

    @query
    def read(self) -> str:
        return ""


class Rpc:
    @query
    def discover(self) -> None: ...

    @query
    def further(self) -> None: ...


@pytest.fixture
def registry() -> Registry:
    BUILT.clear()
    paths = {"web": f"{__name__}:Web", "vault": f"{__name__}:Vault", "rpc": f"{__name__}:Rpc"}
    return Registry(paths, {"www": "web"}, lambda kind: kind())


def rights(registry: Registry, *allow: str) -> Rights:
    return Rights(allow, lambda name, given: registry.find(name, rights=given))


def allowed(registry: Registry, given: Rights) -> set[str]:
    return {method.name for method in registry.allowed(given)}


@pytest.mark.parametrize(
    ("allow", "names"),
    [
        ([], {"rpc.discover"}),
        (["web.add_server"], {"rpc.discover", "web.add_server"}),
        (["web.*"], {"rpc.discover", "web.list_servers", "web.add_server", "web.reconfigure"}),
        (["read-only"], {"rpc.discover", "rpc.further", "web.list_servers", "vault.read"}),
        (
            ["read-only", "web.reconfigure"],
            {"rpc.discover", "rpc.further", "web.list_servers", "vault.read", "web.reconfigure"},
        ),
        (["web.nothing"], {"rpc.discover"}),
    ],
)
def test_what_is_allowed(registry: Registry, allow: list[str], names: set[str]) -> None:
    given = rights(registry, *allow)
    assert allowed(registry, given) == names and not given.unlimited
    for name in ("web.list_servers", "web.add_server", "web.reconfigure", "vault.read", "rpc.further"):
        assert given.show(name) == (name in names)


def test_everything_is_allowed_to_full_rights_and_nothing_to_none(registry: Registry) -> None:
    assert len(allowed(registry, rights(registry, "*"))) == len(allowed(registry, FULL_RIGHTS)) == 6
    assert allowed(registry, NO_RIGHTS) == {"rpc.discover"} and not NO_RIGHTS.show("web.add_server")
    assert FULL_RIGHTS.show("a.method_that_is_gone")
    assert present_rights() is NO_RIGHTS, "outside of a call nothing is allowed"


@pytest.mark.parametrize(
    ("name", "within"), [("web.add_server", ""), ("www.add_server", ""), ("www.add_server", "www")]
)
def test_a_name_is_canonical_before_it_is_looked_at(registry: Registry, name: str, within: str) -> None:
    assert registry.find(name, within=within, rights=rights(registry, "web.add_server")).name == "web.add_server"
    with pytest.raises(PermissionRefused) as caught:
        registry.find(name, within=within, rights=rights(registry, "web.list_servers"))
    assert caught.value.facts == {"method": "web.add_server"}


@pytest.mark.parametrize("name", ["vault.read", "vault.nothing", "nowhere.read", "vault."])
def test_what_cannot_be_reached_is_not_told_and_not_built(registry: Registry, name: str) -> None:
    with pytest.raises(PermissionRefused) as caught:
        registry.find(name, rights=rights(registry, "web.*"))
    assert str(caught.value) == f"This key may not call {name}. Nothing was changed."
    assert BUILT == []


def test_the_nearest_is_one_that_is_allowed(registry: Registry) -> None:
    def nearest(name: str, given: Rights) -> Any:
        with pytest.raises(MethodNotFound) as caught:
            registry.find(name, rights=given)
        return caught.value.facts["nearest"]

    assert nearest("web.add_serve", FULL_RIGHTS) == "add_server"
    assert nearest("web.add_serve", rights(registry, "web.reconfigure")) is None
    assert nearest("add_server", rights(registry, "vault.*")) is None
    assert nearest("add_server", rights(registry, "web.add_server")) == "web.add_server"


def test_read_only_rights_reach_everywhere_and_are_told_where(registry: Registry) -> None:
    with pytest.raises(NamespaceNotFound):
        registry.find("nowhere.read", rights=rights(registry, "read-only"))


def test_of_calls_made_together_all_must_be_allowed(registry: Registry) -> None:
    given = rights(registry, "web.add_server", "web.reconfigure")
    assert given.show("web.add_server, web.reconfigure")
    assert not given.show("web.add_server, web.list_servers") and not given.show("")


def test_rights_that_change_do_so_for_whoever_holds_them(registry: Registry) -> None:
    given = rights(registry, "*")
    given.become(("web.add_server",))
    assert allowed(registry, given) == {"rpc.discover", "web.add_server"} and not given.unlimited
    given.become(())
    assert allowed(registry, given) == {"rpc.discover"} and not given.show("web.add_server")


def test_a_whole_namespace_is_covered_by_its_pattern_alone(registry: Registry) -> None:
    assert rights(registry, "web.*").cover("web") and not rights(registry, "web.add_server", "read-only").cover("web")


def test_what_was_being_decided_when_rights_changed_decides_nothing_later(registry: Registry) -> None:
    given = Rights(("read-only",))
    method = registry.methods("web")["list_servers"]

    class Asked:
        """The method, whose kind is looked at while the rights are taken away."""

        name = method.name

        @property
        def declaration(self) -> Any:
            given.become(())
            return method.declaration

    given.allow(Asked())  # type: ignore[arg-type]
    assert not given.allow(method)
