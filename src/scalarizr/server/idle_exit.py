"""Leaving where there is nothing to do: whoever holds the sockets starts an agent again at the next connection."""

import asyncio
from collections.abc import Callable

# How often it is looked within the time that has to be quiet: the agent leaves at most a quarter of it late.
_LOOKS = 4


class IdleExit:
    """Watches whether there is anything to do.

    :param busy: tells whether there is something to do, or somebody connected, at this moment.
    :param seen: counts whatever came, so that what came and went between two looks is noticed.
    :param leave: called when it was quiet long enough; gives whether the agent leaves. Else it stays as long again.
    """

    def __init__(self, busy: Callable[[], bool], seen: Callable[[], int], leave: Callable[[], bool]) -> None:
        self._busy = busy
        self._seen = seen
        self._leave = leave
        self._timer: asyncio.TimerHandle | None = None
        self._quiet_since = 0.0
        self._seen_last = 0

    def apply(self, after: float | None) -> None:
        """Watch from now on.

        :param after: seconds without anything to do after which it is left; None: never.
        """
        self.stop()
        if after is not None:
            loop = asyncio.get_running_loop()
            self._quiet_since = loop.time()
            self._timer = loop.call_later(after / _LOOKS, self._look, after)

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, after: float) -> None:
        loop = asyncio.get_running_loop()
        seen = self._seen()
        if seen != self._seen_last or self._busy():
            self._seen_last = seen
            self._quiet_since = loop.time()
        left = self._quiet_since + after - loop.time()
        self._timer = None
        if left <= 0 and self._leave():
            return
        if left <= 0:
            self._quiet_since, left = loop.time(), after
        self._timer = loop.call_later(min(left, after / _LOOKS), self._look, after)
