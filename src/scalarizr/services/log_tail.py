"""What a program wrote into its log since a moment: its own words, for an error message."""

import os
from pathlib import Path


class LogTail:
    """The end of a log, from now on.

    :param path: the log; None: there is none that can be read.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._offset = self._size()

    def new_lines(self, limit: int = 1 << 16) -> list[str]:
        """Give the lines since the beginning, the newest where there are too many."""
        size = self._size()
        if self._path is None or size <= self._offset:
            return []
        try:
            with open(self._path, "rb") as file:
                file.seek(max(self._offset, size - limit))
                return file.read(limit).decode("utf-8", "replace").splitlines()
        except OSError:
            return []

    def _size(self) -> int:
        try:
            return os.stat(self._path).st_size if self._path else 0
        except OSError:
            return 0
