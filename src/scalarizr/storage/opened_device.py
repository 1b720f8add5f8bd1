"""Having a block device open, and telling in words what the kernel refuses of it."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from scalarizr.errors import NotSupported, OutsideFailure


@contextlib.contextmanager
def opened(device: Path, flags: int) -> Iterator[int]:
    """Have a device open while the block runs; gives the descriptor.

    :param flags: of open(2); with O_EXCL the kernel refuses it where somebody else has taken the device.
    :raises NotSupported: there is no medium behind it.
    :raises OutsideFailure: it cannot be opened.
    """
    with reported(device):
        descriptor = os.open(device, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def reported(device: Path) -> Iterator[None]:
    """Make errors of ours from those that a device's use raises.

    :raises NotSupported: there is no medium behind it.
    :raises OutsideFailure: with the device and the kernel's words.
    """
    try:
        yield
    except OSError as error:
        kind = NotSupported if error.errno in (errno.ENXIO, errno.ENOMEDIUM) else OutsideFailure
        raise kind(
            f"{device} cannot be used: {error.strerror}. Look at it with lsblk and at the kernel's messages.",
            {"device": str(device), "reason": error.strerror},
        ) from error
