"""A dry run shows exactly what the same call then does, whatever was there before it: a property, tried at random."""

import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from private_servers import PrivateApache, PrivateNginx, make_certificate
from running_agent import RunningAgent, free_port
from scalarizr.client import AgentError

pytestmark = pytest.mark.root
NAMES = ["a.example.com", "b.example.com", "*.c.example.com", "bücher.example"]
STEPS = 30


def patched(before: dict[str, bytes], change: dict[str, str], directory: Path) -> bytes | None:
    """Do by `patch`, which shares no code with the agent, what a diff says."""
    file = directory / "patched"
    file.write_bytes(before.get(change["path"], b""))
    subprocess.run(
        ["patch", "--quiet", "--force", str(file)], input=change["diff"].encode(), check=True, capture_output=True
    )
    content = file.read_bytes() if file.exists() else b""
    return None if change["action"] == "delete" else content


def content_of(*places: Path) -> dict[str, bytes]:
    found = {}
    for place in places:
        for path in place.rglob("*"):
            if path.suffix in (".log", ".pid") or "tmp" in path.relative_to(place).parts:
                continue
            if path.is_symlink():
                found[str(path)] = f"(a link to {path.readlink()})\n".encode()
            elif path.is_file():
                found[str(path)] = path.read_bytes()
    return found


class Trial:
    """Makes calls twice: dry, and for real, and compares."""

    def __init__(self, agent: RunningAgent, directory: Path, *places: Path) -> None:
        self.agent = agent
        self.api: Any = agent.client(timeout=60)
        self.directory = directory
        self.places = places
        self.counts = {"changed": 0, "unchanged": 0, "refused": 0}

    def make_many(self, another: Callable[[], tuple[str, dict[str, Any]]]) -> None:
        """Make so many calls, and more where the dice have left too much as it was."""
        made = 0
        while made < STEPS or (self.counts["changed"] < 5 and made < 10 * STEPS):
            self.make(*another())
            made += 1
        assert self.counts["changed"] >= 5, self.counts

    def make(self, method: str, arguments: dict[str, Any]) -> None:
        before = content_of(*self.places)
        try:
            shown = self.api.call(method, **arguments, _dry_run=True)
        except AgentError as refusal:
            shown = refusal
        assert content_of(*self.places) == before, "a dry run changes nothing"
        history = [change["id"] for change in self.api.change.list(limit=1)]
        if isinstance(shown, AgentError):
            with pytest.raises(AgentError) as caught:
                self.api.call(method, **arguments)
            assert str(caught.value) == str(shown) and content_of(*self.places) == before
            self.counts["refused"] += 1
            return
        assert shown["valid"], shown["validator_output"]
        self.api.call(method, **arguments)
        after = content_of(*self.places)
        changes = {change["path"]: change for change in shown["changes"]}
        changed = {path for path in {*before, *after} if before.get(path) != after.get(path)}
        assert {path for path in changes if not path.startswith(str(self.directory / "state"))} == changed
        for path in changed:
            if "PRIVATE KEY" in (after.get(path) or b"").decode():
                assert "not shown" in changes[path]["diff"]
            else:
                assert patched(before, changes[path], self.directory) == after.get(path), path
        done = self.api.change.list(limit=1)
        if changes:
            assert self.api.change.show(id=done[0]["id"])["files"] == shown["changes"]
            self.counts["changed"] += 1
        else:
            assert [change["id"] for change in done] == history and shown["services"] == []
            self.counts["unchanged"] += 1


@pytest.fixture
def chance() -> random.Random:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Trial]:
    server = PrivateNginx(tmp_path)
    agent = RunningAgent(tmp_path, server.settings)
    for identity in ("1", "default"):
        make_certificate(agent.etc / "environment" / "certificates", identity, "a.example.com")
    (agent.etc / "environment" / "roles.toml").write_text(
        '[roles.7]\nbehaviours = ["app"]\nservers = [{ private = "127.0.0.7:81" }]\n'
    )
    with agent:
        trial = Trial(agent, tmp_path, server.directory, agent.etc / "private.d")
        yield trial
        trial.api.close()
    server.stop()


def random_proxy(chance: random.Random, ports: list[int]) -> dict[str, Any]:
    backends: list[dict[str, Any]] = [{"host": f"127.0.0.{chance.randrange(1, 9)}"} for _ in range(chance.randrange(3))]
    if chance.random() < 0.4 or not backends:
        backends.append({"farm_role_id": 7, "location": chance.choice(["/", "/api/"])})
    proxy: dict[str, Any] = {"hostname": chance.choice(NAMES), "port": ports[0], "backends": backends}
    if chance.random() < 0.4:
        proxy |= {"ssl": True, "ssl_port": ports[1], "http": chance.random() < 0.5}
        proxy["ssl_certificate_id"] = chance.choice([1, None])
    if chance.random() < 0.3:
        proxy["templates"] = [{"content": f"expires {chance.randrange(3)}d;", "location": "/"}]
    if chance.random() < 0.3:
        proxy[chance.choice(["backend_ip_hash", "backend_least_conn"])] = True
    return proxy


@pytest.mark.nginx
def test_a_dry_run_of_proxies_shows_what_is_done(nginx: Trial, chance: random.Random) -> None:
    ports = [free_port(), free_port()]
    nginx.api.nginx.start_service()
    upstreams = nginx.places[0] / "app-servers.include"

    def an_upstream() -> str:
        lines = upstreams.read_text().splitlines() if upstreams.exists() else []
        labels = [line.split()[1] for line in lines if line.startswith("upstream ")]
        return chance.choice(labels or ["none"])

    server = lambda: f"127.0.0.{chance.randrange(1, 9)}:{chance.choice([80, 81])}"  # noqa: E731
    calls: list[Callable[[], tuple[str, dict[str, Any]]]] = [
        lambda: ("nginx.make_proxy", random_proxy(chance, ports)),
        lambda: ("nginx.remove_proxy", {"hostname": chance.choice(NAMES)}),
        lambda: ("nginx.add_server", {"backend": an_upstream(), "server": server()}),
        lambda: ("nginx.remove_server", {"backend": an_upstream(), "server": server()}),
        lambda: ("nginx.add_server_to_role", {"role_id": 7, "server": server()}),
        lambda: ("nginx.remove_server_from_all_backends", {"server": server()}),
        lambda: ("nginx.enable_ssl", {"hostname": chance.choice(NAMES), "ssl_port": ports[1]}),
        lambda: ("nginx.disable_ssl", {"hostname": chance.choice(NAMES)}),
        lambda: ("nginx.recreate_proxying", {"proxy_list": [random_proxy(chance, ports)]}),
    ]
    weights = [6, 2, 2, 1, 1, 1, 2, 2, 1]
    nginx.make_many(lambda: chance.choices(calls, weights)[0]())


@pytest.fixture
def apache(tmp_path: Path) -> Iterator[Trial]:
    server = PrivateApache(tmp_path)
    agent = RunningAgent(tmp_path, server.settings)
    make_certificate(agent.etc / "environment" / "certificates", "1", "a.example.com")
    with agent:
        trial = Trial(agent, tmp_path, server.directory, agent.etc / "private.d")
        yield trial
        trial.api.close()
    server.stop()


@pytest.mark.apache2
def test_a_dry_run_of_virtual_hosts_shows_what_is_done(apache: Trial, chance: random.Random) -> None:
    ports = [free_port(), free_port()]
    names = [name for name in NAMES if not name.startswith("*")]
    apache.api.apache.start_service()

    def host() -> dict[str, Any]:
        name = chance.choice(names)
        template = (
            f"<VirtualHost *:80>\n  ServerName {name.encode('idna').decode()}\n"
            f"  DocumentRoot {apache.directory}/site\n  SetEnv TRIAL {chance.randrange(3)}\n</VirtualHost>\n"
        )
        tls = chance.random() < 0.4
        more = {"ssl": True, "ssl_certificate_id": 1} if tls else {"ssl": False}
        return {"hostname": name, "port": ports[tls], "template": template, **more}

    def signature() -> list[Any]:
        return [chance.choice(names), chance.choice(ports)]

    calls: list[Callable[[], tuple[str, dict[str, Any]]]] = [
        lambda: ("apache.create_vhost", host()),
        lambda: ("apache.update_vhost", {"signature": signature(), "hostname": chance.choice(names)}),
        lambda: ("apache.update_vhost", {"signature": signature(), "ssl": False}),
        lambda: ("apache.delete_vhosts", {"vhosts": [signature()]}),
        lambda: (chance.choice(["apache.enable_mod_ssl", "apache.disable_mod_ssl"]), {}),
    ]
    apache.make_many(lambda: chance.choices(calls, [5, 2, 1, 2, 1])[0]())
