"""What a person sees of long work on a volume: each step by its name, and how long it has been waited for."""

import time
from collections.abc import Callable
from typing import TypeVar

from scalarizr.errors import TimedOut
from scalarizr.operations.progress import current

T = TypeVar("T")


def step(words: str) -> None:
    """Tell, and log, what is done now."""
    running = current()
    running.log(words)
    running.progress(0, None, "", words)
    running.flush()


def wait_until(
    look: Callable[[], T | None], words: str, *, limit: float, pause: float = 0.2, longest_pause: float = 5.0
) -> T:
    """Look again and again until there is something, telling how long it has taken.

    :param look: gives None as long as it is not so.
    :param words: what is waited for, such as "attaching vol-1".
    :param limit: seconds at most.
    :param pause: seconds between the first looks; it grows up to `longest_pause`.
    :raises TimedOut: it did not come.
    """
    started = time.monotonic()
    while (found := look()) is None:
        waited = time.monotonic() - started
        if waited >= limit:
            raise TimedOut(f"{words[:1].upper()}{words[1:]} did not end within {limit:.0f} s.", {"limit": float(limit)})
        current().progress(waited, None, "s", f"{words} … {waited:.0f} s")
        time.sleep(min(pause, max(limit - waited, 0.01)))
        pause = min(pause * 1.5, longest_pause)
    return found
