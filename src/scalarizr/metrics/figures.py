"""What the agent counts while it works: plain numbers, cheap enough to be counted whether or not somebody looks."""

from bisect import bisect_left
from collections.abc import Hashable
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

# Seconds; the last bucket has no end.
LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Durations:
    """How long something took.

    :ivar buckets: how many took at most `LATENCIES[i]` and longer than the one before; the last: longer than all.
    :ivar seconds: all of them together.
    """

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(LATENCIES) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.buckets[bisect_left(LATENCIES, seconds)] += 1
        self.seconds += seconds


class Figures:
    """Everything that is counted.

    Names that come from outside are counted only where they are known ones: whoever calls methods that there are not
    adds to one number, not to the memory.

    :ivar calls: method → how long its calls took.
    :ivar errors: (method, code) → how many calls ended so.
    :ivar refusals: reason → how many messages were refused before a call was made of them.
    :ivar handshakes: reason → how many handshakes of TLS were refused.
    :ivar operations: (method, status) → how many operations ended so.
    """

    UNKNOWN = "unknown"

    def __init__(self) -> None:
        self.calls: dict[str, Durations] = {}
        self.errors: dict[tuple[str, int], int] = {}
        self.refusals: dict[str, int] = {}
        self.handshakes: dict[str, int] = {}
        self.operations: dict[tuple[str, str], int] = {}

    def count_call(self, method: str, seconds: float, error: int | None = None) -> None:
        """Count a call that ended.

        :param method: a known method's whole name, or `Figures.UNKNOWN`.
        :param error: its error's code.
        """
        durations = self.calls.get(method)
        if durations is None:
            durations = self.calls[method] = Durations()
        durations.add(seconds)
        if error is not None:
            _count(self.errors, (method, error))

    def count_refusal(self, reason: str) -> None:
        """Count a message that was refused: `signature`, `date`, `replay`, …"""
        _count(self.refusals, reason)

    def count_handshake(self, reason: str) -> None:
        """Count a handshake of TLS that was refused: `version`, `certificate`, `timeout`, …"""
        _count(self.handshakes, reason)

    def count_operation(self, method: str, status: str) -> None:
        """Count an operation that ended as `completed`, `failed` or `canceled`."""
        _count(self.operations, (method, status))


def _count(counts: dict[Key, int], key: Key) -> None:
    counts[key] = counts.get(key, 0) + 1
