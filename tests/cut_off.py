"""Cutting the main thread off, as a cancellation does: by an exception of a signal's handler, wherever the code is."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class CutOff(BaseException):
    """What is raised."""


@contextmanager
def can_be_cut_off() -> Iterator[None]:
    """Have the signal raise while the block runs."""

    def cut_off(number: int, frame: object) -> None:
        raise CutOff

    before = signal.signal(signal.SIGUSR2, cut_off)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, before)


def cut_the_main_thread_off() -> None:
    """Raise it in the main thread; it may be called by any."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)
