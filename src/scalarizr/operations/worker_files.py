"""The two files of each operation beside its record: the lock that its worker holds, and what the worker said."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

_SHOWN = 65536


class WorkerFiles:
    """The files below one directory.

    :param directory: where the records are, too.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def lock(self, identity: str) -> Path:
        """Give the lock of an operation."""
        return self.directory / f"{identity}.lock"

    def errors(self, identity: str) -> Path:
        """Give the file that takes what its worker says."""
        return self.directory / f"{identity}.stderr"

    def take_errors(self, identity: str) -> str:
        """Give the end of what a worker said, and remove it."""
        path = self.errors(identity)
        text = ""
        with contextlib.suppress(OSError), open(path, "rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - _SHOWN, 0))
            text = file.read(_SHOWN).decode("utf-8", "replace").strip()
        with contextlib.suppress(OSError):
            os.unlink(path)
        return text

    def forget(self, identities: Iterable[str]) -> None:
        """Remove the files of operations that are not known any more."""
        for identity in identities:
            for path in (self.lock(identity), self.errors(identity)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
