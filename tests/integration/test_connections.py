"""Changes of a real nginx and a real Apache under load, and beside connections that last: none is dropped."""

import hashlib
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from itertools import count, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import pytest

from load_generator import Report, Target, body_of, load
from private_servers import PrivateApache, PrivateNginx, backend, fetch, make_certificate
from running_agent import RunningAgent, free_port
from scalarizr.client import AgentError, Client
from scalarizr.host import processes
from scalarizr.host.listening import listening_sockets, sockets_of
from streaming_backend import WebSocket, streaming_backend

pytestmark = pytest.mark.root

LOADED = "load.example.com"
MANY = pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(1200)])
# What a change takes at most, on a slow and busy machine; a reload that waits for a connection that lasts takes its
# limit, of minutes.
NORMAL = 30.0
LENGTH = 24 << 20
STEP = 1 << 20


class Setup(ABC):
    """An agent with a server of its own and a site that is loaded, over http and https."""

    def __init__(self, directory: Path, server: PrivateNginx | PrivateApache) -> None:
        self.directory = directory
        self.parts = ExitStack()
        self.parts.callback(server.stop)
        self.server = server
        self.agent = self.parts.enter_context(RunningAgent(directory, server.settings))
        make_certificate(self.agent.etc / "environment" / "certificates", "default", LOADED)
        self.api: Client = self.parts.enter_context(self.agent.client(timeout=120))
        self.port, self.tls, self.elsewhere = free_port(), free_port(), free_port()
        self.backends = [self.parts.enter_context(streaming_backend()) for _ in range(2)]

    def main_process(self) -> int:
        """Give the process that starts the workers."""
        pid = self.server.master() if isinstance(self.server, PrivateNginx) else self.server.parent()
        assert pid is not None
        return pid

    def targets(self) -> list[Target]:
        """Give pages that are at once there, and such as are long on their way."""

        def page(kind: str, size: int, *, tls: bool = False, **more: object) -> Target:
            port = self.tls if tls else self.port
            return Target(port=port, host=LOADED, path=f"/{kind}/{size}", size=size, tls=tls, **more)  # type: ignore[arg-type]

        return [
            page("bytes", 300, threads=2),
            page("bytes", 300, keep=True, threads=2),
            page("bytes", 301, keep=True, threads=2, thinking_pause=0.02),
            page("slow", 60_000, threads=2),
            page("slow", 60_001, keep=True, threads=2, reading_pause=0.01),
            page("bytes", 302, tls=True),
            page("bytes", 303, tls=True, keep=True, threads=2),
            page("slow", 60_002, tls=True, keep=True, reading_pause=0.01),
        ]

    def transfer(self, path: str, *, upload: bool = False) -> "Transfer":
        return self.parts.enter_context(Transfer(self.port, path, upload=upload))

    def newest(self) -> str:
        return str(self.api.change.list(limit=1)[0]["id"])

    @abstractmethod
    def changes(self) -> Iterator[str]:
        """Make one change after another; gives what each was."""


class NginxSetup(Setup):
    def __init__(self, directory: Path) -> None:
        super().__init__(directory, PrivateNginx(directory))
        self.api.nginx.start_service()
        self.api.nginx.make_proxy(**self.loaded())

    def loaded(self, note: str = "first", **more: object) -> dict[str, object]:
        """Give the loaded proxy: its answers and what is sent to it are kept back, and below /at-once they are not."""
        hosts = [{"host": f"127.0.0.1:{self.backends[0]}", "location": where} for where in ("/", "/at-once")]
        at_once = "proxy_buffering off;\nproxy_request_buffering off;\nclient_max_body_size 64m;"
        templates = [
            {"location": "/", "content": f"client_max_body_size 64m;\nadd_header X-Note {note};"},
            {"location": "/at-once", "content": at_once},
        ]
        site = {"hostname": LOADED, "port": self.port, "ssl": True, "ssl_port": self.tls, "templates": templates}
        return {**site, "backends": hosts, **more}

    def other(self, name: str, port: int) -> dict[str, object]:
        return {"hostname": name, "port": port, "backends": [{"host": "10.0.0.1"}]}

    def changes(self) -> Iterator[str]:
        api, base = self.api.nginx, hashlib.sha1(LOADED.encode()).hexdigest()
        first, second = (f"127.0.0.1:{port}" for port in self.backends)
        for number in count():
            name = f"other-{number}.example.com"
            api.make_proxy(**self.other(name, self.port))
            yield "make_proxy of another name"
            api.add_server(backend=base, server=second)
            yield "add_server"
            api.enable_ssl(hostname=name, ssl_port=self.tls)
            yield "enable_ssl"
            api.make_proxy(**self.loaded(f"again-{number}", backend_least_conn=True))
            yield "make_proxy of the loaded name"
            api.add_server(backend=base, server={"host": second, "weight": 2})
            yield "add_server"
            api.remove_server(backend=base, server=first)
            yield "remove_server"
            api.make_proxy(**self.loaded())
            yield "make_proxy of the loaded name"
            self.api.change.revert(id=self.newest())
            yield "change.revert"
            api.disable_ssl(hostname=name)
            yield "disable_ssl"
            elsewhere = self.other("elsewhere.example.com", self.elsewhere)
            api.recreate_proxying(proxy_list=[self.loaded(f"recreated-{number}"), elsewhere])
            yield "recreate_proxying"
            api.remove_proxy(hostname="elsewhere.example.com")
            yield "remove_proxy"

    def refused(self, what: dict[str, object]) -> str:
        return refusal(self.api.nginx.make_proxy, **what)


class ApacheSetup(Setup):
    def __init__(self, directory: Path, mpm: str = "event") -> None:
        server = PrivateApache(directory)
        modules = server.directory / "mods-enabled"
        for link in modules.glob("mpm_*"):
            link.unlink()
        for name in (f"mpm_{mpm}.load", f"mpm_{mpm}.conf", "proxy.load", "proxy_http.load", "cgid.load", "cgid.conf"):
            (modules / name).symlink_to(f"../mods-available/{name}")
        super().__init__(directory, server)
        site = directory / "site"
        for target in self.targets():
            page = site / target.path.lstrip("/")
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_bytes(body_of(target.size))
        (site / "long").write_bytes(body_of(LENGTH))
        self.api.apache.reconfigure(vhosts=[self.host(), self.host(tls=True)], async_=False)

    def host(self, name: str = LOADED, *, port: int = 0, tls: bool = False, note: str = "first") -> dict[str, object]:
        site = self.directory / "site"
        template = (
            f"<VirtualHost *:80>\n# {note}\nServerName {name}\nDocumentRoot {site}\n"
            f'ProxyPass "/handed-on/" "http://127.0.0.1:{self.backends[0]}/" upgrade=websocket\n'
            f"<Directory {site}>\nRequire all granted\n</Directory>\n</VirtualHost>\n"
        )
        return {"hostname": name, "port": port or (self.tls if tls else self.port), "template": template, "ssl": tls}

    def changes(self) -> Iterator[str]:
        api = self.api.apache
        for number in count():
            name, renamed = f"other-{number}.example.com", f"renamed-{number}.example.com"
            api.create_vhost(**self.host(name))
            yield "create_vhost"
            api.update_vhost(signature=[name, self.port], template=self.host(name, note="changed")["template"])
            yield "update_vhost"
            api.create_vhost(**self.host("elsewhere.example.com", port=self.elsewhere))
            yield "create_vhost on a new port"
            template = self.host(note=f"changed-{number}")["template"]
            api.update_vhost(signature=[LOADED, self.port], template=template)
            yield "update_vhost of the loaded one"
            api.update_vhost(signature=[name, self.port], hostname=renamed)
            yield "update_vhost to another name"
            self.api.change.revert(id=self.newest())
            yield "change.revert"
            api.delete_vhosts(vhosts=[["elsewhere.example.com", self.elsewhere]])
            yield "delete_vhosts"
            note = f"reconfigured-{number}"
            hosts = [self.host(note=note), self.host(tls=True, note=note), self.host(name)]
            api.reconfigure(vhosts=hosts, async_=False)
            yield "reconfigure"
            api.create_vhost(**self.host(tls=True, note=f"again-{number}"))
            yield "create_vhost in place of the loaded one"
            api.delete_vhosts(vhosts=[[name, self.port]])
            yield "delete_vhosts"

    def serving(self) -> list[int]:
        """Give the workers that take connections."""
        listening = {one.inode for one in listening_sockets() if one.port == self.port}
        return [pid for pid in processes.children_of(self.main_process()) if sockets_of(pid) & listening]

    def refused(self, what: dict[str, object]) -> str:
        return refusal(self.api.apache.create_vhost, **what)


@pytest.fixture
def directory() -> Iterator[Path]:
    # The servers' users have to reach it; pytest closes its own to them whenever another one starts.
    with TemporaryDirectory() as name:
        made = Path(name)
        made.chmod(0o711)
        yield made


@pytest.fixture
def nginx(directory: Path) -> Iterator[NginxSetup]:
    made = NginxSetup(directory)
    with made.parts:
        yield made


@pytest.fixture
def apache(directory: Path, request: pytest.FixtureRequest) -> Iterator[ApacheSetup]:
    made = ApacheSetup(directory, getattr(request, "param", "event"))
    with made.parts:
        yield made


def refusal(call: Callable[..., object], **arguments: object) -> str:
    with pytest.raises(AgentError) as caught:
        call(**arguments)
    return str(caught.value)


def make_changes(setup: Setup, number: int, between: Callable[[], object] = lambda: None) -> list[tuple[float, str]]:
    """Make so many changes, each a real one; gives the seconds that each took, and what it was."""
    took, ids, changes = [], [setup.newest()], setup.changes()
    for _ in range(number):
        began = time.monotonic()
        name = next(changes)
        took.append((time.monotonic() - began, name))
        assert setup.newest() not in ids, f"{name} changed nothing"
        ids.append(setup.newest())
        between()
    return took


def expect_nothing_dropped(setup: Setup, report: Report, seconds: float) -> None:
    print(report)
    assert report.failures == {}, str(report)
    assert set(report.answers) == {target.name for target in setup.targets()}, "some clients got no answer"
    assert report.seconds >= seconds, "the load ended before the changes did"


def change_under_load(setup: Setup, number: int) -> None:
    main_process = setup.main_process()
    with load(setup.targets()) as running:
        began = time.monotonic()
        took = make_changes(setup, number)
        seconds = time.monotonic() - began
    typical, (longest, name) = median(one for one, _ in took), max(took)
    print(f"{number} changes in {seconds:.1f} s: {typical:.2f} s each, {longest:.2f} s at most ({name})")
    expect_nothing_dropped(setup, running.report, seconds)
    assert setup.main_process() == main_process


@pytest.mark.nginx
@pytest.mark.parametrize("number", [30, MANY])
def test_changes_of_nginx_drop_nothing(nginx: NginxSetup, number: int) -> None:
    change_under_load(nginx, number)


@pytest.mark.apache2
@pytest.mark.parametrize(
    ("apache", "number"),
    [
        ("event", 20),
        pytest.param("event", *MANY.values, marks=MANY.marks),
        pytest.param("worker", *MANY.values, marks=MANY.marks),
        pytest.param("prefork", *MANY.values, marks=MANY.marks),
    ],
    indirect=["apache"],
)
def test_changes_of_apache_drop_nothing(apache: ApacheSetup, number: int) -> None:
    change_under_load(apache, number)


class Transfer(ExitStack):
    """A download or an upload that goes on as the test wants."""

    def __init__(self, port: int, path: str, *, upload: bool = False) -> None:
        super().__init__()
        raw = self.enter_context(socket.socket())
        raw.settimeout(60)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        raw.connect(("127.0.0.1", port))
        self._connection = HTTPConnection(LOADED)
        self._connection.sock = raw
        self.callback(self._connection.close)
        self._upload = upload
        self._done = 0
        self._came = hashlib.sha256()
        if upload:
            self._connection.putrequest("POST", path)
            self._connection.putheader("Content-Length", str(LENGTH))
            self._connection.endheaders()
        else:
            self._connection.request("GET", path)
            self._answer = self.enter_context(self._connection.getresponse())
            assert self._answer.status == 200

    def go_on(self) -> None:
        """Move a piece."""
        if self._upload:
            self._connection.send(body_of(LENGTH)[self._done : self._done + STEP])
            self._done += STEP
        else:
            piece = self._answer.read(STEP)
            self._done += len(piece)
            self._came.update(piece)

    def expect_the_rest(self) -> None:
        """Move the rest; every byte has to arrive."""
        assert self._done < LENGTH, "there was nothing left"
        while self._done < LENGTH:
            before = self._done
            self.go_on()
            assert self._done > before, f"cut off after {self._done} bytes"
        whole = hashlib.sha256(body_of(LENGTH)).hexdigest()
        if self._upload:
            answer = self.enter_context(self._connection.getresponse())
            assert (answer.status, answer.read().decode()) == (200, whole)
        else:
            assert self._came.hexdigest() == whole


def go_through_changes(setup: Setup, path: str, transfers: list[Transfer], number: int = 10) -> None:
    """Make changes beside connections of the first generation, and of each one a WebSocket."""
    sockets: list[WebSocket] = []

    def between() -> None:
        sockets.append(setup.parts.enter_context(WebSocket(setup.port, LOADED, path)))
        for transfer in transfers:
            transfer.go_on()
        for index, one in enumerate(sockets):
            assert one.echo(b"%d " % index * 100) == b"%d " % index * 100

    between()
    took = make_changes(setup, number, between)
    assert max(took)[0] < NORMAL, f"a change waited: {took}"
    for transfer in transfers:
        transfer.expect_the_rest()
    for one in sockets:
        assert one.echo(b"after") == b"after" and one.end() == struct.pack("!H", 1000)


@pytest.mark.nginx
def test_what_lasts_goes_on_through_changes_of_nginx_and_holds_none_up(nginx: NginxSetup) -> None:
    page = f"/bytes/{LENGTH}"
    transfers = [nginx.transfer(path) for path in (page, f"/at-once{page}")]
    transfers += [nginx.transfer(path, upload=True) for path in ("/", "/at-once/")]
    go_through_changes(nginx, "/", transfers)

    def leaving() -> list[int]:
        children = processes.children_of(nginx.main_process())
        return [pid for pid in children if "shutting down" in processes.title_of(pid)]

    assert processes.wait_until(lambda: not leaving(), 60), "old workers stay once their connections have ended"


@pytest.mark.apache2
@pytest.mark.parametrize("apache", ["event", "prefork", pytest.param("worker", marks=pytest.mark.long)], indirect=True)
def test_what_lasts_goes_on_through_changes_of_apache_and_holds_none_up(apache: ApacheSetup) -> None:
    transfers = [apache.transfer(path) for path in ("/long", f"/handed-on/bytes/{LENGTH}")]
    transfers.append(apache.transfer("/handed-on/", upload=True))
    go_through_changes(apache, "/handed-on/", transfers)


@pytest.mark.nginx
def test_old_workers_are_told_to_go_while_they_sleep_and_are_left_to_the_master_else(
    nginx: NginxSetup, tmp_path: Path
) -> None:
    """One that is told in the middle of its work closes kept connections on which a request has arrived."""
    log = tmp_path / "signals"
    command = ["strace", "-f", "-qq", "-e", "trace=kill,tgkill,pidfd_send_signal", "-o", str(log)]
    tracer = subprocess.Popen([*command, "-p", str(nginx.agent.pid())])
    assert processes.wait_until(lambda: is_traced(nginx.agent.pid()), 60)
    master = nginx.main_process()
    assert processes.wait_until(lambda: len(processes.children_of(master)) == 2, 60), "those before are gone"
    asleep, busy = sorted(processes.children_of(master))
    os.kill(busy, signal.SIGSTOP)  # as far from asleep as one that works
    changing = threading.Thread(target=make_changes, args=(nginx, 1))
    try:
        changing.start()
        assert processes.wait_until(lambda: not processes.title_of(asleep).endswith("worker process"), 60)
        time.sleep(0.5)
        assert changing.is_alive() and processes.title_of(busy) == "nginx: worker process"
        sent = re.findall(r"kill\((\d+), (SIG\w+)\)", log.read_text())
        assert sent == [(str(master), "SIGHUP"), (str(asleep), "SIGQUIT")]
    finally:
        os.kill(busy, signal.SIGCONT)
        changing.join()
        tracer.send_signal(signal.SIGINT)
        tracer.wait(60)
    assert processes.wait_until(lambda: not processes.is_alive(busy), 60)


def is_traced(pid: int) -> bool:
    """Tell whether each thread of a process is traced."""
    return all("TracerPid:\t0" not in (task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir())


@pytest.mark.nginx
def test_a_change_of_nginx_that_is_refused_or_fails_drops_nothing(nginx: NginxSetup) -> None:
    nginx.api.nginx.stop_service()
    assert isinstance(nginx.server, PrivateNginx)
    nginx.server.start_confined()
    with backend("other") as taken, load(nginx.targets()) as running:
        began = time.monotonic()
        bad = [{"location": "/", "content": "nonsense on;"}]
        assert "nonsense" in nginx.refused(nginx.loaded(templates=bad))
        assert "held by another program" in nginx.refused(nginx.other("x.example.com", taken))
        for number in range(3):
            # nginx's test opens this log and says yes; the running master cannot.
            elsewhere = nginx.server.make_closed_directory(f"closed-{number}")
            template = {"content": f"access_log {elsewhere}/a.log;", "server": True}
            said = nginx.refused({**nginx.other("x.example.com", nginx.elsewhere), "templates": [template]})
            assert "did not load the configuration" in said and "Everything was put back" in said
        seconds = time.monotonic() - began
    expect_nothing_dropped(nginx, running.report, seconds)


@pytest.mark.apache2
def test_a_change_of_apache_that_is_refused_drops_nothing(apache: ApacheSetup) -> None:
    with backend("other") as taken, load(apache.targets()) as running:
        began = time.monotonic()
        template = str(apache.host()["template"])
        bad = {**apache.host(), "template": template.replace("DocumentRoot", "Nonsense on\nDocumentRoot")}
        for _ in range(3):
            assert "Nonsense" in apache.refused(bad)
            assert "held by another program" in apache.refused(apache.host("x.example.com", port=taken))
        seconds = time.monotonic() - began
    expect_nothing_dropped(apache, running.report, seconds)


@pytest.mark.apache2
def test_apache_answers_once_a_change_is_made_and_is_not_reloaded_where_it_could_not(apache: ApacheSetup) -> None:
    """A process that finishes old connections keeps its place; with all places kept, nobody would be answered."""
    conf = apache.server.directory / "mods-available" / "mpm_event.conf"
    conf.write_text("StartServers 1\nServerLimit 5\nThreadsPerChild 5\nMaxRequestWorkers 25\n")
    apache.api.apache.restart_service()
    held, live = [], {}
    with pytest.raises(AgentError, match=r"ServerLimit, 5, leaves no place for new ones.*Everything was put back"):
        for name in islice(apache.changes(), 10):
            assert apache.serving(), f"after {name}, a new connection waits for a process"
            held.append(apache.transfer("/long"))
            live = {path: path.read_text() for path in apache.agent.etc.rglob("*.conf")}
    assert live == {path: path.read_text() for path in apache.agent.etc.rglob("*.conf")}
    assert fetch(apache.port, LOADED, "/handed-on/bytes/0")[0] == 200
    for transfer in held:
        transfer.expect_the_rest()


def test_what_listens_is_found_beside_what_was_connected() -> None:
    with ExitStack() as parts:
        listeners = []
        for address, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6), ("127.0.0.1", socket.AF_INET)):
            listener = parts.enter_context(socket.create_server((address, 0), family=family))
            listeners.append((address, listener.getsockname()[1]))
            for _ in range(100):
                client = socket.create_connection(listeners[-1])
                accepted, _ = listener.accept()
                accepted.close()
                client.close()
            parts.enter_context(socket.create_connection(listeners[-1]))
        found = [(one.address, one.port) for one in listening_sockets()]
        assert [found.count(listener) for listener in listeners] == [1, 1, 1]
