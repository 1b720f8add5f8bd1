"""Who listens on which TCP port of this host, from /proc/net/tcp and /proc/net/tcp6 (proc(5))."""

import contextlib
import os
import socket
import struct
from pathlib import Path

import msgspec

from scalarizr.host.processes import program_of

_LISTEN, _HALF_OPEN = "0A", "03"


class ListeningSocket(msgspec.Struct, frozen=True):
    """One listening TCP socket.

    :param address: where; `0.0.0.0` and `::` are all of a family.
    :param port: its port.
    :param inode: its number, by which its owners hold it.
    """

    address: str
    port: int
    inode: str


def listening_sockets() -> list[ListeningSocket]:
    """Give all listening TCP sockets of this network namespace."""
    found = []
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with contextlib.suppress(OSError), open(f"/proc/net/{name}") as table:
            next(table, None)
            for line in table:
                columns = line.split()
                if columns[3] == _LISTEN:
                    address, _, port = columns[1].partition(":")
                    found.append(ListeningSocket(_address(address, family), int(port, 16), columns[9]))
                elif columns[3] != _HALF_OPEN:
                    # The kernel begins with those that listen, before Linux 4.4 also with what comes to them
                    # (tcp_ipv4.c, tcp_seq_next). Behind them are tens of thousands on a busy server.
                    break
    return found


def sockets_of(pid: int) -> set[str]:
    """Give the inodes of the sockets that a process holds."""
    inodes = set()
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(entry.path)
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    return inodes


def holder_of(inode: str) -> str:
    """Give the name and process id of whoever holds a socket, for a message."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and inode in sockets_of(int(entry.name)):
            return f"{program_of(int(entry.name))}, process {entry.name}"
    return "a program that cannot be seen from here"


def answers(address: str, port: int, timeout: float = 1.0) -> bool:
    """Tell whether a connection to a listening socket comes about."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout):
        return True
    return False


def _address(text: str, family: int) -> str:
    # Words of 32 bits in the machine's own byte order.
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    return socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))
