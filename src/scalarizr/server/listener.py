"""Listening, sweeping out what is overdue, and stopping without cutting anybody off."""

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import Sequence

from scalarizr.server.connection import Connection, Handler
from scalarizr.server.limits import Limits
from scalarizr.settings.address import read_address
from scalarizr.settings.model import Api

_SWEEP = 1.0


def bind(addresses: Sequence[str]) -> list[socket.socket]:
    """Open the listening sockets.

    :raises BadAddress: one is not HOST:PORT.
    :raises OSError: one cannot be had; its text names the address.
    """
    sockets: list[socket.socket] = []
    try:
        for address in addresses:
            host, port = read_address(address)
            try:
                family, kind, protocol, _, place = socket.getaddrinfo(
                    host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
                )[0]
                listening = socket.socket(family, kind, protocol)
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


class Listener:
    """Accepts connections and looks after them.

    :param settings: the limits.
    :param handle: answers the requests.
    :param log: the agent's log.
    """

    def __init__(self, settings: Api, handle: Handler, log: logging.Logger) -> None:
        self._limits = Limits(settings)
        self._handle = handle
        self._log = log
        self._servers: list[asyncio.Server] = []
        self._sweep: asyncio.TimerHandle | None = None
        raise_descriptor_limit(settings.connections + 256)

    def apply(self, settings: Api) -> None:
        """Put changed limits in force, for connections that exist, too."""
        self._limits.settings = settings

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Accept on sockets that `bind` opened."""
        loop = asyncio.get_running_loop()
        for listening in sockets:
            self._servers.append(await loop.create_server(self._connect, sock=listening, backlog=1024))

    def _connect(self) -> Connection:
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_SWEEP, self._sweep_out)
        return Connection(self._limits, self._handle)

    def _sweep_out(self) -> None:
        # The timer runs only while there are connections: an idle agent is not woken.
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in [one for one in self._limits.connections if one.deadline <= now]:
            connection.expire()
        self._sweep = loop.call_later(_SWEEP, self._sweep_out) if self._limits.connections else None

    async def stop(self, grace: float = 30.0) -> None:
        """Stop accepting, let what runs end, close everything.

        :param grace: seconds after which what still runs is cut off.
        """
        for server in self._servers:
            server.close()
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


def raise_descriptor_limit(needed: int) -> None:
    """Raise the soft limit of open files to what the connections may need, as far as the hard one allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
