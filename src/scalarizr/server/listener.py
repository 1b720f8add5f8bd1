"""Listening, sweeping out what is overdue, and stopping without cutting anybody off."""

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import Callable, Sequence
from typing import Any

from scalarizr.server.activation import PassedSockets
from scalarizr.server.connection import Connection, Handler
from scalarizr.server.limits import Limits
from scalarizr.server.listening_socket import ListeningSocket
from scalarizr.settings.address import read_address
from scalarizr.settings.model import Api

_SWEEP = 1.0
# Seconds that a kept connection has for one more request, where the agent stops and answers until its end.
_LAST_TURN = 1.0


def bind(addresses: Sequence[str], passed: PassedSockets | None = None) -> list[socket.socket]:
    """Open the listening sockets.

    :param passed: sockets that listen already: those are taken which listen on just one of the addresses.
    :raises BadAddress: one is not HOST:PORT.
    :raises OSError: one cannot be had; its text names the address.
    """
    sockets: list[socket.socket] = []
    try:
        for address in addresses:
            try:
                family, place = _place_of(address)
                given = passed.take(address, family, place) if passed is not None else None
                if given is not None:
                    sockets.append(given)
                    continue
                listening = socket.socket(family, socket.SOCK_STREAM)
                sockets.append(listening)
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listening.setblocking(False)
                listening.bind(place)
                listening.listen(1024)
            except OSError as error:
                raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from error
    except BaseException:
        for listening in sockets:
            listening.close()
        raise
    return sockets


def close_unnamed(passed: PassedSockets, addresses: Sequence[str]) -> str | None:
    """Close those of the sockets that were passed which listen on none of the addresses.

    :return: which they were; None where all are named.
    """
    places = []
    for address in addresses:
        with contextlib.suppress(OSError, ValueError):  # `bind` says what is wrong with it
            places.append(_place_of(address))
    return passed.close_all_but(places)


def _place_of(address: str) -> tuple[int, tuple[Any, ...]]:
    host, port = read_address(address)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return found[0], found[4]


class Listener:
    """Accepts connections and looks after them.

    :param settings: the limits.
    :param handle: answers the requests.
    :param log: the agent's log.
    :ivar accepted: connections until now.
    """

    def __init__(self, settings: Api, handle: Handler, log: logging.Logger) -> None:
        self._limits = Limits(settings)
        self._handle = handle
        self._log = log
        self._servers: list[asyncio.Server] = []
        self._sweep: asyncio.TimerHandle | None = None
        self.accepted = 0
        raise_descriptor_limit(settings.connections + 256)

    def apply(self, settings: Api) -> None:
        """Put changed limits in force, for connections that exist, too."""
        self._limits.settings = settings

    async def listen(
        self, sockets: Sequence[socket.socket], over: Callable[[Connection], asyncio.BaseProtocol] | None = None
    ) -> None:
        """Accept on sockets that `bind` opened.

        :param over: puts something between a socket and its connection, such as TLS; the limits hold for all together.
        """
        loop = asyncio.get_running_loop()
        accept = self._connect if over is None else lambda: over(self._connect())
        for listening in sockets:
            calm = ListeningSocket(listening, self._log)
            self._servers.append(await loop.create_server(accept, sock=calm, backlog=1024))

    @property
    def connected(self) -> int:
        """How many connections there are."""
        return len(self._limits.connections)

    def _connect(self) -> Connection:
        self.accepted += 1
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_SWEEP, self._sweep_out)
        return Connection(self._limits, self._handle)

    def _sweep_out(self) -> None:
        # The timer runs only while there are connections: an idle agent is not woken.
        self._expire_overdue()
        loop = asyncio.get_running_loop()
        self._sweep = loop.call_later(_SWEEP, self._sweep_out) if self._limits.connections else None

    def _expire_overdue(self) -> None:
        for connection in [one for one in self._limits.connections if one.overdue]:
            connection.expire()

    async def stop(self, grace: float = 30.0, *, answering: bool = False) -> None:
        """Stop accepting, let what runs end, close everything.

        :param grace: seconds after which what still runs is cut off.
        :param answering: whoever is connected may make one more request: a client that connected just now, and has not
            asked yet, does not lose its connection. Without, who asks is told 503.
        """
        await self._stop_accepting()
        if answering:
            await self._give_last_turns(grace)
        # Kept connections stay while something runs: who asks on them is told 503, not cut off.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while any(connection.busy for connection in self._limits.connections):
                    await asyncio.sleep(0.02)
        await asyncio.sleep(0)
        for connection in list(self._limits.connections):
            connection.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while self._limits.connections:
                    await asyncio.sleep(0.02)
        for connection in list(self._limits.connections):
            connection.abort()
        if self._sweep is not None:
            self._sweep.cancel()

    async def _stop_accepting(self) -> None:
        loop = asyncio.get_running_loop()
        for server in self._servers:
            for listening in server.sockets:
                loop.remove_reader(listening.fileno())
        # What was accepted at this very moment becomes a connection before its server is closed, which asyncio would
        # drop without a word else; what was not stays with the socket.
        for _ in range(4):
            await asyncio.sleep(0)
        for server in self._servers:
            server.close()

    async def _give_last_turns(self, grace: float) -> None:
        for connection in list(self._limits.connections):
            connection.give_last_turn(_LAST_TURN)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while self._limits.connections:
                    await asyncio.sleep(0.02)
                    self._expire_overdue()


def raise_descriptor_limit(needed: int) -> None:
    """Raise the soft limit of open files to what the connections may need, as far as the hard one allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
