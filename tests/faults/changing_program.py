"""A program that makes one change and dies at its N-th step: `changing_program.py DIRECTORY N KIND`.

A step is a call that changes the file system; the program kills itself just before it makes the N-th.
"""

import logging
import os
import signal
import sys
import threading
from pathlib import Path

directory, limit, kind = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
steps = 0
counting = threading.Lock()


def counted(function):  # type: ignore[no-untyped-def]
    def call(*arguments, **options):  # type: ignore[no-untyped-def]
        global steps
        with counting:
            steps += 1
            if steps == limit:
                os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    return call


for name in ("rename", "fsync", "unlink", "mkdir", "fchmod", "rmdir", "ftruncate", "symlink", "link"):
    setattr(os, name, counted(getattr(os, name)))
whole_write, whole_open = os.write, os.open


def write_in_pieces(descriptor: int, data: bytes) -> int:
    """Write three bytes at a time, as a disk that is nearly full or a signal may make it."""
    return counted(whole_write)(descriptor, bytes(data[:3]) if kind == "in-place" and len(data) < 64 else data)


os.write = write_in_pieces  # type: ignore[assignment]

from scalarizr.changes.changes import Changes  # noqa: E402
from scalarizr.changes.transaction import Effect  # noqa: E402

changes = Changes(directory / "state", logging.Logger("test"))
with changes.transaction("trial", "trial.change") as transaction:
    transaction.write(directory / "one", b"new one\n")
    transaction.write(directory / "two", b"new two\n")
    transaction.write(directory / "three", b"made\n")
    transaction.delete(directory / "four")
    transaction.apply(Effect(validate=lambda _files: "valid") if kind == "checked" else None)
print(steps)
