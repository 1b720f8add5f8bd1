"""Sockets that listened before the agent was there, handed over as systemd does it (sd_listen_fds(3)).

Whoever hands them over keeps them open. A connection that comes while no agent runs is not refused: it waits, and the
next agent answers it.
"""

import contextlib
import os
import socket
import stat
from collections.abc import MutableMapping, Sequence
from typing import Any

_FIRST = 3
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


class BadActivation(ValueError):
    """What was handed over cannot be used; the text says what it is, and what was expected."""


class PassedSockets:
    """The sockets that were handed over, until somebody takes them.

    :param sockets: each with the name that it was handed over by, which is its unit's where that says nothing else.
    :ivar opened_here: addresses that were asked for, and that nobody had handed over.
    """

    def __init__(self, sockets: Sequence[tuple[str, socket.socket]] = ()) -> None:
        self._left = list(sockets)
        self.some = bool(sockets)
        self.opened_here: list[str] = []

    def take(self, address: str, family: int, place: tuple[Any, ...]) -> socket.socket | None:
        """Give the socket that listens on just this place; None, and a note of it, where none does.

        :param address: as the settings have it.
        :param family: of the place.
        :param place: as getaddrinfo gives it.
        """
        for entry in self._left:
            if _listens_on(entry[1], family, place):
                self._left.remove(entry)
                return entry[1]
        self.opened_here.append(address)
        return None

    def close_all_but(self, places: Sequence[tuple[int, tuple[Any, ...]]]) -> str | None:
        """Close the sockets that listen on none of some places, for whoever holds them, too.

        Nobody is to reach the agent where the settings do not say so, nor wait for an answer where none comes.

        :param places: family and place of each.
        :return: which were closed; None where none was.
        """
        strays = [entry for entry in self._left if not any(_listens_on(entry[1], *place) for place in places)]
        for entry in strays:
            self._left.remove(entry)
        words = ", ".join(f"{_address_of(listening)} of {name}" for name, listening in strays)
        for _, listening in strays:
            # The socket is shared with whoever passed it: to close it here alone would change nothing.
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()
        self.some = self.some and bool(self._left)
        return words or None


def passed_sockets(environment: MutableMapping[str, str] = os.environ) -> PassedSockets:
    """Take the sockets that this process was started with, and what tells of them out of the environment.

    No program that is started from here on gets any of it.

    :raises BadActivation: one is no TCP socket that listens.
    """
    count, process, names = (environment.pop(f"LISTEN_{name}", "") for name in ("FDS", "PID", "FDNAMES"))
    if process != str(os.getpid()):
        return PassedSockets()  # they were meant for a process that this one descends from
    if not (count.isascii() and count.isdigit()) or int(count) > 1000:
        raise BadActivation(f"LISTEN_FDS is {count[:20]!r}, expected a number of sockets")
    named = names.split(":")
    sockets = []
    for number in range(int(count)):
        name = named[number] if number < len(named) and named[number] else "whoever started the agent"
        sockets.append((name, _opened(_FIRST + number, name)))
    return PassedSockets(sockets)


def _opened(descriptor: int, name: str) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            listening = socket.socket(fileno=descriptor)
            kind = listening.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
            listens = listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if listening.family in _FAMILIES and kind == socket.SOCK_STREAM and listens:
                listening.setblocking(False)
                return listening
            listening.detach()
    except OSError as error:
        raise BadActivation(f"descriptor {descriptor}, passed by {name}: {error.strerror}") from error
    raise BadActivation(
        f"descriptor {descriptor}, passed by {name}, is no TCP socket that listens; "
        "expected ListenStream= with HOST:PORT, and Accept=no"
    )


def _listens_on(listening: socket.socket, family: int, place: tuple[Any, ...]) -> bool:
    return (
        listening.family == family
        and not _takes_ipv4_too(listening)
        and _without_flow(listening.getsockname()) == _without_flow(place)
    )


def _takes_ipv4_too(listening: socket.socket) -> bool:
    return (
        listening.family == socket.AF_INET6
        and listening.getsockname()[0] == "::"
        and not listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    )


def _without_flow(place: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*place[:2], *place[3:])


def _address_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    if _takes_ipv4_too(listening):
        return f"[{host}]:{port} with IPv4 (BindIPv6Only=ipv6-only makes it IPv6 alone)"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
