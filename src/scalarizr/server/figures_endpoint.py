"""`GET /metrics`: the page of the figures, on a listener of its own that only this host reaches."""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Sequence

from scalarizr.metrics.page import CONTENT_TYPE
from scalarizr.server.message import Answer, Request, plain_answer
from scalarizr.settings.address import read_address


class FiguresEndpoint:
    """Answers whoever asks for the figures.

    :param page: makes the page; what it reads may wait for a disk.
    """

    def __init__(self, page: Callable[[], Awaitable[bytes]]) -> None:
        self._page = page

    def handle(self, request: Request) -> Answer | Awaitable[Answer]:
        """Answer a request."""
        if request.target.partition("?")[0] != "/metrics":
            return plain_answer(404, "Not found")
        if request.method not in ("GET", "HEAD"):
            return plain_answer(405, "Method not allowed", ("Allow", "GET, HEAD"))
        return self._answer()

    async def _answer(self) -> Answer:
        try:
            async with asyncio.timeout(10):
                page = await self._page()
        except TimeoutError:
            return plain_answer(503, "The figures could not be read in time", ("Retry-After", "10"))
        return Answer(200, (("Content-Type", CONTENT_TYPE),), page, authenticated=True)


def not_of_this_host(addresses: Sequence[str]) -> list[str]:
    """Give those of the addresses that others could reach: the figures are for this host alone.

    :raises BadAddress: one is not HOST:PORT.
    """
    return [address for address in addresses if not _is_loopback(read_address(address)[0])]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name could come to mean anything
