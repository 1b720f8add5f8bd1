"""Files that hold a whole device: made, copied without what is not in them, shared where the file system can."""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from scalarizr.errors import AlreadyExists, OutsideFailure
from scalarizr.host.files import fsync_directory
from scalarizr.operations.progress import current

# ioctl_ficlonerange(2)
_FICLONE = 0x40049409
_CHUNK = 32 << 20
_PROBE = 64 << 20
_NO_REFLINK = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.ENOSYS, errno.EBADF)


def make_image(file: Path, size: int, *, filled: bool) -> None:
    """Make an image of zeros, whole or not at all.

    :param size: bytes.
    :param filled: take its space from the disk at once.
    :raises AlreadyExists: there is such a file.
    :raises OutsideFailure: the disk refused; nothing is left.
    """
    with forming(file) as descriptor:
        os.ftruncate(descriptor, size)
        if filled:
            fill(descriptor, 0, size)


def fill(descriptor: int, start: int, end: int) -> None:
    """Take the space of a part of a file from the disk."""
    place = start
    while place < end:
        length = min(_CHUNK * 8, end - place)
        os.posix_fallocate(descriptor, place, length)
        place += length
        current().progress(place - start, end - start, "bytes", "taking the space of the image")


def copy_image(source: Path, file: Path, *, size: int | None = None) -> None:
    """Copy an image, by reflink where the file system can.

    :param size: bytes that the copy gets, at least the source's.
    :raises AlreadyExists: there is such a file.
    :raises OutsideFailure: the disk refused; nothing is left.
    """
    with forming(file) as descriptor, reading(source) as original:
        if not share(original, descriptor):
            copy(original, descriptor)
        if size is not None:
            os.ftruncate(descriptor, size)


@contextlib.contextmanager
def forming(file: Path) -> Iterator[int]:
    """Give the descriptor of a file that gets its name when the block ends well, and is gone else."""
    partial = partial_of(file)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)  # of a call that was cut off
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        # Unlike rename, link never replaces what somebody else put there.
        os.link(partial, file)
        os.unlink(partial)
        fsync_directory(file.parent)
    except FileExistsError as error:
        raise AlreadyExists(f"{file} is there already. Nothing was changed.", {"file": str(file)}) from error
    except OSError as error:
        raise OutsideFailure(
            f"The image {file} cannot be written: {error.strerror}. Nothing of it was left."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(partial)


def partial_of(file: Path) -> Path:
    """Name the file that an image is while it is being made."""
    return file.with_name(f".{file.name}.partial")


@contextlib.contextmanager
def reading(file: Path) -> Iterator[int]:
    """Give the descriptor of a file that is only read."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def share(source: int, target: int) -> bool:
    """Make the target share all of the source's blocks (reflink); tells whether the file system can."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _NO_REFLINK:
            return False
        raise
    return True


def copy(source: int, target: int, words: str = "copying the image") -> None:
    """Copy what is in the source; its holes become holes."""
    size = os.fstat(source).st_size
    total = used_bytes(source)
    os.ftruncate(target, size)
    done = 0
    for start, end in _parts(source, size):
        place = start
        while place < end:
            copied = _copy_some(source, target, place, min(_CHUNK, end - place))
            if copied == 0:
                break
            place += copied
            done += copied
            current().progress(done, max(total, done), "bytes", words)


def _copy_some(source: int, target: int, place: int, length: int) -> int:
    try:
        return os.copy_file_range(source, target, length, place, place)
    except OSError as error:
        if error.errno not in _NO_REFLINK:
            raise
    data = os.pread(source, min(length, 1 << 20), place)
    return os.pwrite(target, data, place) if data else 0


def _parts(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    place = 0
    while place < size:
        try:
            start = os.lseek(descriptor, place, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end
        place = end


def used_bytes(descriptor: int) -> int:
    """Tell how much of a file is on the disk, in bytes."""
    return min(os.fstat(descriptor).st_blocks * 512, os.fstat(descriptor).st_size)


def copy_speed(source: int, directory: Path) -> float:
    """Measure, in bytes a second, how fast the beginning of a file is copied into a directory."""
    probe = directory / f".probe.{os.getpid()}.{os.urandom(4).hex()}"
    target = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.unlink(probe)
        started, copied = time.monotonic(), 0
        for start, end in _parts(source, min(os.fstat(source).st_size, 1 << 50)):
            while start < end and copied < _PROBE:
                some = _copy_some(source, target, start, min(_CHUNK, end - start, _PROBE - copied))
                if some == 0:
                    break
                start += some
                copied += some
            if copied >= _PROBE:
                break
        return copied / max(time.monotonic() - started, 1e-3) if copied else 1e12
    finally:
        os.close(target)
