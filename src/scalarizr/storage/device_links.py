"""Finding a device by what identifies its volume for ever: the links that udev makes below /dev/disk/by-id.

Never by "a device that was not there before": two volumes that are attached at once would be taken for each other.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from scalarizr.errors import OutsideFailure, Refused, TimedOut
from scalarizr.host.paths import HostPaths
from scalarizr.storage.steps import wait_until

# udev makes a link within seconds; a loaded hypervisor has been seen to take a minute for the device itself.
_APPEARS_WITHIN = 120.0
_GROWS_WITHIN = 120.0


def linked_device(directory: Path, names: Iterable[str]) -> str | None:
    """Give the block device that one of some links leads to; None where none does.

    :param directory: of the links.
    :param names: of the links, the surest first.
    """
    for name in names:
        real = os.path.realpath(directory / name)
        with contextlib.suppress(OSError):
            if stat.S_ISBLK(os.stat(real).st_mode):
                return real
    return None


def await_device(look: Callable[[], str | None], what: str, where: str, limit: float = _APPEARS_WITHIN) -> str:
    """Wait until the device of an attached volume is there.

    :param look: gives it, or None.
    :param what: the volume, such as `volume 123`.
    :param where: what is looked for, for the error.
    :param limit: seconds.
    :raises OutsideFailure: it did not come.
    """
    try:
        return wait_until(look, f"waiting for the device of {what}", limit=limit, longest_pause=1.0)
    except TimedOut:
        raise OutsideFailure(
            f"The {what} is attached to this server, but its device did not appear within {limit:.0f} s: {where}. "
            "Look at what udev and the kernel's log say of it.",
            {"limit": limit},
        ) from None


def unseen(what: str) -> Refused:
    """Give the refusal to detach a volume that is attached here, but whose device cannot be told.

    :param what: the volume, such as `volume 123`.
    """
    return Refused(
        f"The {what} is attached to this server, but which device it is, and so whether it is mounted or in use, "
        "cannot be told. Nothing was changed; look at [storage] by_id_dir, or say force."
    )


def await_size(host: HostPaths, device: str, size: int, limit: float = _GROWS_WITHIN) -> None:
    """Wait until the kernel knows that a device has grown; SCSI disks are told to look.

    :param size: bytes, at least.
    :param limit: seconds.
    :raises OutsideFailure: it did not.
    """
    rescan = host.sys / "class" / "block" / os.path.basename(device) / "device" / "rescan"

    def grown() -> bool | None:
        with contextlib.suppress(OSError), open(rescan, "w") as file:
            file.write("1")
        return True if device_bytes(device) >= size else None

    try:
        wait_until(grown, f"waiting for {device} to grow", limit=limit, longest_pause=2.0)
    except TimedOut:
        raise OutsideFailure(
            f"The volume has grown, but the kernel still says {device_bytes(device)} bytes of {device}, not {size}. "
            "Its file system is as it was; detach and attach the volume, then call again.",
            {"device": device},
        ) from None


def device_bytes(device: str) -> int:
    """Give the size of a block device in bytes; 0 where it is gone."""
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)
