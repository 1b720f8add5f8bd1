"""A log file that this program appends to and rotates, and that somebody else may move away: opened anew then."""

import contextlib
import os
import stat
from pathlib import Path


class AppendedFile:
    """The file, open.

    :param path: made 0600; never a link, never anything but a regular file.
    :param keep: rotated files that are kept; none: the file is emptied where it would be rotated.
    :param readable: whether it is read, too.
    :ivar size: bytes in it, as far as is known.
    :raises OSError: it cannot be written.
    """

    def __init__(self, path: Path, keep: int, *, readable: bool = False) -> None:
        self.path = path
        self.size = 0
        self._keep = keep
        self._flags = os.O_RDWR if readable else os.O_WRONLY
        self._descriptor = -1
        self._identity = (0, 0)
        self._open()

    def append(self, data: bytes) -> None:
        """Append, in one write(2) where the file system takes it all.

        :raises OSError: nothing was written, or not all.
        """
        written = os.write(self._descriptor, data)
        self.size += written
        if written != len(data):
            raise OSError(None, "only a part of a line could be written")

    def follow(self) -> None:
        """Open the file anew where it was moved away; learn its size where others append to it, too."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            self._open()
            return
        if (status.st_dev, status.st_ino) != self._identity:
            self._open()
        else:
            self.size = status.st_size

    def rotate(self) -> None:
        """Move it and the older ones one number up, and begin a new one."""
        for number in range(self._keep, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            newer = self.path.with_name(f"{self.path.name}.{number - 1}") if number > 1 else self.path
            with contextlib.suppress(FileNotFoundError):
                os.replace(newer, older)
        if self._keep == 0:
            os.truncate(self.path, 0)
        self._open()

    def sync(self) -> None:
        """Make what is in it durable."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close it; once more does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        flags = self._flags | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.path, flags, 0o600)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise OSError(None, f"{self.path} is no regular file")
        self.close()
        self._descriptor = descriptor
        self.size = status.st_size
        self._identity = (status.st_dev, status.st_ino)
