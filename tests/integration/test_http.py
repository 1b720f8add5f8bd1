"""The HTTP rules of WIRE.md, spoken by hand to a real agent."""

import os
import socket
import threading
import time
from collections.abc import Callable

import pytest

from running_agent import RunningAgent
from scalarizr.envelope.key import ServerKey
from scalarizr.host.processes import wait_until
from wire import Connection, ask, founding_message, founding_request, http_post, sealed_message, sealed_request

LOAD = {"method": "load_average", "params": {}, "id": 1}


def key_of(agent: RunningAgent) -> ServerKey:
    return ServerKey.from_file(agent.key_file)


def founding(agent: RunningAgent, number: int, path: str = "/system") -> bytes:
    # An extra member, which is ignored, makes the message unlike any other of the same second.
    return founding_request(key_of(agent), path, {**LOAD, "id": number, "extra": os.urandom(8).hex()})


def test_both_envelopes_are_answered_on_one_kept_connection(shared_agent: RunningAgent) -> None:
    key = key_of(shared_agent)
    with Connection(shared_agent.port) as connection:
        for number in range(3):
            answer = connection.ask(founding(shared_agent, number))
            assert answer.opened(key)["id"] == number
            assert answer.headers["content-type"] == "application/json" and "server" not in answer.headers
            answer = connection.ask(sealed_request(key, "/system", {**LOAD, "id": number}))
            assert answer.opened(key)["id"] == number and "date" in answer.headers


def test_pipelined_requests_are_answered_in_order(shared_agent: RunningAgent) -> None:
    with Connection(shared_agent.port) as connection:
        connection.send(b"".join(founding(shared_agent, number) for number in range(100, 150)))
        found = [connection.receive().opened(key_of(shared_agent))["id"] for _ in range(50)]
    assert found == list(range(100, 150))


def test_what_came_whole_is_answered_before_garbage_or_the_end(make_trial_agent: Callable[[str], RunningAgent]) -> None:
    agent = make_trial_agent("").start()
    key = key_of(agent)

    def sleeping(number: int) -> bytes:
        call = {"method": "sleep", "params": {"seconds": 0.1, "text": str(number)}, "id": number}
        return sealed_request(key, "/trial", call)

    for rest in (b"garbage\r\n\r\n", b""):
        with Connection(agent.port) as connection:
            connection.send(b"".join(sleeping(number) for number in range(3)) + rest)
            if not rest:
                connection.socket.shutdown(socket.SHUT_WR)
            assert [connection.receive().opened(key)["result"] for _ in range(3)] == ["0", "1", "2"]
            assert connection.closed()


def test_connection_close_and_http_1_0_end_the_connection(shared_agent: RunningAgent) -> None:
    for change in (
        lambda data: data.replace(b"Host: x", b"Connection: close"),
        lambda data: data.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ):
        with Connection(shared_agent.port) as connection:
            answer = connection.ask(change(founding(shared_agent, 5)))
            assert answer.opened(key_of(shared_agent))["id"] == 5
            assert connection.closed()


def test_an_http_1_0_client_may_keep_its_connection(shared_agent: RunningAgent) -> None:
    with Connection(shared_agent.port) as connection:
        for number in (6, 7):
            data = founding(shared_agent, number).replace(b"HTTP/1.1", b"HTTP/1.0")
            answer = connection.ask(data.replace(b"Host: x", b"Connection: keep-alive"))
            assert answer.headers["connection"] == "keep-alive"


def test_chunked_bodies_and_trailers_are_taken(shared_agent: RunningAgent) -> None:
    body, headers = founding_message(key_of(shared_agent), {**LOAD, "id": 8})
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:]))
    head = f"POST /system HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{lines}\r\n".encode()
    assert ask(shared_agent.port, head + chunks + b"0\r\n\r\n").opened(key_of(shared_agent))["id"] == 8


def test_expect_100_continue_is_answered_before_the_body(shared_agent: RunningAgent) -> None:
    data = founding(shared_agent, 9).replace(b"Host: x", b"Expect: 100-continue")
    head, _, body = data.partition(b"\r\n\r\n")
    with Connection(shared_agent.port) as connection:
        assert connection.ask(head + b"\r\n\r\n").status == 100
        assert connection.ask(body).opened(key_of(shared_agent))["id"] == 9


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(shared_agent: RunningAgent) -> None:
    head = b"POST /system HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 8388609\r\n\r\n"
    with Connection(shared_agent.port) as connection:
        assert connection.ask(head).status == 413
        assert connection.closed()


def test_chunks_that_become_too_large_are_refused(shared_agent: RunningAgent) -> None:
    with Connection(shared_agent.port) as connection:
        connection.send(b"POST /system HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"%x\r\n%b\r\n" % (1 << 20, b"A" * (1 << 20))
        try:
            for _ in range(9):
                connection.send(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert connection.receive().status == 413


@pytest.mark.parametrize(
    ("request_line", "status", "allow"),
    [
        ("GET /system", 405, "POST"),
        ("PUT /sysinfo", 405, "POST"),
        ("DELETE /", 405, "POST"),
        ("GET /nothing", 404, None),
        ("GET /system/load", 404, None),
        ("POST /system/load_average", 404, None),
        ("OPTIONS /healthz", 405, "GET, HEAD"),
        ("GET /healthz", 200, None),
        ("POST /system", 400, None),
        ("POST /nothing", 400, None),
    ],
)
def test_paths_and_verbs(shared_agent: RunningAgent, request_line: str, status: int, allow: str | None) -> None:
    answer = ask(shared_agent.port, f"{request_line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
    assert answer.status == status and answer.headers.get("allow") == allow
    if status == 400:
        assert answer.body.strip() == b"Signature doesn't match"
    if request_line == "GET /healthz":
        assert answer.body.strip() == b"ok" and "server" not in answer.headers


def test_slashes_and_aliases_of_a_namespace(shared_agent: RunningAgent) -> None:
    for path in ("/system/", "/sysinfo", "/system?x=1", f"http://127.0.0.1:{shared_agent.port}/system"):
        assert "result" in ask(shared_agent.port, founding(shared_agent, 1, path)).opened(key_of(shared_agent))
    answer = ask(shared_agent.port, founding(shared_agent, 1, "/System")).opened(key_of(shared_agent))
    assert answer["error"]["code"] == -32099


SMUGGLED = {
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "the same length twice": b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "length and chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "an unknown coding": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a coding with a blank": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a signed length": b"Content-Length: +5\r\n\r\nhello",
    "a length in hex": b"Content-Length: 0x5\r\n\r\nhello",
    "a huge length": b"Content-Length: 99999999999999999999999\r\n\r\n",
    "a folded header": b"X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "a NUL in a header": b"X-A: b\0c\r\nContent-Length: 0\r\n\r\n",
    "a header without a name": b": x\r\nContent-Length: 0\r\n\r\n",
    "an upgrade": b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello",
    "a negative chunk": b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
}


@pytest.mark.parametrize("rest", SMUGGLED.values(), ids=SMUGGLED)
def test_what_two_readers_could_read_differently_is_refused(shared_agent: RunningAgent, rest: bytes) -> None:
    with Connection(shared_agent.port) as connection:
        answer = connection.ask(b"POST /system HTTP/1.1\r\nHost: x\r\n" + rest)
        assert (answer.status in (400, 413) and b"doesn't match" in answer.body) or answer.status == 413


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0" * 50]
)
def test_garbage_is_refused_and_the_connection_ended(shared_agent: RunningAgent, data: bytes) -> None:
    with Connection(shared_agent.port) as connection:
        assert connection.ask(data).status == 400
        assert connection.closed()


@pytest.mark.parametrize(
    "data",
    [
        b"GET /healthz HTTP/1.1\r\nX-Long: " + b"a" * 17000,
        b"GET /healthz HTTP/1.1\r\n" + b"".join(b"X-%d: %b\r\n" % (n, b"a" * 100) for n in range(200)),
        b"GET /" + b"a" * 17000,
    ],
    ids=["one header", "many headers", "the target"],
)
def test_a_head_over_16_kib_is_refused(shared_agent: RunningAgent, data: bytes) -> None:
    with Connection(shared_agent.port) as connection:
        assert connection.ask(data).status == 431
        assert connection.closed()


def test_slow_clients_are_told_so(make_trial_agent: Callable[[str], RunningAgent]) -> None:
    settings = '[api]\nhead_timeout = "2 s"\nbody_timeout = "2 s"\nidle_timeout = "2 s"'
    agent = make_trial_agent(settings).start()
    with (
        Connection(agent.port).send(b"GET /healthz HTTP/1.1\r\n\r\n") as idle,
        Connection(agent.port).send(b"POST /system HTTP/1.1\r\n") as slow_head,
        Connection(agent.port).send(b"POST /system HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc") as slow_body,
        Connection(agent.port) as silent,
    ):
        assert idle.receive().status == 200
        assert slow_head.receive().status == 408
        assert slow_body.receive().status == 408
        assert silent.closed() and idle.closed()


def test_when_all_connections_are_taken_strangers_make_room(make_trial_agent: Callable[[str], RunningAgent]) -> None:
    agent = make_trial_agent("[api]\nconnections = 10").start()
    key = key_of(agent)
    known = [Connection(agent.port, f"127.0.0.{2 + number % 2}") for number in range(6)]
    for number, connection in enumerate(known):
        assert connection.ask(sealed_request(key, "/system", {**LOAD, "id": number})).opened(key)["id"] == number
    # Connections are taken in the order in which they came about: the kernel's queue is one.
    strangers = [Connection(agent.port, "127.0.0.4") for _ in range(4)]
    newcomer = Connection(agent.port, "127.0.0.5")
    assert newcomer.ask(sealed_request(key, "/system", LOAD)).opened(key)["id"] == 1
    assert strangers[0].closed(), "the oldest stranger made room"
    for number, connection in enumerate(known):
        assert connection.ask(sealed_request(key, "/system", {**LOAD, "id": number})).status == 200
    for connection in [*known, *strangers, newcomer]:
        connection.socket.close()


def test_one_address_holds_at_most_half_of_the_connections(make_trial_agent: Callable[[str], RunningAgent]) -> None:
    agent = make_trial_agent("[api]\nconnections = 10").start()
    greedy = [Connection(agent.port, "127.0.0.2") for _ in range(8)]
    assert [connection.closed() for connection in greedy[:3]] == [True, True, True]
    for connection in greedy[3:]:
        assert connection.ask(b"GET /healthz HTTP/1.1\r\n\r\n").status == 200
    for connection in greedy:
        connection.socket.close()


def test_bodies_in_memory_are_bounded(make_trial_agent: Callable[[str], RunningAgent]) -> None:
    agent = make_trial_agent('[api]\nmax_body = "1 MiB"\nbodies_in_memory = "2 MiB"').start()
    head = b"POST /system HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n"
    with (
        Connection(agent.port) as first,
        Connection(agent.port, "127.0.0.3") as second,
        Connection(agent.port, "127.0.0.4") as third,
    ):
        first.send(head + b"a" * 999_999)
        second.send(head + b"a" * 999_999)
        assert wait_until(agent.has_read_everything, 60)
        answer = third.ask(head + b"a" * 200_000)
        assert answer.status == 503 and answer.headers["retry-after"] == "1"
        first.socket.close()
        second.socket.close()
        assert wait_until(lambda: ask(agent.port, founding(agent, 1)).status == 200, 60)


def test_a_full_queue_answers_503_and_quick_calls_are_not_held_up(
    make_trial_agent: Callable[[str], RunningAgent],
) -> None:
    agent = make_trial_agent("[api]\nqueue = 2").start()
    key = key_of(agent)
    waiting = [Connection(agent.port) for _ in range(2)]
    for connection in waiting:
        connection.send(sealed_request(key, "/trial", {"method": "hold", "params": {"gate": "a"}, "id": 1}))
    agent.waiting_at("a", 2)
    answer = ask(agent.port, sealed_request(key, "/trial", {"method": "sleep", "params": {"seconds": 0}, "id": 1}))
    assert answer.status == 503 and int(answer.headers["retry-after"]) >= 1
    agent.open_gate("a")
    for connection in waiting:
        assert connection.receive().opened(key)["result"] is True
        connection.socket.close()


def test_a_stopping_agent_finishes_what_runs(make_trial_agent: Callable[[str], RunningAgent]) -> None:
    agent = make_trial_agent("").start()
    key = key_of(agent)
    with Connection(agent.port) as busy, Connection(agent.port) as kept:
        busy.send(sealed_request(key, "/trial", {"method": "hold", "params": {"gate": "a"}, "id": 1}))
        agent.waiting_at("a", 1)
        assert kept.ask(b"GET /healthz HTTP/1.1\r\n\r\n").status == 200
        assert agent.process is not None
        agent.process.terminate()
        assert wait_until(lambda: kept.ask(b"GET /healthz HTTP/1.1\r\n\r\n").status == 503, 30)
        refused = kept.ask(sealed_request(key, "/system", LOAD))
        assert refused.status == 503 and "retry-after" in refused.headers
        with pytest.raises(ConnectionRefusedError):
            Connection(agent.port)
        agent.open_gate("a")
        assert busy.receive().opened(key)["result"] is True
    assert agent.stop() == 0


def test_a_slow_reader_costs_nobody_else_anything(make_trial_agent: Callable[[str], RunningAgent]) -> None:
    agent = make_trial_agent("").start()
    key = key_of(agent)
    with Connection(agent.port) as slow:
        slow.send(sealed_request(key, "/trial", {"method": "big", "params": {"size": 8 << 20}, "id": 1}))
        for number in range(20):
            assert ask(agent.port, founding(agent, number)).status == 200
        assert len(slow.receive().opened(key)["result"]) == 8 << 20


def test_a_client_that_leaves_in_the_middle_harms_nobody(shared_agent: RunningAgent) -> None:
    for end in (5, 50, -20, -1):
        with Connection(shared_agent.port) as connection:
            connection.send(founding(shared_agent, 1)[:end])
    with Connection(shared_agent.port) as connection:
        connection.send(founding(shared_agent, 77))
    assert ask(shared_agent.port, founding(shared_agent, 2)).status == 200


def test_large_messages_hold_nobody_up(shared_agent: RunningAgent) -> None:
    """8 MiB, valid and forged, in both envelopes, while somebody else makes small calls.

    What is promised is 100 ms. Whatever else a machine does can only make it longer: the best of some rounds counts.
    """
    slowest = [beside_large_messages(shared_agent)]
    while min(slowest) >= 1 and len(slowest) < 5:
        slowest.append(beside_large_messages(shared_agent))
    assert min(slowest) < 1, f"small calls took {slowest} s at most beside large ones"


def beside_large_messages(agent: RunningAgent) -> float:
    """Send large messages, and small ones meanwhile; gives the seconds that the slowest small one took."""
    key = key_of(agent)
    # Each round's are unlike those before: what was seen already is refused.
    place = (b"a" * 5_900_000) + os.urandom(8).hex().encode()
    text = b'{"method": "statvfs", "id": 1, "params": {"mpoints": ["%b"]}}' % place
    valid = founding_request(key, "/system", text)
    forged = http_post("/system", b"A" * 8_000_000, {"X-Signature": "A" * 27 + "=", "Date": "x"})
    sealed = http_post("/system", sealed_message(key, "/system", text), {"Content-Type": "application/jose"})
    answers: list[int] = []

    def send_large() -> None:
        for data in (forged, valid, sealed, forged):
            answers.append(ask(agent.port, data).status)

    sender = threading.Thread(target=send_large)
    slowest = 0.0
    with Connection(agent.port) as connection:
        sender.start()
        number = 0
        while sender.is_alive():
            number += 1
            request = founding(agent, number)
            started = time.perf_counter()
            assert connection.ask(request).status == 200
            slowest = max(slowest, time.perf_counter() - started)
    sender.join()
    assert answers == [400, 200, 200, 400]
    return slowest
