"""A listening socket that is calm where the process has no descriptor, or the kernel no memory, for a connection.

asyncio stops listening for a second then, but until Python 3.12 it goes on asking for as many connections as the socket
may queue, and reports each failure: a thousand tracebacks a second, and time for nothing else.
"""

import errno
import logging
import socket
import time
from typing import Any

_LACK = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# Seconds: asyncio tries again after one.
_PAUSE = 0.5
_SAID_EVERY = 60.0


class LackOfResources(OSError):
    """No connection can be taken now; it was said in the log already."""


class ListeningSocket(socket.socket):
    """Takes the place of a socket that listens.

    :param listening: the socket; this one has its descriptor from now on.
    :param log: the agent's log.
    """

    def __init__(self, listening: socket.socket, log: logging.Logger) -> None:
        super().__init__(fileno=listening.detach())
        self._log = log
        self._not_before = 0.0
        self._said = float("-inf")

    def accept(self) -> tuple[socket.socket, Any]:
        """Take a connection.

        :raises BlockingIOError: nobody waits, or it was tried in vain just now.
        :raises LackOfResources: what it takes is not there.
        """
        now = time.monotonic()
        if now < self._not_before:
            raise BlockingIOError
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in _LACK:
                raise
            self._not_before = now + _PAUSE
            if now - self._said >= _SAID_EVERY:
                self._said = now
                self._log.error(
                    "no more connections can be taken: %s; those that come wait until there is room", error.strerror
                )
            raise LackOfResources(error.errno, error.strerror) from None
