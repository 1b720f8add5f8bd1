"""The files that scripts' output goes to: their names, their making, their bounds, their end.

Several processes are at work here: who runs scripts reserves the files, the keeper of each script writes them and holds
their locks meanwhile, and who looks later takes away the old ones.
"""

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from scalarizr.errors import AlreadyExists, OutsideFailure
from scalarizr.host.files import make_private_directory
from scalarizr.host.locks import locked

_NOT_IN_A_NAME = re.compile(r"(?:[^A-Za-z0-9_.-]|\.{2,}|^\.|\.$)+", re.ASCII)
_LONGEST_PART = 32
_OURS = re.compile(r"(?:.*\.)?(?P<id>[A-Za-z0-9_-]+)-(?:out|err)\.log", re.ASCII)


def log_stem(event: str | None, role: str | None, name: str, execution_id: str) -> str:
    """Give the name of a script's logs, without `-out.log` and `-err.log`.

    What is no letter, digit, `-`, `_` or single dot becomes `_`, so that no name leads out of the directory.

    :param event: such as `HostUp`; `none` where there is none.
    :param role: the role's name; `none` where there is none.
    :param name: the script's.
    :param execution_id: checked already.
    """
    parts = [_NOT_IN_A_NAME.sub("_", (part or "none")[:_LONGEST_PART]) for part in (event, role, name)]
    return ".".join([*parts, execution_id])


def log_paths(directory: Path, stem: str) -> tuple[Path, Path]:
    """Give the files of standard output and of errors."""
    return directory / f"{stem}-out.log", directory / f"{stem}-err.log"


def reserve(directory: Path, stems: dict[str, str]) -> None:
    """Make the files of several executions: all of them, or none.

    :param directory: of scripts' logs; made where it is not there.
    :param stems: execution id → name of its logs.
    :raises AlreadyExists: an id was used before; its logs are still there.
    :raises OutsideFailure: a file cannot be made.
    """
    made: list[Path] = []
    try:
        make_private_directory(directory)
        with locked(directory / ".lock", what=f"the logs of scripts in {directory}"):
            used = stems.keys() & {match["id"] for name in os.listdir(directory) if (match := _OURS.fullmatch(name))}
            if used:
                raise AlreadyExists(
                    f"A script ran under the execution id {min(used)} before, and its logs are still there. Nothing "
                    "was started; choose another id, or none.",
                    {"execution_id": min(used)},
                )
            for stem in stems.values():
                for path in log_paths(directory, stem):
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                    os.close(os.open(path, flags, 0o600))
                    made.append(path)
    except BaseException as failure:
        _remove(made)
        if isinstance(failure, OSError):
            raise OutsideFailure(
                f"{failure.filename or directory}: the logs of the scripts cannot be made: {failure.strerror}. "
                "No script was started.",
                {"directory": str(directory)},
            ) from failure
        raise


def give_up(directory: Path, stems: Sequence[str]) -> None:
    """Take away the files of executions that did not begin."""
    _remove([path for stem in stems for path in log_paths(directory, stem)])


def prune(directory: Path, keep: float, size: int) -> int:
    """Remove the logs of scripts that ended long ago, and the oldest ones where all together are too large.

    Logs of scripts that run are left.

    :param keep: seconds after a log was last written.
    :param size: bytes of all logs together.
    :return: how many files were removed.
    """
    found = sorted(_logs(directory), reverse=True)
    removed = total = 0
    now = time.time()
    for changed, length, path in found:
        total += length
        if (now - changed > keep or total > size) and _removed(path):
            removed += 1
    return removed


def _logs(directory: Path) -> Iterator[tuple[float, int, str]]:
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    yield status.st_mtime, status.st_size, entry.path


def _removed(path: str) -> bool:
    """Remove a log that nobody writes."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        finally:
            os.close(descriptor)
        return True
    return False


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


class ScriptLog:
    """One of a script's logs, being written.

    :param path: the file that was reserved, made again where somebody took it away meanwhile.
    :param limit: bytes that it takes; the rest is thrown away, and a line at its end says so.
    :raises OSError: it cannot be opened.
    :ivar full: whether everything else is thrown away.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self._limit = limit
        self._room = limit
        self.full = False
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)
        # For whoever looks for old logs: this one is being written, however long nothing was said.
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, data: bytes) -> None:
        """Append; a disk that takes no more stops nothing but the log."""
        if self.full or not data:
            return
        try:
            self.full = len(data) > self._room
            view = memoryview(data)[: self._room]
            while view:
                written = os.write(self._descriptor, view)
                self._room -= written
                view = view[written:]
            if self.full:
                os.write(self._descriptor, f"\n[cut: more than {self._limit} bytes are not kept]\n".encode())
        except OSError:
            self.full = True

    def close(self) -> None:
        """Let go of the file: from now on it ages."""
        with contextlib.suppress(OSError):
            os.utime(self._descriptor)
        os.close(self._descriptor)
