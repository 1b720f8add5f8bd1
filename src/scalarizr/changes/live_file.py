"""One live file: what it holds and how it is kept, replacing it whole, and putting it back."""

import contextlib
import errno
import os
import stat
from pathlib import Path

import msgspec

from scalarizr.host.files import fsync_directory
from scalarizr.host.mounts import mounts
from scalarizr.host.paths import HostPaths


class FileState(msgspec.Struct, frozen=True):
    """A file as it is or shall be.

    :param content: its bytes; None: there is no such file.
    :param mode: permission bits.
    :param owner: (uid, gid).
    :param attributes: extended attributes, access control lists and security labels among them.
    """

    content: bytes | None
    mode: int = 0o644
    owner: tuple[int, int] | None = None
    attributes: dict[str, bytes] = {}


def read_state(path: Path) -> FileState:
    """Read a file as it is.

    :raises OSError: it cannot be read, or is no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return FileState(None)
    with open(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        attributes = {}
        with contextlib.suppress(OSError):
            for name in os.listxattr(file.fileno()):
                with contextlib.suppress(OSError):
                    attributes[name] = os.getxattr(file.fileno(), name)
        return FileState(file.read(), stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid), attributes)


def kept_in_place(path: Path) -> bool:
    """Tell whether a file cannot be replaced by a rename: a mount of its own (as /etc/hosts in containers), one with
    several names, or a kernel setting."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return False
    if status.st_nlink > 1 or str(path).startswith("/proc/"):
        return True
    return any(mount.mpoint == str(path) for mount in mounts(HostPaths()))


def staged_name(path: Path, change_id: str) -> Path:
    """Give the name beside `path` under which its new content waits for the rename."""
    return path.with_name(f".{path.name}.{change_id}.new")


def stage(path: Path, state: FileState, change_id: str) -> None:
    """Write a file's new content beside it, durable, with owner, mode and attributes."""
    assert state.content is not None
    staged = staged_name(path, change_id)
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if state.owner is not None and state.owner != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, *state.owner)
        os.fchmod(descriptor, state.mode)
        for name, value in state.attributes.items():
            try:
                os.setxattr(descriptor, name, value)
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM):
                    raise
        _write_all(descriptor, state.content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put(path: Path, state: FileState, change_id: str, *, in_place: bool) -> None:
    """Make the live file what `state` says: by a rename, by rewriting it in place, or by removing it."""
    if in_place and state.content is not None:
        rewrite(path, state.content)
        return
    if state.content is None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    else:
        os.rename(staged_name(path, change_id), path)
    fsync_directory(path.parent)


def rewrite(path: Path, content: bytes) -> None:
    """Overwrite a file's content from its beginning: where it is cut off, new bytes stand before old ones."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        _write_all(descriptor, content)
        if not str(path).startswith("/proc/"):
            os.ftruncate(descriptor, len(content))
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def drop_staged(path: Path, change_id: str) -> None:
    """Remove what was staged and never renamed; on a file system that became read-only it stays."""
    with contextlib.suppress(OSError):
        os.unlink(staged_name(path, change_id))


def half_written(live: bytes | None, old: bytes | None, new: bytes | None) -> bool:
    """Tell whether `live` is `old` being overwritten by `new`, cut off somewhere."""
    if live is None or old is None or new is None:
        return False
    common = next((place for place, pair in enumerate(zip(live, new, strict=False)) if pair[0] != pair[1]), len(live))
    common = min(common, len(new))
    return live[common:] == old[common:]


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
