"""One name in the file system: what it holds, how it is kept, staging what it shall become beside it."""

import contextlib
import errno
import os
import stat
from pathlib import Path

import msgspec

from scalarizr.host.mounts import mounts
from scalarizr.host.paths import HostPaths


class FileState(msgspec.Struct, frozen=True):
    """A name as it is or shall be: a regular file, a symbolic link, or nothing.

    :param content: a file's bytes; None: it is no file.
    :param mode: a file's permission bits.
    :param owner: a file's (uid, gid).
    :param attributes: a file's extended attributes, access control lists and security labels among them.
    :param target: what a symbolic link holds; None: it is no link.
    """

    content: bytes | None
    mode: int = 0o644
    owner: tuple[int, int] | None = None
    attributes: dict[str, bytes] = {}
    target: str | None = None

    @property
    def absent(self) -> bool:
        """Whether there is nothing under the name."""
        return self.content is None and self.target is None

    def holds_the_same(self, other: "FileState") -> bool:
        """Tell whether both hold the same, whatever their modes and owners."""
        return self.content == other.content and self.target == other.target


def read_state(path: Path) -> FileState:
    """Read a name as it is; a link is read as a link.

    :raises OSError: it cannot be read, or is neither a regular file nor a link.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return FileState(None)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return FileState(None, target=os.readlink(path))
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
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(status.st_mode):
        return False
    if status.st_nlink > 1 or str(path).startswith("/proc/"):
        return True
    # A mount of a file's own differs from its directory in its device or is found in the kernel's list. Only bind
    # mounts within one device need the list.
    if status.st_dev != os.stat(path.parent).st_dev:
        return True
    return any(mount.mpoint == str(path) for mount in mounts(HostPaths()))


def beside(path: Path, change_id: str, what: str) -> Path:
    """Give a name beside `path`, of one change, that no `*` matches."""
    return path.with_name(f".{path.name}.{change_id}.{what}")


def stage(place: Path, state: FileState) -> None:
    """Write a file as it shall become, durable, with owner, mode and attributes, under a name that nothing reads."""
    assert state.content is not None
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
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
