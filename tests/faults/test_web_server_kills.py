"""Changes of a real nginx and a real Apache, killed or cut off from power at any instant.

Right after the kill the server's own test passes the live files, and they are the old set or the new one; so they are
after the next start, which leaves nothing behind and has the server serve what its files say.
"""

import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from power_cut import Disk, record
from private_servers import PrivateApache, PrivateNginx, fetch, make_certificate
from running_agent import RunningAgent, free_port

pytestmark = pytest.mark.root
PROGRAM = Path(__file__).parent / "reconfiguring_program.py"
RUN_TIME = (".log", ".pid", ".sock")


class Server:
    """A real server, and two states of its configuration that one call leads between.

    :param kind: `nginx` or `apache`.
    """

    def __init__(self, directory: Path, kind: str) -> None:
        for parent in (directory, *directory.parents[:3]):
            if parent.stat().st_uid == os.geteuid():
                parent.chmod(parent.stat().st_mode | 0o011)
        self.root = directory / "disk"
        self.root.mkdir()
        self.kept = directory / "kept"
        self.program: Any = PrivateNginx(self.root) if kind == "nginx" else PrivateApache(self.root)
        self.kind = kind
        self.agent = RunningAgent(self.root, self.program.settings)
        self.port, self.tls = free_port(), free_port()
        certificates = self.agent.etc / "environment" / "certificates"
        make_certificate(certificates, "1", "www.example.com")
        make_certificate(certificates, "2", "www.example.com")
        start: list[Any] = [f"{kind}.start_service", {}]
        if kind == "nginx":
            self.run([start, self._proxy("old", 1)])
        else:
            self.run([start, self._hosts("old", 1)])
        # The same id becomes another certificate: its files change, too, and have to change in one instant.
        for suffix in ("crt", "key"):
            shutil.copy(certificates / f"2.{suffix}", certificates / f"1.{suffix}")
        self.change = [self._proxy("new", 1)] if kind == "nginx" else [self._hosts("new", 1)]
        subprocess.run(["cp", "-a", self.root, self.kept], check=True)
        self.old = self.visible()
        self.steps = int(self.run(self.change).splitlines()[-1])
        self.new = self.visible()
        assert self.old != self.new and self.serves() == "new"
        self.put_back()
        self.run([[f"{kind}.reload_service", {}]])
        assert self.serves() == "old"

    def _proxy(self, answer: str, certificate: int) -> list[Any]:
        proxies = [
            {
                "hostname": "www.example.com",
                "port": self.port,
                "ssl": True,
                "ssl_port": self.tls,
                "ssl_certificate_id": certificate,
                "backends": [{"host": "10.0.0.1"}],
                "templates": [{"content": f"return 200 {answer};", "location": "= /which"}],
            },
            {"hostname": f"{answer}.example.com", "port": self.port, "backends": [{"host": "10.0.0.2"}]},
        ]
        return ["nginx.recreate_proxying", {"proxy_list": proxies}]

    def _hosts(self, answer: str, certificate: int) -> list[Any]:
        def template(name: str) -> str:
            return (
                f"<VirtualHost *:1>\nServerName {name}\nDocumentRoot {self.root}/sites\n"
                f"Redirect 302 /which http://{answer}/\n</VirtualHost>\n"
            )

        hosts = [
            {"hostname": name, "port": port, "template": template(name), "ssl": tls, "ssl_certificate_id": certificate}
            for name, port, tls in (
                ("www.example.com", self.port, False),
                ("www.example.com", self.tls, True),
                (f"{answer}.example.com", self.port, False),
            )
        ]
        for host in hosts:
            if not host["ssl"]:
                del host["ssl_certificate_id"]
        return ["apache.reconfigure", {"vhosts": hosts}]

    def run(self, calls: list[Any], limit: int = 0) -> str:
        finished = subprocess.run(self.command(calls, limit), capture_output=True, text=True)
        assert finished.returncode in (0, -signal.SIGKILL), finished.stderr
        return finished.stdout

    def command(self, calls: list[Any], limit: int = 0) -> list[str]:
        return [sys.executable, str(PROGRAM), str(self.agent.etc), str(limit), json.dumps(calls)]

    def recover(self, limit: int = 0) -> int:
        """Do what the next start of an agent does first; gives its steps."""
        printed = self.run([["recover", {}]], limit).splitlines()[1:]
        return int(printed[0]) if printed else 0

    def visible(self) -> dict[str, bytes]:
        """What the server finds under its names; an empty file is as good as none, and hidden names match no `*`."""
        found = {}
        for place in (self.program.directory, self.agent.etc / "private.d"):
            for directory, _directories, names in os.walk(place):
                for name in names:
                    path = Path(directory) / name
                    if not self.is_ignored(str(path)) and "/." not in str(path.relative_to(place.parent)):
                        with contextlib.suppress(FileNotFoundError):
                            found[str(path)] = path.read_bytes()
        return {path: content for path, content in found.items() if content}

    def left_over(self) -> list[str]:
        places = (self.program.directory, self.agent.etc / "private.d", self.agent.state / "changes" / "pending")
        names = [str(path) for place in places for path in place.rglob("*") if path.name.startswith(".")]
        pending = self.agent.state / "changes" / "pending"
        return names + ([str(path) for path in pending.iterdir()] if pending.exists() else [])

    def is_ignored(self, path: str) -> bool:
        """Tell whether a path is none of the configuration's: what a server writes, and where plans are tried."""
        names = Path(path).relative_to(self.root).parts
        return path.endswith(RUN_TIME) or names[0] in ("logs", "apache-run") or "tmp" in names or "check" in names

    def serves(self) -> str:
        matched = re.search(r"^(old|new)$|http://(old|new)/", fetch(self.port, "www.example.com", "/which")[1])
        assert matched is not None
        return matched[1] or matched[2]

    def expect_old_or_new(self, when: str) -> str:
        seen = self.visible()
        paths = {os.path.relpath(path, self.root): path for path in {*seen, *self.old, *self.new}}
        mixed = {name: self._which(path, seen.get(path)) for name, path in sorted(paths.items())}
        if seen not in (self.old, self.new):  # an assert would print the files
            pytest.fail(f"{when}: neither old nor new: { {name: which for name, which in mixed.items() if which} }")
        assert self.program.is_valid(), f"{when}: the server refuses its files"
        return "old" if seen == self.old else "new"

    def _which(self, path: str, content: bytes | None) -> str:
        old, new = self.old.get(path), self.new.get(path)
        return "" if old == new == content else "old" if content == old else "new" if content == new else "other"

    def put_back(self) -> None:
        """Make the disk what it was before the change, under a server that keeps running."""
        shutil.rmtree(self.agent.state)
        for name in ("etc", self.program.directory.name):
            for entry in (self.root / name).rglob("*"):
                if entry.is_symlink() or (entry.is_file() and not self.is_ignored(str(entry))):
                    entry.unlink()
                elif entry.is_dir() and entry.name.startswith("."):
                    shutil.rmtree(entry)
        skipped = [f"--exclude=*{suffix}" for suffix in RUN_TIME]
        copy = ["tar", "-C", str(self.kept), *skipped, "-cf", "-", "etc", "state", self.program.directory.name]
        packed = subprocess.run(copy, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-C", str(self.root), "-xpf", "-"], check=True, input=packed)
        assert self.visible() == self.old

    def stop(self) -> None:
        self.program.stop()


@pytest.fixture(params=["nginx", "apache"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    if shutil.which({"nginx": "nginx", "apache": "apache2"}[request.param]) is None:
        pytest.skip(f"LEFT OUT: there is no {request.param}")
    made = Server(tmp_path, request.param)
    yield made
    made.stop()


def kill_many_times(server: Server, seed: int, times: int) -> None:
    chance = random.Random(seed)
    outcomes: set[str] = set()
    # Until one came in time, too, whatever the dice say.
    for number in itertools.takewhile(lambda number: number < times or "old" not in outcomes, itertools.count()):
        when = f"seed {seed}, kill {number} of {server.kind}"
        if chance.random() < 0.3:
            child = subprocess.Popen(server.command(server.change), stdout=subprocess.PIPE)
            assert child.stdout is not None and child.stdout.readline()
            time.sleep(chance.uniform(0, 0.3))
            child.kill()
            child.communicate()
        else:
            limit = chance.randint(1, server.steps)
            when += f" before step {limit} of {server.steps}"
            server.run(server.change, limit)
        server.expect_old_or_new(f"{when}: right after it")
        while chance.random() < 0.4:
            limit = chance.randint(1, 40)
            server.recover(limit)
            server.expect_old_or_new(f"{when}: the start after it was killed before step {limit}")
        server.recover()
        outcome = server.expect_old_or_new(f"{when}: after the next start")
        assert server.serves() == outcome, when
        assert server.left_over() == [], when
        outcomes.add(outcome)
        server.put_back()
        server.run([[f"{server.kind}.reload_service", {}]])


def test_killed_at_random_instants_the_live_set_is_valid_at_once_and_whole_after_the_next_start(
    server: Server, record_property: Any
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    kill_many_times(server, seed, 20)


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_killed_hundreds_of_times(server: Server) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    kill_many_times(server, seed, 400)


def cut_many_times(server: Server, tmp_path: Path, seed: int, times: int) -> None:
    chance = random.Random(seed)
    recorded = Disk(server.root, server.is_ignored)
    operations = record(server.command(server.change), tmp_path / "trace")
    concerned = []
    for operation in operations:
        if recorded.do(operation):
            concerned.append(operation)
    assert len(concerned) > 30 and server.expect_old_or_new("the recorded change") == "new"
    recorded.cut(random.Random(0))  # all that was done is sure, and leads to the same
    assert server.expect_old_or_new("the change as it was recorded") == "new"
    server.stop()
    server.put_back()
    outcomes: set[str] = set()
    moments = [*range(len(concerned) + 1)]
    if times <= len(concerned):
        chance.shuffle(moments)
    for number, moment in enumerate(moments):
        if number >= times and "old" in outcomes:
            break
        when = f"seed {seed}, power cut before operation {moment} of {len(concerned)} of {server.kind}"
        disk = Disk(server.root, server.is_ignored)
        for operation in concerned[:moment]:
            disk.do(operation)
        disk.cut(chance)
        server.expect_old_or_new(f"{when}: as the disk is found")
        server.recover()
        outcomes.add(server.expect_old_or_new(f"{when}: after the next start"))
        assert server.left_over() == [], when
        server.put_back()
    assert "old" in outcomes


def test_a_power_cut_at_any_instant_leaves_a_valid_set_that_the_next_start_makes_whole(
    server: Server, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    cut_many_times(server, tmp_path, seed, 25)


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_a_power_cut_before_every_operation_several_times(server: Server, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    for turn in range(5):
        cut_many_times(server, tmp_path, seed + turn, 100_000)
        server.run([[f"{server.kind}.start_service", {}]])
