"""Starting the process that works on an operation, or undoes what one left."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from scalarizr.errors import OutsideFailure
from scalarizr.host.locks import try_lock
from scalarizr.operations.record import Job

Task = Literal["do", "undo"]


class WorkerProcess(msgspec.Struct):
    """A process that is watched.

    :param identity: the operation.
    :param task: what it does there.
    :param pid: its process.
    :param pidfd: readable once it has ended.
    :param process: where this agent started it itself, and has to reap it.
    :param job: what it was told; empty for one that was found.
    :param attempts: how often leftovers were tried to be undone.
    """

    identity: str
    task: Task
    pid: int
    pidfd: int
    process: Any
    job: Job
    attempts: int = 0
    kill: asyncio.TimerHandle | None = None


def start_worker(
    command: Sequence[str], identity: str, task: Task, job: Job, store: Path, lock_file: Path, error_file: Path
) -> WorkerProcess:
    """Start a worker, which holds the operation's lock from its first instant to its end.

    :param command: its argument vector, to which what it works on is added.
    :param job: what it is told, on its standard input.
    :param store: the file of the records.
    :param error_file: takes what it says; made 0600.
    :raises OutsideFailure: it cannot be started.
    """
    try:
        lock = try_lock(lock_file)
    except OSError as error:
        raise OutsideFailure(f"{lock_file.parent}: {error.strerror}. Nothing was started.") from error
    if lock is None:
        raise OutsideFailure(f"The operation {identity} has a worker already.")
    try:
        with open(error_file, "wb", opener=_private) as errors:
            process = subprocess.Popen(
                [*command, identity, str(lock), str(store), task],
                stdin=subprocess.PIPE,
                stdout=errors,
                stderr=errors,
                pass_fds=[lock],
                start_new_session=True,
                cwd="/",
            )
    except OSError as error:
        raise OutsideFailure(f"A worker cannot be started: {error.strerror}. Nothing was done.") from error
    finally:
        os.close(lock)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(msgspec.json.encode(job))
    return WorkerProcess(identity, task, process.pid, os.pidfd_open(process.pid), process, job)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
