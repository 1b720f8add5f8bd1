"""A real agent in a directory of its own, for tests: started, called, stopped or killed like any other."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from scalarizr.client import Client
from scalarizr.envelope.key import make_key_text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
        deadline = time.monotonic() + 20
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
        status = self.process.wait(45)
        self.process.stdout.close()
        return status

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


def environment_without_colour() -> dict[str, str]:
    return {**os.environ, "NO_COLOR": "1"}
