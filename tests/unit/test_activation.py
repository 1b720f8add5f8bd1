"""Sockets that were handed over, leaving where there is nothing to do, and what systemd is told."""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scalarizr.envelope.replay import ReplayStores, can_be_saved, open_store, save_store
from scalarizr.host.service_manager import ServiceManager
from scalarizr.server import activation
from scalarizr.server.activation import BadActivation, PassedSockets, passed_sockets
from scalarizr.server.idle_exit import IdleExit
from scalarizr.server.listener import bind, close_unnamed


def environment(count: str = "1", process: int | None = None, names: str = "scalarizr.socket") -> dict[str, str]:
    return {"LISTEN_FDS": count, "LISTEN_PID": str(process or os.getpid()), "LISTEN_FDNAMES": names, "HOME": "/root"}


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        given = os.dup(made.fileno())
        monkeypatch.setattr(activation, "_FIRST", given)
        yield made


def address(listening: socket.socket) -> str:
    return f"127.0.0.1:{listening.getsockname()[1]}"


def test_a_socket_is_taken_by_the_address_that_it_listens_on(listening: socket.socket) -> None:
    passed = passed_sockets(environment())
    (taken,) = bind([address(listening)], passed)
    with taken:
        assert taken.getsockname() == listening.getsockname() and not taken.get_inheritable()
    assert passed.some and passed.opened_here == [] and close_unnamed(passed, []) is None


def test_what_tells_of_the_sockets_is_gone_for_programs_that_are_started_later(listening: socket.socket) -> None:
    variables = environment()
    passed_sockets(variables).close_all_but([])
    assert variables == {"HOME": "/root"}


def test_sockets_of_another_process_are_let_be(listening: socket.socket) -> None:
    variables = environment(process=os.getpid() + 1)
    assert not passed_sockets(variables).some and variables == {"HOME": "/root"}
    assert not passed_sockets({}).some


def test_an_address_that_nobody_handed_over_is_opened(listening: socket.socket) -> None:
    passed = passed_sockets(environment())
    for opened in bind(["127.0.0.1:0", address(listening)], passed):
        opened.close()
    assert passed.some and passed.opened_here == ["127.0.0.1:0"]


def test_a_socket_that_nobody_named_is_closed_for_whoever_holds_it_too(listening: socket.socket) -> None:
    passed = passed_sockets(environment())
    assert close_unnamed(passed, ["127.0.0.1:1", "no address"]) == f"{address(listening)} of scalarizr.socket"
    assert not passed.some
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(listening.getsockname(), 60)
    # And the address is free for whoever is to listen there.
    (opened,) = bind([address(listening)], passed)
    opened.close()


def test_a_socket_that_somebody_named_is_kept(listening: socket.socket) -> None:
    passed = passed_sockets(environment())
    assert close_unnamed(passed, ["127.0.0.1:1", address(listening)]) is None
    (taken,) = bind([address(listening)], passed)
    taken.close()
    assert passed.some and passed.opened_here == []


def test_an_ipv6_socket_that_takes_ipv4_too_is_not_what_an_ipv6_address_means() -> None:
    try:
        both = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    except OSError:
        pytest.skip("LEFT OUT: there is no IPv6 here")
    with both:
        passed = PassedSockets([("scalarizr.socket", both)])
        assert passed.take("[::]:1", socket.AF_INET6, both.getsockname()) is None
        assert "BindIPv6Only=ipv6-only" in (passed.close_all_but([(socket.AF_INET6, both.getsockname())]) or "")


def test_an_ipv6_address_is_found() -> None:
    try:
        alone = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("LEFT OUT: there is no IPv6 here")
    passed = PassedSockets([("scalarizr.socket", alone)])
    (taken,) = bind([f"[::1]:{alone.getsockname()[1]}"], passed)
    with taken:
        assert taken is alone


def _file() -> int:
    return os.open(os.devnull, os.O_RDONLY)


def _socket_that_does_not_listen() -> int:
    return socket.socket().detach()


def _unix_socket() -> int:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"\0scalarizr-test-{os.getpid()}")
    listening.listen()
    return listening.detach()


def _nothing() -> int:
    descriptor = _file()
    os.close(descriptor)
    return descriptor


@pytest.mark.parametrize("make", [_file, _socket_that_does_not_listen, _unix_socket, _nothing])
def test_what_is_no_listening_tcp_socket_is_refused(make: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = make()
    monkeypatch.setattr(activation, "_FIRST", descriptor)
    with pytest.raises(BadActivation, match=f"descriptor {descriptor}, passed by scalarizr.socket"):
        passed_sockets(environment())
    if make is not _nothing:
        os.close(descriptor)


@pytest.mark.parametrize("count", ["", "-1", "many", "1001"])
def test_a_number_of_sockets_that_is_none_is_refused(count: str) -> None:
    with pytest.raises(BadActivation, match="LISTEN_FDS"):
        passed_sockets(environment(count))


# Leaving


class Quiet:
    """What the agent has to do, look by look, and when it left."""

    def __init__(self, busy: int = 0, seen: int = 0, refusals: int = 0) -> None:
        self.busy = busy
        self.seen = seen
        self.refusals = refusals
        self.log: list[str] = []
        self.left = asyncio.Event()
        self.exit = IdleExit(self.is_busy, self.count, self.leave)

    def is_busy(self) -> bool:
        self.busy -= 1
        self.log.append("busy" if self.busy >= 0 else "quiet")
        return self.busy >= 0

    def count(self) -> int:
        self.seen -= 1
        return max(self.seen, 0)

    def leave(self) -> bool:
        self.refusals -= 1
        self.log.append("stays" if self.refusals >= 0 else "leaves")
        if self.refusals < 0:
            self.left.set()
        return self.refusals < 0

    async def left_after(self, seconds: float) -> list[str]:
        self.exit.apply(seconds)
        async with asyncio.timeout(60):
            await self.left.wait()
        return self.log


def test_it_leaves_when_there_is_nothing_to_do() -> None:
    log = asyncio.run(make_quiet(0.2))
    assert log[-1] == "leaves" and set(log[:-1]) == {"quiet"}


async def make_quiet(after: float, **terms: int) -> list[str]:
    return await Quiet(**terms).left_after(after)


def test_it_stays_while_there_is_something_to_do_and_the_whole_time_after_it() -> None:
    log = asyncio.run(make_quiet(0.2, busy=6))
    assert log[:6] == ["busy"] * 6 and log[-1] == "leaves" and log[6] == "quiet"


def test_what_came_and_went_between_two_looks_counts() -> None:
    log = asyncio.run(make_quiet(0.2, seen=6))
    # Of the first looks none came to ask whether it is busy: something had come.
    assert log[-1] == "leaves" and log.count("leaves") == 1


def test_it_stays_where_it_cannot_leave_and_tries_again() -> None:
    log = asyncio.run(make_quiet(0.2, refusals=2))
    assert [word for word in log if word != "quiet"] == ["stays", "stays", "leaves"]
    assert log.index("leaves") - log.index("stays") > 2  # not at once


def test_it_never_leaves_where_it_is_not_told_to() -> None:
    async def told() -> list[str]:
        quiet = Quiet()
        quiet.exit.apply(0.1)
        quiet.exit.apply(None)
        other = Quiet()
        await other.left_after(0.4)
        return quiet.log

    assert asyncio.run(told()) == []


def test_it_is_asked_first_whether_what_is_remembered_can_be_kept(tmp_path: Path) -> None:
    stores = ReplayStores(300, 1000)
    stores.accept("default", b"x" * 16, 1_800_000_000, 1_800_000_000)
    path = tmp_path / "replay"
    save_store(stores, path)
    before = path.read_bytes()
    open_store(path, 300, 1000, lambda: 0)
    running = path.read_bytes()
    assert can_be_saved(stores, path) and path.read_bytes() == running != before
    assert [entry.name for entry in tmp_path.iterdir()] == ["replay"]
    assert not can_be_saved(stores, tmp_path / "none" / "replay")


# systemd


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemd_is_told_and_its_variables_are_taken_away(kind: str, tmp_path: Path) -> None:
    place = f"@scalarizr-test-{os.getpid()}" if kind == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind("\0" + place[1:] if kind == "abstract" else place)
        notify.settimeout(60)
        variables = {"NOTIFY_SOCKET": place, "WATCHDOG_USEC": "180000000", "WATCHDOG_PID": str(os.getpid()), "A": "b"}
        manager = ServiceManager(variables)
        manager.tell("READY=1", "STATUS=here")
        assert notify.recv(100) == b"READY=1\nSTATUS=here"
    assert variables == {"A": "b"} and manager.watchdog == 180.0
    with pytest.raises(OSError):
        manager.tell("STOPPING=1")


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid() + 1)},
    ],
)
def test_no_sign_of_life_is_wanted(variables: dict[str, str]) -> None:
    manager = ServiceManager(variables)
    assert manager.watchdog is None
    manager.tell("READY=1")  # nobody is there to hear it
