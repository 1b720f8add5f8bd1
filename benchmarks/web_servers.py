"""Changes of a real nginx and a real Apache beside what the same takes by hand, on the same files, rounds in turn."""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import sha1
from pathlib import Path
from typing import Any

# The servers that the tests run against are the ones that are measured.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from private_servers import PrivateApache, PrivateNginx
from running_agent import RunningAgent, free_port
from scalarizr.api.nginx import NginxAPI
from scalarizr.assembly import build_parts
from scalarizr.host.processes import children_of, title_of, wait_until
from scalarizr.logs import open_log
from scalarizr.settings.load import load_settings

Row = tuple[str, str, str, str]
_PAUSE = 0.4  # the last change's old workers are gone by then


def nginx() -> list[Row]:
    """One backend of 1,000 proxies, all of 1,000 and of 10,000, a hundred calls at once."""
    return [*_one_backend(1000), *_all_proxies(), *_at_once()]


def _one_backend(count: int) -> list[Row]:
    with _running_nginx(count) as (server, agent, _port):
        name = sha1(b"500.example.com", usedforsecurity=False).hexdigest()
        script = (
            f"sed -i '/^upstream {name} /a server 127.1.0.'$1';' {server.upstreams} && "
            f"nginx -p {server.directory} -c {server.main} -t -q && "
            f"nginx -p {server.directory} -c {server.main} -s reload"
        )
        plain, by_hand, effective, waited, ours = [], [], [], [], []
        with agent.client(timeout=600) as client:
            for turn in range(25):
                plain.append(_timed(lambda: _test_and_reload(server)))
                time.sleep(_PAUSE)
                old, began = _workers(server), time.perf_counter()
                subprocess.run(["sh", "-c", script, "sh", str(turn)], check=True, stderr=subprocess.DEVNULL)
                by_hand.append(time.perf_counter() - began)
                wait_until(lambda old=old: bool(_workers(server) - old), 30)  # type: ignore[misc]
                effective.append(time.perf_counter() - began)
                wait_until(lambda old=old: not _workers(server) & old and bool(_workers(server)), 30)  # type: ignore[misc]
                waited.append(time.perf_counter() - began)
                time.sleep(_PAUSE)
                server_there = f"127.2.0.{turn}"
                ours.append(_timed(lambda s=server_there: client.nginx.add_server(backend=name, server=s)))  # type: ignore[misc]
    times = (plain, by_hand, effective, waited, ours)
    base, script_alone, script_effective, script_waited, call = map(statistics.median, times)
    return [
        _row(f"one backend added to one of {count:,} proxies, beside `nginx -t` + `nginx -s reload`", call, base, 1.3),
        _row(
            "beside the shortest shell script (sed, test, reload), before nginx has loaded it", call, script_alone, 1.1
        ),
        _row("beside the same until a new worker takes connections", call, script_effective, 1.1),
        _row("beside the same until only new workers take connections, as the call does", call, script_waited, 1.1),
        ("of it ours alone", f"{_ours_alone(count) * 1000:.1f} ms", "20 ms", "goal: at most"),
    ]


def _ours_alone(count: int) -> float:
    """What a call takes beside running nginx: with the time in which nginx is waited for taken off."""
    with _running_nginx(count) as (_server, agent, _port):
        agent.stop()
        settings = load_settings(agent.etc)
        api = NginxAPI(build_parts(agent.etc, settings, open_log(settings), None))
        theirs: list[float] = []
        program: Any = api._program
        for step in ("test", "reload"):
            setattr(program, step, _measured(getattr(program, step), theirs))
        name, alone = sha1(b"500.example.com", usedforsecurity=False).hexdigest(), []
        for turn in range(25):
            theirs.clear()
            taken = _timed(lambda t=turn: api.add_server(name, f"127.3.0.{t}"))  # type: ignore[misc]
            alone.append(taken - sum(theirs))
            time.sleep(_PAUSE)
    return statistics.median(alone)


def _all_proxies() -> list[Row]:
    rows, medians = [], {}
    for count, rounds in ((1000, 9), (10_000, 3)):
        with _running_nginx(count) as (server, agent, port), agent.client(timeout=600) as client:
            plain, ours = [], []
            for turn in range(rounds):
                plain.append(_timed(lambda: _test_and_reload(server)))
                time.sleep(_PAUSE)
                wanted = _proxies(count, port, f"127.4.0.{turn}")
                ours.append(_timed(lambda w=wanted: client.nginx.recreate_proxying(proxy_list=w)))  # type: ignore[misc]
                time.sleep(_PAUSE)
        medians[count] = statistics.median(ours)
        rows.append(
            _row(f"recreate_proxying of {count:,}, beside the same", medians[count], statistics.median(plain), 1.5)
        )
    growth = medians[10_000] / medians[1000]
    return [*rows, ("10,000 beside 1,000", f"{medians[10_000]:.2f} s", f"{medians[1000]:.2f} s", f"{growth:.1f} times")]


def _at_once() -> list[Row]:
    with _running_nginx(1000) as (_server, agent, _port), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(agent.client(timeout=60)) for _ in range(8)]
        name = sha1(b"500.example.com", usedforsecurity=False).hexdigest()
        before = {change["id"] for change in clients[0].change.list()}

        def add(number: int) -> None:
            clients[number % 8].nginx.add_server(backend=name, server=f"127.5.0.{number}")

        threads = [threading.Thread(target=add, args=(number,)) for number in range(100)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        taken = time.perf_counter() - began
        changes = [change for change in clients[0].change.list() if change["id"] not in before]
    return [
        (
            "100 add_server at once from 8 clients",
            f"{len(changes)} reloads, {taken:.2f} s",
            "10 reloads",
            "goal: at most",
        )
    ]


def apache(count: int = 500) -> list[Row]:
    """One of 500 virtual hosts, beside `configtest` and `graceful` of Debian's control script."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        server = PrivateApache(directory)
        port, site = free_port(), directory / "site"

        def host(number: int, turn: int) -> dict[str, Any]:
            template = (
                f"<VirtualHost *:{port}>\nServerName {number}.example.com\nDocumentRoot {site}\nSetEnv TURN {turn}\n"
                f"<Directory {site}>\nRequire all granted\n</Directory>\n</VirtualHost>\n"
            )
            return {"hostname": f"{number}.example.com", "port": port, "template": template, "ssl": False}

        with RunningAgent(directory, server.settings) as agent, agent.client(timeout=600) as client:
            client.apache.start_service()
            client.apache.reconfigure(vhosts=[host(number, 0) for number in range(count)], async_=False)
            plain, ours = [], []
            for turn in range(1, 16):
                time.sleep(_PAUSE)
                plain.append(_timed(lambda: (server.control("configtest"), server.control("graceful"))))
                time.sleep(_PAUSE)
                ours.append(_timed(lambda t=turn: client.apache.create_vhost(**host(count // 2, t))))  # type: ignore[misc]
        server.stop()
    base, call = statistics.median(plain), statistics.median(ours)
    return [_row(f"one of {count} virtual hosts, beside `configtest` + `graceful`", call, base, 1.3)]


@contextlib.contextmanager
def _running_nginx(count: int) -> Iterator[tuple[PrivateNginx, RunningAgent, int]]:
    with tempfile.TemporaryDirectory() as name:
        directory, port = Path(name), free_port()
        os.chmod(directory, 0o755)
        server = PrivateNginx(directory)
        agent = RunningAgent(directory, server.settings).start()
        try:
            with agent.client(timeout=600) as client:
                client.nginx.recreate_proxying(proxy_list=_proxies(count, port, "127.0.0.1"))
            yield server, agent, port
        finally:
            agent.stop()
            server.stop()


def _proxies(count: int, port: int, first: str) -> list[dict[str, Any]]:
    backends = [{"host": first}, {"host": "127.0.0.2"}]
    return [{"hostname": f"{number}.example.com", "port": port, "backends": backends} for number in range(count)]


def _test_and_reload(server: PrivateNginx) -> None:
    for arguments in (("-t", "-q"), ("-s", "reload")):
        subprocess.run(server.command(*arguments), check=True, stderr=subprocess.DEVNULL)


def _workers(server: PrivateNginx) -> set[int]:
    master = server.master()
    assert master is not None
    return {pid for pid in children_of(master) if title_of(pid) == "nginx: worker process"}


def _measured(step: Callable[..., Any], into: list[float]) -> Callable[..., Any]:
    def measured(*arguments: Any, **more: Any) -> Any:
        began = time.perf_counter()
        try:
            return step(*arguments, **more)
        finally:
            into.append(time.perf_counter() - began)

    return measured


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _row(name: str, ours: float, other: float, goal: float) -> Row:
    return (name, f"{ours * 1000:.0f} ms", f"{other * 1000:.0f} ms", f"{ours / other:.2f} times (goal: at most {goal})")
