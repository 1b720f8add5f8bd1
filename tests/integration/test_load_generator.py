"""The load generator sees what a server drops: the tests of connections stand on it."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import msgspec
import pytest

from load_generator import Target, body_of, load
from running_agent import free_port
from scalarizr.host.processes import wait_until

TARGET = Target(port=0, host="load.example.com", path="/", size=300, keep=True)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n"
WHOLE = HEAD + body_of(300)


@dataclass
class Careless:
    """A server that drops connections.

    :ivar ended: how many it has ended so far.
    """

    port: int
    ended: int = 0

    def wait_until_ended(self, connections: int) -> None:
        assert wait_until(lambda: self.ended >= connections, 60)


@contextmanager
def careless_server(answers: list[bytes], *, reset: bool, takes_one_more: bool) -> Iterator[Careless]:
    """A server that gives each connection these answers and ends it, before or after it has taken a further request."""

    def serve(connection: socket.socket) -> None:
        with connection:
            for answer in answers:
                _take_request(connection)
                # With nothing more to come, the last answer and the end go out together: no request comes between.
                last = not takes_one_more and not reset and answer is answers[-1]
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, last)
                connection.sendall(answer)
            if takes_one_more:
                _take_request(connection)
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            if over.is_set():
                connection.close()
                return
            with suppress(OSError):
                serve(connection)
            server.ended += 1

    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Careless(listener.getsockname()[1])
        thread = threading.Thread(target=accept)
        thread.start()
        yield server
        over.set()
        socket.create_connection(("127.0.0.1", server.port)).close()
        thread.join()


def _take_request(connection: socket.socket) -> None:
    came = b""
    while not came.endswith(b"\r\n\r\n"):
        piece = connection.recv(1000)
        if not piece:
            raise ConnectionResetError
        came += piece


@pytest.mark.parametrize(
    ("answers", "reset", "kind"),
    [
        ([WHOLE[:-1]], False, "cut off: closed"),
        ([WHOLE[:-1]], True, "cut off: reset"),
        ([], False, "closed"),
        ([], True, "reset"),
        ([HEAD + bytes(300)], False, "another body of 300 bytes"),
        ([b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"], False, "status 502"),
    ],
)
def test_the_load_generator_counts_what_is_dropped(answers: list[bytes], reset: bool, kind: str) -> None:
    with (
        careless_server(answers, reset=reset, takes_one_more=not answers) as server,
        load([msgspec.structs.replace(TARGET, port=server.port)], seconds=60) as running,
    ):
        pass
    assert list(running.report.failures) == [kind] and running.report.answers == {}


def test_the_load_generator_counts_what_is_refused() -> None:
    with load([msgspec.structs.replace(TARGET, port=free_port())], seconds=60) as running:
        pass
    assert list(running.report.failures) == ["no connection: refused"]


@pytest.mark.parametrize(("reset", "kind"), [(False, "closed"), (True, "reset")])
def test_the_load_generator_asks_again_where_a_server_ends_a_kept_connection(reset: bool, kind: str) -> None:
    with careless_server([WHOLE, WHOLE], reset=reset, takes_one_more=True) as server:
        busy = msgspec.structs.replace(TARGET, port=server.port)
        with load([busy], seconds=60) as running:
            server.wait_until_ended(3)
    assert running.report.failures == {} and list(running.report.asked_again) == [kind]


def test_a_kept_connection_that_ends_while_it_is_idle_is_no_failure() -> None:
    with careless_server([WHOLE], reset=False, takes_one_more=False) as server:
        idle = msgspec.structs.replace(TARGET, port=server.port, thinking_pause=0.1)
        with load([idle], seconds=60) as running:
            server.wait_until_ended(4)
    report = running.report
    assert report.failures == report.asked_again == {} and report.found_closed > 1
