"""Mutated and random bytes on the wire: each gets an answer or a closed connection, and the agent stays well."""

import os
import random
import socket

from running_agent import RunningAgent
from scalarizr.envelope.key import ServerKey
from scalarizr.host.processes import wait_until
from wire import founding_request, sealed_request

PIECES = [
    b"\r\n",
    b"\n",
    b"\0",
    b":",
    b" ",
    b"Content-Length: 99999999999\r\n",
    b"Content-Length: -1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: upgrade\r\nUpgrade: x\r\n",
    b"X-Signature: \xff\xfe\r\n",
    b"Date: \xd0\xb0\r\n",
    b"HTTP/9.9",
    b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    b"\xff" * 40,
    b"a" * 5000,
]


def mutated(rng: random.Random, data: bytes) -> bytes:
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(data) + 1)
        how = rng.randrange(4)
        if how == 0:
            data = data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
        elif how == 1:
            data = data[:place] + rng.choice(PIECES) + data[place:]
        elif how == 2:
            data = data[:place] + data[place + rng.randrange(1, 30) :]
        else:
            data = data[:place] + data[:place]
    return data


def test_no_bytes_make_the_agent_stumble(agent: RunningAgent) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed={seed}")
    rng = random.Random(seed)
    key = ServerKey.from_file(agent.key_file)
    for number in range(1500):
        text = {"method": "load_average", "params": {}, "id": number, "extra": os.urandom(4).hex()}
        make = rng.choice([founding_request, sealed_request])
        data = mutated(rng, make(key, rng.choice(["/system", "/", "/x"]), text))
        with socket.create_connection(("127.0.0.1", agent.port), 60) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    continue
            except (ConnectionResetError, BrokenPipeError):
                continue
    with agent.client() as client:
        assert len(client.system.load_average()) == 3
    log = agent.log_text()
    assert "Traceback" not in log and "internal error" not in log and "event loop" not in log
    assert wait_until(lambda: len(os.listdir(f"/proc/{agent.pid()}/fd")) < 40, 60), "connections are let go"


def test_signed_garbage_is_answered_by_name(agent: RunningAgent) -> None:
    """Whoever has the key may still send anything as JSON."""
    seed = random.randrange(1 << 32)
    print(f"seed={seed}")
    rng = random.Random(seed)
    key = ServerKey.from_file(agent.key_file)
    base = b'{"jsonrpc": "2.0", "method": "statvfs", "params": {"mpoints": ["/", "x"]}, "id": 7}'
    for number in range(1500):
        text = mutated(rng, base) if number % 5 else os.urandom(rng.randrange(60))
        make = rng.choice([founding_request, sealed_request])
        with socket.create_connection(("127.0.0.1", agent.port), 60) as connection:
            connection.sendall(make(key, rng.choice(["/system", "/"]), text + b" " * (number % 50)))
            head = connection.recv(65536)
        assert head.split()[1] in (b"200", b"204") or b"seen before" in head, (text, head)
    log = agent.log_text()
    assert "Traceback" not in log and "internal error" not in log
