"""Killing this very program just before its N-th call that changes the file system, whichever thread makes it."""

import os
import signal
import threading
from collections.abc import Callable
from typing import Any


class Steps:
    """The calls of `os` that are counted.

    :param limit: the step before which this program kills itself.
    :ivar armed: whether calls are counted now.
    :ivar count: how many there were.
    """

    def __init__(self, limit: int, *, armed: bool = True) -> None:
        self.limit = limit
        self.armed = armed
        self.count = 0
        self._counting = threading.Lock()

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if self.armed:
                with self._counting:
                    self.count += 1
                    if self.count == self.limit:
                        os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    def count_calls_of(self, *names: str) -> None:
        """Count the calls of these functions of `os` from now on."""
        for name in names:
            setattr(os, name, self.counted(getattr(os, name)))


WHATEVER_CHANGES_FILES = ("rename", "fsync", "unlink", "mkdir", "fchmod", "rmdir", "ftruncate", "symlink", "link")
