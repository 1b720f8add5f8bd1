"""Ports that are a test's own: no other test, worker, checkout or outgoing connection takes one in between.

They lie below those that the kernel gives outgoing connections (ip(7), ip_local_port_range). A process takes them a
block at a time; that a block is taken shows by a name in the abstract namespace of Unix sockets, which belongs to a
network as its ports do, and is free again when the process has ended, however it ended (unix(7)).
"""

import contextlib
import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path

LOWEST, BLOCK = 10_000, 500
# A socket belongs to the network in which it was made: these, to the one that the tests run in, wherever they are then.
_marks = [socket.socket(socket.AF_UNIX) for _ in range(8)]
_blocks: list[range] = []


def free_port() -> int:
    """Give a port on which nobody listens, and which nobody else is given as long as this process lives."""
    return next(port for port in _ports if is_free(port))


def is_free(port: int) -> bool:
    """Tell whether a server could listen on a port at every address, of either protocol."""
    for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        with contextlib.suppress(OSError), socket.socket(family) as probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((anywhere, port))
            except OSError:
                return False
    return True


def _ports_one_after_the_other() -> Iterator[int]:
    while True:
        block = _take_a_block()
        # Once more through what this process has given out, where there are no more blocks: most of it is free again.
        yield from block or itertools.chain(*_blocks)


def _take_a_block() -> range | None:
    begin = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    highest = begin if begin > LOWEST + 10 * BLOCK else 32_000
    starts = range(LOWEST, highest - BLOCK + 1, BLOCK)
    first = os.getpid() % len(starts)
    for start in (*starts[first:], *starts[:first]):
        with contextlib.suppress(OSError, IndexError):
            _marks[len(_blocks)].bind(f"\0scalarizr-tests-ports-{start}")
            _blocks.append(range(start, start + BLOCK))
            return _blocks[-1]
    assert _blocks, "other processes have taken all ports that are for tests"
    return None


_ports = _ports_one_after_the_other()
