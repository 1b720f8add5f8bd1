"""Copying a block device to another, and making zeros of parts of one: in bounded memory, with progress."""

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from scalarizr.errors import OutsideFailure
from scalarizr.operations.progress import current
from scalarizr.storage.opened_device import opened, reported
from scalarizr.storage.signatures import BLKFLSBUF, EDGE

PIECE = 4 << 20
# linux/fs.h
_BLKZEROOUT = 0x127F
# So much is written before it is waited for: progress then tells of what is on the disk, and a cancellation is quick.
_UNSYNCED = 64 << 20
_ZEROS = bytes(PIECE)


def copy_device(source: Path, target: Path, size: int, words: str) -> None:
    """Make the first `size` bytes of a device those of another.

    :param words: what is done, for people.
    :raises OutsideFailure: one cannot be read, or the other not be written.
    """
    with opened(source, os.O_RDONLY) as reading, opened(target, os.O_RDWR | os.O_EXCL) as writing:
        done = 0
        with reported(source):
            for piece in pieces_of(reading, 0, size):
                with reported(target):
                    put(writing, done, piece)
                    done += len(piece)
                    if done % _UNSYNCED < len(piece):
                        os.fsync(writing)
                        current().progress(done, size, "bytes", words)
        with reported(target):
            os.fsync(writing)


def clear_ends(device: Path) -> None:
    """Make zeros of a device's first and last MiB: whatever lay in that space before.

    :raises OutsideFailure: it cannot be written, or somebody else has taken it meanwhile.
    """
    with opened(device, os.O_RDWR | os.O_EXCL) as descriptor, reported(device):
        size = os.lseek(descriptor, 0, os.SEEK_END)
        for start in (0, max(size - EDGE, 0)):
            put_zeros(descriptor, start, min(EDGE, size))
        os.fsync(descriptor)
        with contextlib.suppress(OSError):  # what the kernel remembers of it is read anew
            fcntl.ioctl(descriptor, BLKFLSBUF, 0)


def pieces_of(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    """Give what stands between two places of a device, in pieces, which the kernel's memory does not keep."""
    while start < end:
        piece = os.pread(descriptor, min(PIECE, end - start), start)
        if not piece:
            raise OutsideFailure(f"The device ended after {start} bytes, and {end} were expected. Nothing was changed.")
        yield piece
        os.posix_fadvise(descriptor, start, len(piece), os.POSIX_FADV_DONTNEED)
        start += len(piece)


def put(descriptor: int, start: int, piece: bytes) -> None:
    """Write a piece; zeros by the device's own command for that, where it has one."""
    if is_zero(piece) and len(piece) % 4096 == 0 and start % 4096 == 0:
        put_zeros(descriptor, start, len(piece))
        return
    view = memoryview(piece)
    while view:
        written = os.pwrite(descriptor, view, start)
        view, start = view[written:], start + written


def put_zeros(descriptor: int, start: int, length: int) -> None:
    """Make zeros of a part of a device, or of a file."""
    try:
        fcntl.ioctl(descriptor, _BLKZEROOUT, struct.pack("=QQ", start, length))
    except OSError:
        while length:
            written = os.pwrite(descriptor, memoryview(_ZEROS)[: min(length, PIECE)], start)
            start, length = start + written, length - written


def is_zero(piece: bytes) -> bool:
    """Tell whether there is nothing but zeros in a piece."""
    return piece.count(0) == len(piece)
