"""The processes behind an operation or a change, found by their command lines."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from scalarizr.client import Operation


def processes_with(*words: str) -> Iterator[int]:
    """Give the processes whose command lines have all of these words."""
    wanted = {word.encode() for word in words}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted <= set((entry / "cmdline").read_bytes().split(b"\0")):
                    yield int(entry.name)


def worker_of(operation: Operation | str, *task: str) -> int | None:
    """Give the worker of an operation; None where there is none.

    :param task: `do` or `undo`; either where it is left out.
    """
    identity = operation if isinstance(operation, str) else operation.id
    return next(processes_with("scalarizr.worker", identity, *task), None)


def worker_pid(operation: Operation | str) -> int:
    """Give the worker of an operation, which has one."""
    found = worker_of(operation)
    assert found is not None, "there is no worker"
    return found


def kill_worker(operation: Operation) -> bool:
    """Kill the worker that does an operation; False where there is none any more."""
    found = worker_of(operation, "do")
    if found is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(found, signal.SIGKILL)
        return True
    return False
