"""Starting what is measured, and reading what the kernel says of it."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from scalarizr.client import AgentError, Client
from scalarizr.envelope.key import ServerKey, make_key_text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int) -> None:
    for _ in range(2000):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.005)
        else:
            return
    raise AssertionError(f"nothing listens on {port}")


class Installation:
    """A configuration directory of its own.

    :param settings: TOML that is added.
    """

    def __init__(self, directory: Path, settings: str = "") -> None:
        self.etc = directory
        self.key_file = directory / "private.d" / "keys" / "default"
        self.key_file.parent.mkdir(parents=True)
        self.key_file.write_bytes(make_key_text())
        self.key_file.chmod(0o600)
        self.port = free_port()
        (directory / "scalarizr.toml").write_text(
            f'[api]\nlisten = "127.0.0.1:{self.port}"\n[paths]\nstate = "state"\nlogs = "logs"\n{settings}'
        )

    @property
    def key(self) -> ServerKey:
        return ServerKey.from_file(self.key_file)

    def start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "scalarizr", "serve", "--etc", str(self.etc)]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def installation(settings: str = "") -> Iterator[Installation]:
    with tempfile.TemporaryDirectory() as directory:
        yield Installation(Path(directory), settings)


@contextlib.contextmanager
def running(process: "subprocess.Popen[bytes]", port: int) -> Iterator["subprocess.Popen[bytes]"]:
    try:
        wait_for_port(port)
        yield process
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def compiled() -> Iterator[None]:
    """Let what is started keep its byte code, as installers write it; a checkout may be told to keep none.

    It is written once, into a directory of its own, by an agent that is asked for all that is measured.
    """
    before = {name: os.environ.pop(name, None) for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["PYTHONPYCACHEPREFIX"] = cache
        try:
            with (
                installation() as place,
                running(place.start(), place.port),
                Client(f"http://127.0.0.1:{place.port}", key_file=place.key_file) as client,
            ):
                client.call("rpc.discover")
                with contextlib.suppress(AgentError):
                    client.call("system.nothing")
            yield
        finally:
            del os.environ["PYTHONPYCACHEPREFIX"]
            os.environ.update({name: value for name, value in before.items() if value is not None})


def proportional_size(pid: int) -> float:
    """Resident size with shared pages divided among their users (PSS), in MB of 10⁶ bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError("no Pss in smaps_rollup")


def wake_ups(pid: int) -> int:
    """How often the threads of a process were put onto a processor."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if "ctxt_switches" in line:
                total += int(line.split()[1])
    return total


def cpu_seconds(pid: int) -> float:
    columns = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(columns[11]) + int(columns[12])) / os.sysconf("SC_CLK_TCK")
