"""The one way to write a file: whole, or not at all, whatever happens meanwhile."""

import contextlib
import os
import re
from pathlib import Path

# As `write_file` names it: the second part is its process.
_STAGED = re.compile(r"\..+\.([0-9]+)\.[0-9a-f]{8}\.new", re.DOTALL)


def fsync_directory(directory: Path) -> None:
    """Make the names in `directory` durable (fsync(2): a file's fsync does not cover its name)."""
    _fsync(directory, os.O_DIRECTORY)


def fsync_file(path: Path) -> None:
    """Make the content of a file durable."""
    _fsync(path, os.O_NOFOLLOW)


def _fsync(path: Path, flag: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flag)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(
    path: Path,
    content: bytes,
    *,
    mode: int = 0o644,
    owner: tuple[int, int] | None = None,
    durable_name: bool = True,
) -> None:
    """Create or replace a file atomically and durably: write beside it, fsync, rename, fsync the directory.

    :param path: the file; its directory exists.
    :param content: the whole new content.
    :param mode: permission bits, in force from the first byte.
    :param owner: (uid, gid), or None for the agent's own.
    :param durable_name: False: the caller makes the name durable, with those of other files.
    :raises OSError: the old file, if any, is then as it was.
    """
    staged = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.new")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            if owner is not None:
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(staged, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staged)
        raise
    if durable_name:
        fsync_directory(path.parent)


def sweep_staged(directory: Path) -> None:
    """Remove what `write_file` had not renamed yet when its process was killed."""
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            match = _STAGED.fullmatch(name)
            if match and not os.path.exists(f"/proc/{match[1]}"):
                with contextlib.suppress(OSError):
                    os.unlink(directory / name)


def make_private_directory(path: Path, mode: int = 0o700) -> None:
    """Make a directory and its missing parents; the last one with exactly `mode`. Existing ones stay as they are."""
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=mode)
