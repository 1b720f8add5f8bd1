"""Block devices: how large, who uses them, whether the system rests on them, and emptying one that nobody uses."""

import contextlib
import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from scalarizr.errors import InvalidParameter, OutsideFailure, Refused
from scalarizr.host.paths import HostPaths
from scalarizr.host.run import run
from scalarizr.storage.block_copy import clear_ends
from scalarizr.storage.block_tree import (
    below,
    built_on,
    device_directory,
    devices_of,
    foundations,
    image_of,
    name_of,
    number_of_node,
    partitions_of,
    swaps,
    whole_disk_of,
)
from scalarizr.storage.mount_table import mount_table, other_namespaces
from scalarizr.storage.mount_users import writers_of
from scalarizr.storage.opened_device import opened, reported
from scalarizr.storage.signatures import Contents as Contents
from scalarizr.storage.signatures import contents as contents

# linux/fs.h
_BLKGETSIZE64 = 0x80081272
_PROBE_TIMEOUT = 60.0
# Programs that look at a new device (udev's) hold it for an instant; a validator of nginx that runs as if planned files
# were live, in a mount namespace of its own, for some seconds.
_PATIENCE = 5.0
_SYSTEM_PATHS = ("/", "/boot", "/boot/efi", "/usr", "/var", "/etc")


def require_block_device(device: Path) -> Path:
    """Give a block device's path without links.

    :raises InvalidParameter: it is none.
    """
    real = Path(os.path.realpath(device))
    shown = repr(str(device)[:200])
    if not device.is_absolute():
        raise InvalidParameter("device", shown, "the absolute path of a block device")
    try:
        kind = os.stat(real).st_mode
    except (OSError, ValueError):
        raise InvalidParameter("device", shown, "a block device that exists") from None
    if not stat.S_ISBLK(kind):
        raise InvalidParameter("device", shown, "a block device") from None
    return real


def device_number(device: Path) -> int:
    """Give a block device's number.

    :raises OutsideFailure: there is none of that name.
    """
    with reported(device):
        status = os.stat(device)
    if not stat.S_ISBLK(status.st_mode):
        raise OutsideFailure(f"{device} is no block device. Nothing was changed.", {"device": str(device)})
    return status.st_rdev


def device_size(device: Path) -> int:
    """Give a device's size in bytes; of an image file its length.

    :raises OutsideFailure: it cannot be read.
    """
    with reported(device), opened(device, os.O_RDONLY) as descriptor:
        if stat.S_ISBLK(os.fstat(descriptor).st_mode):
            answer = fcntl.ioctl(descriptor, _BLKGETSIZE64, bytes(8))
            return int(struct.unpack("=Q", answer)[0])
        return os.lseek(descriptor, 0, os.SEEK_END)


def uses(host: HostPaths, device: Path) -> list[str]:
    """Tell, in words, everything that holds a device now.

    By device numbers: mounts of it and of its partitions, swap, what is built on it, loop devices that show it;
    whether the kernel refuses it for exclusive use, which covers whatever is not visible from here; and programs that
    have it open for writing without that, as hypervisors do.
    """
    number = device_number(device)
    table = mount_table(host)
    words = []
    words += [f"mounted at {mounted.mpoint}" for mounted in table if number in devices_of(host, mounted)]
    words += holders(host, device)
    if not words and not _free(device):
        words += _elsewhere(host, number) or ["held by the kernel or another program, which refused its exclusive use"]
    return words or [f"written to by {process.name} ({process.pid})" for process in writers_of(host, number)]


def holders(host: HostPaths, device: Path) -> list[str]:
    """Tell, in words, what holds a device beside its own mounts: swap, what is built on it, its partitions' use."""
    number = device_number(device)
    table = mount_table(host)
    swapped = {number_of_node(host, name) for name in swaps(host)}
    words = []
    for one in [number, *partitions_of(host, number)]:
        it = _whose(host, number, one)
        if one != number:
            words += [f"{it}mounted at {mounted.mpoint}" for mounted in table if one in devices_of(host, mounted)]
        if one in swapped:
            words.append(f"{it}used as swap")
        words += [f"{it}held by {_holder(host, holder)}" for holder in built_on(host, one)]
        words += [f"{it}shown by {name}" for name in _loops_over(host, one)]
    return words


def is_system_disk(host: HostPaths, device: Path, state: Path) -> bool:
    """Tell whether the system, its swap or the agent's state rests on a device, or on the disk that it is a part of.

    Followed all the way down: partitions, arrays, logical volumes, images, the layers of an overlay. What is merely
    built on the same disks as the system (a logical volume beside the root's) is none.

    :param state: the agent's state directory.
    """
    number = device_number(device)
    table = mount_table(host)
    carrying: set[int] = set()
    for path in [*_SYSTEM_PATHS, str(state)]:
        carrying |= foundations(host, Path(path), table)[1]
    if host.live:
        # The root that this process has may be missing in its table, or stand there as /dev/root with its true number.
        for path in ("/", str(state)):
            with contextlib.suppress(OSError):
                carrying |= set(below(host, os.stat(path).st_dev))
    for name in swaps(host):
        node = number_of_node(host, name)
        carrying |= set(below(host, node)) if node is not None else foundations(host, Path(name), table)[1]
    return bool({number, whole_disk_of(host, number)} & carrying)


def wipe(host: HostPaths, device: Path) -> None:
    """Take every signature off a device, and make zeros of its first and last MiB.

    :raises Refused: something uses it.
    :raises OutsideFailure: it could not be written.
    """
    holding = uses(host, device)
    if holding:
        raise Refused(
            f"{device} is in use: it is {'; '.join(holding)}. Nothing was changed; let it go first.",
            {"device": str(device), "uses": list(holding)},
        )
    finished = run(["wipefs", "-a", "--", device], timeout=_PROBE_TIMEOUT)
    if finished.returncode != 0:
        raise OutsideFailure(
            f"wipefs could not take the signatures off {device}: {finished.last_words()} "
            "Whatever it had already taken off is gone.",
            {"device": str(device)},
        )
    clear_ends(device)


def _whose(host: HostPaths, whole: int, one: int) -> str:
    return "" if one == whole else f"its partition {name_of(host, one)} is "


def _holder(host: HostPaths, number: int) -> str:
    name = name_of(host, number)
    directory = device_directory(host, number)
    if directory is None:
        return name
    with contextlib.suppress(OSError):
        return f"{name} ({(directory / 'dm' / 'name').read_text().strip()})"
    with contextlib.suppress(OSError):
        return f"{name} ({(directory / 'md' / 'level').read_text().strip()} array)"
    return name


def _loops_over(host: HostPaths, number: int) -> Iterator[str]:
    for directory in sorted((host.sys / "block").glob("loop*")):
        loop = _read_number(directory)
        image = image_of(host, loop) if loop is not None else None
        if image is not None and image.startswith("/dev/") and number_of_node(host, image) == number:
            yield directory.name


def _read_number(directory: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        major, _, minor = (directory / "dev").read_text().strip().partition(":")
        return os.makedev(int(major), int(minor))
    return None


def _free(device: Path) -> bool:
    """Tell whether the kernel grants a device's exclusive use (open(2), O_EXCL)."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
        except OSError as error:
            if error.errno != errno.EBUSY:
                return True  # no medium, or no such device: whoever reads it will say so
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        else:
            return True


def _elsewhere(host: HostPaths, number: int) -> list[str]:
    for pid, table in other_namespaces(host):
        for mounted in table:
            if number in devices_of(host, mounted):
                return [f"mounted at {mounted.mpoint} in another mount namespace, that of process {pid}"]
    return []
