"""A real agent in a directory of its own, for tests: started, called, stopped or killed like any other."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from free_ports import free_port
from scalarizr.client import Client
from scalarizr.envelope.key import make_key_text
from scalarizr.host.processes import wait_until

__all__ = ["RunningAgent", "free_port"]


class RunningAgent:
    """An agent below `directory`.

    :param settings: TOML that is added to the settings; a section of it may not be `[paths]`.
    :param paths: further lines of `[paths]`.
    :param command: how it is started, in place of `scalarizr serve`.
    """

    def __init__(
        self, directory: Path, settings: str = "", paths: str = "", command: Sequence[str] | None = None
    ) -> None:
        self.etc = directory / "etc"
        self.state = directory / "state"
        self.logs = directory / "logs"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.key_file = self.etc / "private.d" / "keys" / "default"
        self.command = list(command or [sys.executable, "-m", "scalarizr", "serve"])
        self.process: subprocess.Popen[bytes] | None = None
        self.key_file.parent.mkdir(parents=True)
        self.key_file.write_bytes(make_key_text())
        self.key_file.chmod(0o600)
        self.write_settings(settings, paths)

    def write_settings(self, settings: str = "", paths: str = "") -> None:
        scripts = self.logs / "scripting"
        text = (
            f'[paths]\nstate = "{self.state}"\nlogs = "{self.logs}"\nscripting_logs = "{scripts}"\n{paths}\n{settings}'
        )
        (self.etc / "scalarizr.toml").write_text(text)

    def start(self, wait: bool = True, etc: str | None = None, directory: Path | None = None) -> "RunningAgent":
        """Start it; `etc` as it is written on the command line, in a working directory."""
        self.process = subprocess.Popen(
            [*self.command, "--etc", etc or str(self.etc), "--listen", f"127.0.0.1:{self.port}"],
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        if wait:
            self.wait_until_it_answers()
        return self

    def wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                assert self.process.stdout is not None
                raise AssertionError(f"the agent ended: {self.process.stdout.read().decode()}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    if b" 200 " in connection.recv(1000):
                        return
            except OSError:
                time.sleep(0.02)
        raise AssertionError("the agent does not answer")

    def client(self, **options: object) -> Client:
        return Client(self.url, key_file=self.key_file, **options)  # type: ignore[arg-type]

    def stop(self) -> int:
        """Stop it cleanly; gives its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self._reap()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self._reap()

    def _reap(self) -> int:
        assert self.process is not None and self.process.stdout is not None
        status = self.process.wait(90)
        self.process.stdout.close()
        return status

    def wait_for_log(self, words: str, seconds: float = 60) -> str:
        """Wait until words are in the log, whose lines are written behind the answers; gives the whole log."""
        assert wait_until(lambda: words in self.log_text(), seconds), f"{words!r} is not in the log: {self.log_text()}"
        return self.log_text()

    def has_read_everything(self) -> bool:
        """Tell whether it has taken every byte that its clients have sent so far (proc_pid_net(5), tcp)."""
        lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
        here = f"0100007F:{self.port:04X}"
        queues = [(line.split()[1:3], line.split()[4].split(":")) for line in lines if here in line.split()[1:3]]
        # Sent and not yet there, of its clients; there and not yet taken, of its own ends.
        return not any(int(out if ends[1] == here else come, 16) for ends, (out, come) in queues)

    def waiting_at(self, gate: str, count: int) -> None:
        """Wait until so many calls of `trial.hold` are at a gate."""
        assert wait_until(lambda: len(list(self.state.glob(f"{gate}.*"))) == count, 60)

    def open_gate(self, gate: str) -> None:
        """Let go on what waits at a gate."""
        (self.state / f"{gate}.open").touch()

    def log_text(self) -> str:
        return "".join(path.read_text() for path in sorted(self.logs.glob("scalarizr*.log*")))

    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def __enter__(self) -> "RunningAgent":
        return self.start()

    def __exit__(self, *exception: object) -> None:
        if self.process is not None:
            self.stop() if self.process.poll() is None else self._reap()
