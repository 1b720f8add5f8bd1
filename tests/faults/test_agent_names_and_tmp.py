"""A server on which no name is resolved, or whose /tmp takes nothing: answered in words, within limits."""

import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from private_servers import PrivateNginx
from running_agent import RunningAgent, free_port
from scalarizr.client import AgentError

pytestmark = [pytest.mark.root, pytest.mark.nginx]
SLOW_METHODS = str(Path(__file__).parent.parent / "slow_methods.py")


def inside(preparation: str, *arguments: str) -> list[str]:
    """Give the command of an agent that has a mount namespace of its own, prepared by some shell."""
    return [
        "unshare",
        "--mount",
        "sh",
        "-ec",
        f'{preparation}; exec "$@"',
        "sh",
        *arguments,
        sys.executable,
        SLOW_METHODS,
    ]


class BlackHole:
    """A name server that hears every question and answers none, until it is told to.

    :param directory: for the file that names it, to be mounted in place of /etc/resolv.conf.
    :param patience: seconds that is waited for it.
    """

    def __init__(self, directory: Path, patience: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.53.53.53", 53))
        self._socket.settimeout(60)
        names = directory / "resolv.conf"
        names.write_text(f"nameserver 127.53.53.53\noptions timeout:{patience} attempts:1\n")
        self.preparation = f"mount --bind {names} /etc/resolv.conf"

    def question(self) -> tuple[bytes, Any]:
        return self._socket.recvfrom(2000)

    def deny(self, question: bytes, asker: Any) -> None:
        """Answer that there is no such name (RFC 1035, section 4.1.1)."""
        self._socket.sendto(question[:2] + b"\x81\x83" + question[4:12] + question[12:], asker)

    def deny_until(self, done: Callable[[], bool]) -> None:
        """Deny every name until something is so."""
        self._socket.settimeout(0.2)
        while not done():
            with suppress(TimeoutError):
                self.deny(*self.question())


@pytest.fixture
def make_hole(tmp_path: Path) -> Iterator[Callable[[int], BlackHole]]:
    with ExitStack() as ending:

        def make(patience: int) -> BlackHole:
            hole = BlackHole(tmp_path, patience)
            ending.callback(hole._socket.close)
            return hole

        yield make


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[PrivateNginx]:
    made = PrivateNginx(tmp_path)
    yield made
    made.stop()


def test_while_a_backends_name_is_looked_up_nobody_else_waits(
    tmp_path: Path, nginx: PrivateNginx, make_hole: Callable[[int], BlackHole]
) -> None:
    hole = make_hole(30)
    agent = RunningAgent(tmp_path, nginx.settings, command=inside(hole.preparation))
    with agent, agent.client(timeout=120) as client, agent.client(timeout=60) as other, ThreadPoolExecutor(1) as aside:
        proxy: dict[str, Any] = {"port": free_port(), "hostname": "www.example.com"}
        client.call("nginx.make_proxy", **proxy, backends=[{"host": "10.0.0.1"}])
        files = nginx.files()
        call = aside.submit(client.call, "nginx.make_proxy", **proxy, backends=[{"host": "app.example.com"}])
        asked = hole.question()
        assert len(other.call("system.load_average")) == 3
        assert other.call("trial.work", name="a")["name"] == "a"
        hole.deny(*asked)
        hole.deny_until(call.done)
        with pytest.raises(AgentError, match=r"app\.example\.com"):
            call.result(120)
        assert nginx.files() == files


def test_where_no_name_is_resolved_backends_by_name_are_refused_in_words(
    tmp_path: Path, nginx: PrivateNginx, make_hole: Callable[[int], BlackHole]
) -> None:
    agent = RunningAgent(tmp_path, nginx.settings, command=inside(make_hole(1).preparation))
    with agent, agent.client(timeout=120) as client:
        proxy: dict[str, Any] = {"port": free_port(), "hostname": "www.example.com"}
        client.call("nginx.make_proxy", **proxy, backends=[{"host": "10.0.0.1"}])
        files = nginx.files()
        with pytest.raises(AgentError, match=r"app\.example\.com") as caught:
            client.call("nginx.make_proxy", **proxy, backends=[{"host": "app.example.com"}])
        assert caught.value.code != -32603 and nginx.files() == files


def test_an_environment_whose_name_is_not_resolved_is_an_error_in_words(
    tmp_path: Path, nginx: PrivateNginx, make_hole: Callable[[int], BlackHole]
) -> None:
    settings = (
        nginx.settings + '[environment]\nsource = "queryenv"\nurl = "http://queryenv.example.com/"\n'
        'insecure = true\nserver_id = "11111111-1111-1111-1111-111111111111"\n'
    )
    agent = RunningAgent(tmp_path, settings, command=inside(make_hole(1).preparation))
    with agent, agent.client(timeout=120) as client:
        proxy: dict[str, Any] = {"port": free_port(), "hostname": "www.example.com"}
        with pytest.raises(AgentError, match=r"queryenv\.example\.com") as caught:
            client.call("nginx.make_proxy", **proxy, backends=[{"farm_role_id": "1"}])
        assert caught.value.code != -32603
        assert len(client.call("system.load_average")) == 3


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A directory that is not below /tmp."""
    made = Path(tempfile.mkdtemp(prefix="scalarizr-test-", dir="/var/tmp"))
    yield made
    shutil.rmtree(made)


def test_an_agent_needs_no_room_in_tmp(elsewhere: Path) -> None:
    full = "mount -t tmpfs -o size=4k,nr_inodes=2 tmpfs /tmp; echo x > /tmp/filler; ! touch /tmp/more 2>&-"
    nginx = PrivateNginx(elsewhere)
    agent = RunningAgent(elsewhere, nginx.settings, command=inside(full))
    try:
        with agent, agent.client(timeout=120) as client:
            seen = subprocess.run(
                ["nsenter", f"--mount=/proc/{agent.pid()}/ns/mnt", "touch", "/tmp/more"],
                capture_output=True,
                timeout=60,
            )
            assert seen.returncode != 0 and b"No space left" in seen.stderr
            client.call(
                "nginx.make_proxy", port=free_port(), hostname="www.example.com", backends=[{"host": "10.0.0.1"}]
            )
            assert client.call("trial.work", name="a")["name"] == "a"
            script = {"name": "here", "body": "#!/bin/sh\necho from a script\n", "asynchronous": 0}
            (result,) = client.call("system.execute_scripts", scripts=[script])
            assert result["return_code"] == 0, result
            assert len(client.call("system.statvfs", mpoints=["/"])) == 1
    finally:
        nginx.stop()
