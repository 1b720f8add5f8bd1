"""A real S3-compatible store (SeaweedFS) on free loopback ports, and a way to it that can be slow, deaf or torn."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from running_agent import free_port

KEY_ID, KEY = "planted-key-id-0123", "planted-secret-key-4567"
READER_ID, READER_KEY = "planted-reader-id-89", "planted-reader-key-0"


class PrivateS3:
    """SeaweedFS below a directory of its own; `endpoint_url` is where S3 is spoken."""

    def __init__(self) -> None:
        self.bucket = "backups"
        self.access = {"key_id": KEY_ID, "key": KEY}
        self.only_reading = {"key_id": READER_ID, "key": READER_KEY}
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "PrivateS3":
        for attempt in range(2):
            try:
                self._start()
                return self
            except AssertionError:
                self.stop()
                if attempt == 1:
                    raise
        return self

    def _start(self) -> None:
        # A short path: it holds Unix sockets.
        self._directory = Path(tempfile.mkdtemp(prefix="s3-", dir="/tmp"))
        config = self._directory / "s3.json"
        identities = [
            _identity("all", KEY_ID, KEY, ["Admin", "Read", "Write", "List", "Tagging"]),
            _identity("reader", READER_ID, READER_KEY, ["Read", "List"]),
        ]
        config.write_text(json.dumps({"identities": identities}))
        config.chmod(0o600)
        master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = (free_port() for _ in range(8))
        self.port, self.filer_port = s3, filer
        self.endpoint_url = f"http://127.0.0.1:{s3}"
        options = {
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "dir": self._directory,
            "volume.max": "0",
            "master.port": master,
            "master.port.grpc": master_grpc,
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": "256",
            "volume.port": volume,
            "volume.port.grpc": volume_grpc,
            "filer": "true",
            "filer.port": filer,
            "filer.port.grpc": filer_grpc,
            "filer.localSocket": self._directory / "filer.sock",
            "s3": "true",
            "s3.port": s3,
            "s3.port.grpc": s3_grpc,
            "s3.port.iceberg": "0",
            "s3.port.lance": "0",
            "s3.config": config,
            "s3.autoCreateBucket": "false",
            "s3.localSocket": self._directory / "s3.sock",
        }
        log = open(self._directory / "weed.log", "wb")  # noqa: SIM115
        with log:
            self._process = subprocess.Popen(
                [
                    Path(sys.executable).with_name("weed"),
                    "server",
                    *(f"-{name}={value}" for name, value in options.items()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                env={"PATH": "/usr/bin:/bin", "HOME": str(self._directory)},
            )
        self._wait_until_it_takes_objects()

    def _wait_until_it_takes_objects(self) -> None:
        assert self._process is not None and self._directory is not None
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                probe = f"http://127.0.0.1:{self.filer_port}/probe"
                with urllib.request.urlopen(urllib.request.Request(probe, b"x" * 9000, method="PUT"), timeout=5):
                    pass
                with urllib.request.urlopen(urllib.request.Request(probe, method="DELETE"), timeout=5):
                    pass
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    pass
                self.make_bucket(self.bucket)
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self._directory / "weed.log").read_text()[-3000:])

    def make_bucket(self, name: str) -> None:
        url = f"http://127.0.0.1:{self.filer_port}/buckets/{name}/"
        with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=5):
            pass

    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def __exit__(self, *exception: object) -> None:
        self.stop()


def _identity(name: str, key_id: str, key: str, actions: list[str]) -> dict[str, object]:
    return {"name": name, "credentials": [{"accessKey": key_id, "secretKey": key}], "actions": actions}


class Way:
    """A TCP relay to a port on loopback that does what bad networks do.

    :ivar refuses: connections are closed at once.
    :ivar deaf: bytes are taken and go nowhere.
    :ivar torn_after: each connection is reset after so many bytes from the client; None: never.
    :ivar tears_left: how many connections `torn_after` still tears; None: all.
    :ivar turns: once so many bytes came from clients, `refuses` or `deaf` is true, and with the first all that is open
        breaks off: at that instant, whoever else is at work; None: never.
    :ivar rate: bytes a second from the client on each connection; None: all there are.
    :ivar passed: bytes from clients so far.
    :ivar begun: how many uploads in parts clients have begun so far.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self.refuses = self.deaf = False
        self.torn_after: int | None = None
        self.tears_left: int | None = None
        self.torn = 0
        self.turns: tuple[int, str] | None = None
        self.rate: int | None = None
        self.passed = self.begun = 0
        self._counting = threading.Lock()
        self._ended = False
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.endpoint_url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuses:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._to), 5)
            except OSError:
                client.close()
                continue
            self._open |= {client, server}
            threading.Thread(target=self._relay, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._relay, args=(server, client, False), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, outward: bool) -> None:
        seen = 0
        try:
            while data := source.recv(65536):
                while self.deaf and not self._ended:
                    time.sleep(0.02)
                if self.refuses:
                    break
                if outward:
                    seen += len(data)
                    self.begun += data.startswith(b"POST ") and b"?uploads" in data.partition(b"\r\n")[0]
                    if self._breaks_off(len(data), seen):
                        break
                    if self.rate:
                        time.sleep(len(data) / self.rate)
                sink.sendall(data)
        except OSError:
            pass
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
            self._open.discard(one)

    def _breaks_off(self, came: int, seen: int) -> bool:
        """Count what came from a client; tells whether its connection ends with that."""
        with self._counting:
            self.passed += came
            if self.turns is not None and self.passed >= self.turns[0]:
                setattr(self, self.turns[1], True)
                self.turns = None
                if self.refuses:
                    self.cut()
                    return True
            if self.torn_after is None or seen <= self.torn_after or self.tears_left == 0:
                return False
            self.torn += 1
            if self.tears_left is not None:
                self.tears_left -= 1
            return True

    def cut(self) -> None:
        """Break every connection that is open."""
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._ended = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def __enter__(self) -> "Way":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
