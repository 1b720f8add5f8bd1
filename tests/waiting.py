"""Waiting for what another process does: however long it takes within a generous limit."""

import time
from collections.abc import Callable
from typing import Any


def wait_for(condition: Callable[[], Any], what: str = "it", seconds: float = 90) -> Any:
    """Wait until a condition gives something true; gives that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen within {seconds:g} s")
