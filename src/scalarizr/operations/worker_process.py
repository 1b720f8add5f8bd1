"""Starting the process that works on an operation, or undoes what one left."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

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
    process = None
    try:
        with open(error_file, "wb", opener=_private) as errors, _in_memory(msgspec.json.encode(job)) as told:
            process = subprocess.Popen(
                [*command, identity, str(lock), str(store), task],
                stdin=told,
                stdout=errors,
                stderr=errors,
                pass_fds=[lock],
                start_new_session=True,
                cwd="/",
            )
        pidfd = os.pidfd_open(process.pid)
    except OSError as error:
        if process is not None:
            # It cannot be watched: it is ended before it has told anybody that it began, or dies having begun.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        raise OutsideFailure(f"A worker cannot be started: {error.strerror}. Nothing was done.") from error
    finally:
        os.close(lock)
    return WorkerProcess(identity, task, process.pid, pidfd, process, job)


def how_it_ended(process: "subprocess.Popen[bytes] | None") -> str:
    """Say what became of a worker that did not record its end.

    :param process: None where it was not this agent's child.
    """
    status = None if process is None else process.returncode
    if status is None or status >= 0:
        return "died"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    return f"was killed by {name}" + (", as the kernel does where memory runs out" if name == "SIGKILL" else "")


def _in_memory(data: bytes) -> BinaryIO:
    """Make a file of memory alone: unlike a pipe it takes all at once, also where its reader is stopped."""
    with contextlib.ExitStack() as undoing:
        file = undoing.enter_context(open(os.memfd_create("job"), "w+b"))
        file.write(data)
        file.seek(0)
        undoing.pop_all()
    return file


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
