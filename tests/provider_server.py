"""What the test servers of cloud providers share: HTTP that speaks JSON, faults on request, and devices behind volumes.

They keep state and answer as the providers' API documentation says. That proves how the agent uses the SDKs; of the
providers themselves it proves nothing.
"""

import contextlib
import json
import os
import shutil
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

GIGABYTE = 1 << 30


@dataclass
class Request:
    """One request: its query and a form in `query`, a JSON body in `body`."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any = None
    url: str = ""


class Answer(Exception):
    """An answer, wherever it is known: its status, JSON or text, and headers."""

    def __init__(self, status: int, body: Any = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.headers = headers or {}


@dataclass
class Fault:
    """What goes wrong with the next calls of a name: an answer, or anything that the server makes of `how`."""

    call: str
    how: Any
    times: int = 1


class ProviderServer(ABC):
    """A server on the loopback, with a lock around every answer."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.problems: list[str] = []
        # Called with a call's name before it is answered: for a test that waits for an instant.
        self.watch: Callable[[str], None] = lambda _call: None
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                owner._handle(self)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_any  # noqa: N815

            def log_message(self, *_arguments: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @abstractmethod
    def answer(self, request: Request) -> Any:
        """Give what is answered with 200, or raise `Answer`."""

    def fail(self, call: str, how: Any, times: int = 1) -> None:
        with self.lock:
            self.faults.append(Fault(call, how, times))

    def fault(self, call: str) -> Any:
        """Take the fault that a call is to have; an `Answer` is given at once."""
        self.watch(call)
        for fault in self.faults:
            if fault.call == call and fault.times:
                fault.times -= 1
                if isinstance(fault.how, Answer):
                    raise fault.how
                return fault.how
        return None

    def calls(self, method: str, part: str) -> list[Request]:
        with self.lock:
            return [request for request in self.requests if request.method == method and part in request.url]

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        parts = urlsplit(handler.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        body = None
        if "json" in (handler.headers.get("Content-Type") or "") and raw:
            body = json.loads(raw)
        elif raw:
            query |= dict(parse_qsl(raw.decode(), keep_blank_values=True))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        request = Request(handler.command, parts.path, query, headers, body, handler.path)
        try:
            with self.lock:
                self.requests.append(request)
                answer = Answer(200, self.answer(request))
        except Answer as given:
            answer = given
        except Exception as failure:  # the test has to see it, whatever the agent makes of it
            self.problems.append(f"{request.method} {request.url}: {failure!r}")
            answer = Answer(500, {"error": "the test server failed"})
        self._send(handler, answer)

    def _send(self, handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        data = b"" if answer.body is None else text.encode()
        kind = "text/plain" if isinstance(answer.body, str) else "application/json"
        with contextlib.suppress(ConnectionError):  # who asked was killed
            handler.send_response(answer.status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **answer.headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
            if handler.command != "HEAD":
                handler.wfile.write(data)


@dataclass
class Devices:
    """What stands for the devices of volumes: sparse files, loop devices over the attached ones, links to those."""

    directory: Path
    by_id: Path = field(init=False)
    loops: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.by_id = self.directory / "by-id"
        self.by_id.mkdir(parents=True)

    def file(self, name: str) -> Path:
        return self.directory / f"{name}.image"

    def make(self, name: str, gigabytes: int, source: str | None = None) -> None:
        if source is not None:
            subprocess.run(["cp", "--sparse=always", self.file(source), self.file(name)], check=True)
        with open(self.file(name), "ab") as file:
            os.truncate(file.fileno(), gigabytes * GIGABYTE)

    def attach(self, name: str, *links: str) -> str:
        shown = subprocess.run(["losetup", "--find", "--show", self.file(name)], check=True, stdout=subprocess.PIPE)
        loop = shown.stdout.decode().strip()
        self.loops[name] = loop
        for link in links:
            (self.by_id / link).symlink_to(loop)
        return loop

    def detach(self, name: str) -> None:
        loop = self.loops.pop(name, None)
        if loop is not None:
            for link in self.by_id.iterdir():
                if os.readlink(link) == loop:
                    link.unlink()
            subprocess.run(["losetup", "--detach", loop], check=True)

    def grow(self, name: str, gigabytes: int) -> None:
        os.truncate(self.file(name), gigabytes * GIGABYTE)
        if name in self.loops:
            subprocess.run(["losetup", "--set-capacity", self.loops[name]], check=True)

    def delete(self, name: str) -> None:
        self.file(name).unlink(missing_ok=True)

    def unmount(self) -> None:
        """Unmount what a test that failed has left."""
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            source, place, *_rest = line.split(" ")
            if source in self.loops.values():
                subprocess.run(["umount", "--lazy", place], check=False)

    def close(self) -> None:
        self.unmount()
        for name in list(self.loops):
            self.detach(name)
        shutil.rmtree(self.directory)


class CloudServer(ProviderServer):
    """A cloud: what the tests that all clouds share do to one.

    :param devices: what stands for its volumes.
    :param section: of the agent's settings.
    :ivar access: credentials that it accepts.
    :ivar settings: of an agent that is one of its servers, lines of `[storage]` first.
    :ivar volumes: by their ids.
    :ivar snapshots: by their ids.
    :ivar system: the id of the system's volume, where that is among them.
    """

    access: dict[str, str]
    system = ""

    def __init__(self, devices: Devices, section: str) -> None:
        self.devices = devices
        self.volumes: dict[str, Any] = {}
        self.snapshots: dict[str, dict[str, Any]] = {}
        super().__init__()
        # Lines of `[storage]` first.
        self.settings = (
            f'by_id_dir = "{devices.by_id}"\nfreeze_limit = "30 s"\n[{section}]\nmetadata_url = "{self.url}"\n'
        )

    def volumes_made(self) -> list[str]:
        """Give the ids of all volumes but the system's."""
        with self.lock:
            return [identity for identity in self.volumes if identity != self.system]

    def take_away(self, identity: str) -> None:
        """Have a volume gone."""
        del self.volumes[identity]

    @abstractmethod
    def attach_elsewhere(self, identity: str) -> str:
        """Have a volume attached to another server; gives how that is named."""

    @abstractmethod
    def let_go(self, identity: str) -> None:
        """Have a volume attached to nothing."""

    def reset(self) -> None:
        """Have nothing, and nothing going wrong."""
        for name in self.volumes_made():
            self.devices.detach(name)
            self.take_away(name)
        self.snapshots.clear()
        self.faults.clear()
        self.problems.clear()
        self.watch = lambda _call: None


@contextlib.contextmanager
def devices_below(directory: Path) -> Iterator[Devices]:
    made = Devices(directory)
    try:
        yield made
    finally:
        made.close()
