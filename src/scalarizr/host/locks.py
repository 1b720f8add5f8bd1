"""Locks that hold across threads and processes, and vanish with their holder: flock(2) on files of their own."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from scalarizr.errors import Busy


def try_lock(path: Path) -> int | None:
    """Take the lock file at once.

    :return: the descriptor that holds it (closing it lets go; a child that inherits it holds it too), or None where
        somebody else has it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


# Of the call that runs in this context: no other one sees them.
_inherited: ContextVar[tuple[int, ...]] = ContextVar("inherited_locks", default=())


def inherited_locks() -> tuple[int, ...]:
    """Give the descriptors of the locks that programs started now hold with their caller."""
    return _inherited.get()


@contextlib.contextmanager
def locked(path: Path, *, what: str, timeout: float = 30.0, inherited: bool = False) -> Iterator[int]:
    """Hold the lock file while the block runs; gives the descriptor that holds it. Blocks its thread: never called on
    the event loop.

    :param what: the resource, for the message.
    :param timeout: seconds to wait at most.
    :param inherited: programs that are run meanwhile hold it too: where this process is killed, whoever takes the lock
        next finds them ended. Not for what starts a daemon.
    :raises Busy: it was not let go in time.
    """
    deadline = time.monotonic() + timeout
    pause = 0.005
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() >= deadline:
            raise Busy(
                f"Another command is at work on {what} and did not end within {timeout:.0f} s. "
                "Nothing was changed; try again later.",
                {"resource": what},
            )
        time.sleep(pause)
        pause = min(pause * 2, 0.1)
    token = _inherited.set((*_inherited.get(), descriptor)) if inherited else None
    try:
        yield descriptor
    finally:
        if token is not None:
            _inherited.reset(token)
        os.close(descriptor)
