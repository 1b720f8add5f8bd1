"""A MongoDB server of its own for tests: a real mongod where one is on PATH, else FerretDB, which speaks its protocol.

FerretDB 1.24 knows no roles and no localhost exception: it is started with a first user in place of that. What stands
between it and a test, `rewritten`, makes of its answers those of a server in another state, byte by byte.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from running_agent import free_port

FIRST_USER, FIRST_PASSWORD = "first", "planted-first-password"


def ferretdb() -> Path | None:
    """Give the program that tests/install-ferretdb.sh has built."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scalarizr-tests"
    program = cache / "ferretdb-1.24.0"
    return program if os.access(program, os.X_OK) else None


HAS_MONGOD = shutil.which("mongod") is not None
needs_mongodb = pytest.mark.skipif(
    not HAS_MONGOD and ferretdb() is None,
    reason="LEFT OUT: there is no mongod and no FerretDB; tests/install-ferretdb.sh builds it where there is Go",
)
needs_mongod = pytest.mark.skipif(not HAS_MONGOD, reason="LEFT OUT: there is no mongod, and FerretDB cannot do this")


class PrivateMongoDB:
    """A server below `directory`, on a free port of 127.0.0.1, with access control.

    :param first_user: whether it has a first user; FerretDB always has.
    :param replica_set: the name of its replica set, not initiated.
    """

    def __init__(self, directory: Path, *, first_user: bool = True, replica_set: str = "") -> None:
        self.directory = directory
        self.first_user = first_user
        self.replica_set = replica_set
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/"

    @property
    def uri_of_first_user(self) -> str:
        return f"mongodb://{FIRST_USER}:{FIRST_PASSWORD}@127.0.0.1:{self.port}/"

    def start(self) -> "PrivateMongoDB":
        self.directory.mkdir(parents=True, exist_ok=True)
        with open(self.directory / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                self._command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.directory
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.directory / "server.log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                break
            time.sleep(0.05)
        else:
            raise AssertionError("the MongoDB server does not listen")
        if HAS_MONGOD and self.first_user and not self.replica_set:
            with self.client() as client:
                roles = [{"role": "root", "db": "admin"}]
                client.admin.command("createUser", FIRST_USER, pwd=FIRST_PASSWORD, roles=roles)
        return self

    def _command(self) -> list[str]:
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        if HAS_MONGOD:
            command = ["mongod", "--dbpath", str(data), "--bind_ip", "127.0.0.1", "--port", str(self.port)]
            if not self.replica_set:
                return [*command, "--auth", "--nounixsocket"]
            key = self.directory / "key"
            key.write_text("cGxhbnRlZC1rZXk=" * 4)
            key.chmod(0o600)
            return [*command, "--nounixsocket", "--replSet", self.replica_set, "--keyFile", str(key)]
        program = ferretdb()
        assert program is not None
        command = [str(program), "--handler=sqlite", f"--sqlite-url=file:{data}/", f"--state-dir={data}"]
        command += [
            f"--listen-addr=127.0.0.1:{self.port}",
            "--debug-addr=-",
            "--telemetry=disable",
            "--log-level=error",
        ]
        command += ["--test-enable-new-auth", "--setup-database=admin"]
        command += [f"--setup-username={FIRST_USER}", f"--setup-password={FIRST_PASSWORD}"]
        return [*command, f"--repl-set-name={self.replica_set}"] if self.replica_set else command

    def client(self, user: str = "", password: str = "", **options: Any) -> Any:
        from pymongo import MongoClient

        login = {"username": user, "password": password, "authSource": "admin"} if user else {}
        return MongoClient(
            "127.0.0.1", self.port, directConnection=True, serverSelectionTimeoutMS=60_000, **login, **options
        )

    def takes(self, user: str, password: str, **options: Any) -> bool:
        """Whether a login works."""
        from pymongo.errors import OperationFailure

        try:
            with self.client(user, password, **options) as client:
                client.admin.command("ping")
        except OperationFailure as refusal:
            assert refusal.code == 18, refusal
            return False
        return True

    def mechanisms(self, user: str, password: str) -> list[str]:
        """What a user may log in with."""
        with self.client(user, password) as client:
            return list(client.admin.command("usersInfo", user)["users"][0]["mechanisms"])

    def stop(self) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self.process = None


@contextlib.contextmanager
def rewritten(port: int, replaced: Mapping[bytes, bytes], lost: bytes | None = None) -> Iterator[int]:
    """A port before a server's, whose answers come with bytes replaced by as many others; gives it.

    :param lost: words of a request that reaches the server, and whose answer is lost with the connection.
    """
    assert all(len(old) == len(new) for old, new in replaced.items())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        open_sockets: list[socket.socket] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    near, _ = listening.accept()
                    far = socket.create_connection(("127.0.0.1", port), 10)
                    open_sockets.extend((near, far))
                    cut = threading.Event()
                    threading.Thread(target=carry, args=(near, far, {}, cut), daemon=True).start()
                    threading.Thread(target=carry, args=(far, near, replaced, cut), daemon=True).start()

        def carry(
            source: socket.socket, sink: socket.socket, changes: Mapping[bytes, bytes], cut: threading.Event
        ) -> None:
            with contextlib.suppress(OSError):
                while header := source.recv(4, socket.MSG_WAITALL):
                    rest = source.recv(int.from_bytes(header, "little") - 4, socket.MSG_WAITALL)
                    if changes is replaced and cut.is_set():
                        break
                    if changes is not replaced and lost is not None and lost in rest:
                        cut.set()
                    for old, new in changes.items():
                        rest = rest.replace(old, new)
                    sink.sendall(header + rest)
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for one in open_sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
