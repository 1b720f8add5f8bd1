"""A program that makes one change and dies at its N-th step: `changing_program.py DIRECTORY N KIND`.

A step is a call that changes the file system; the program kills itself just before it makes the N-th.
"""

import logging
import os
import sys
from pathlib import Path

from dying_at_a_step import WHATEVER_CHANGES_FILES, Steps

directory, kind = Path(sys.argv[1]), sys.argv[3]
steps = Steps(int(sys.argv[2]))
steps.count_calls_of(*WHATEVER_CHANGES_FILES)
whole_write = os.write


def write_in_pieces(descriptor: int, data: bytes) -> int:
    """Write three bytes at a time, as a disk that is nearly full or a signal may make it."""
    return steps.counted(whole_write)(descriptor, bytes(data[:3]) if kind == "in-place" and len(data) < 64 else data)


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
print(steps.count)
