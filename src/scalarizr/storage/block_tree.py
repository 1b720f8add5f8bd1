"""How block devices stand on one another: partitions, what is built of them, images, and what lies on what (sysfs)."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from scalarizr.errors import OutsideFailure
from scalarizr.host.paths import HostPaths
from scalarizr.storage.mount_table import Mounted, mount_of, mount_table, resolved

_DEEPEST = 32


def device_directory(host: HostPaths, number: int) -> Path | None:
    """Give a block device's directory in sysfs; None where the kernel has no such device."""
    path = host.sys / "dev" / "block" / f"{os.major(number)}:{os.minor(number)}"
    real = Path(os.path.realpath(path))
    return real if real.is_dir() and real != path else None


def name_of(host: HostPaths, number: int) -> str:
    """Give the kernel's name of a block device, such as `sda1`."""
    directory = device_directory(host, number)
    return directory.name if directory is not None else f"{os.major(number)}:{os.minor(number)}"


def number_in(directory: Path) -> int | None:
    """Give the device number that a directory of sysfs tells."""
    try:
        major, _, minor = (directory / "dev").read_text().strip().partition(":")
        return os.makedev(int(major), int(minor))
    except (OSError, ValueError):
        return None


def partitions_of(host: HostPaths, number: int) -> list[int]:
    """Give a whole disk's partitions."""
    directory = device_directory(host, number)
    if directory is None:
        return []
    found = (number_in(entry.parent) for entry in sorted(directory.glob("*/partition")))
    return [partition for partition in found if partition is not None]


def whole_disk_of(host: HostPaths, number: int) -> int:
    """Give the disk that a partition is a part of; of anything else itself."""
    directory = device_directory(host, number)
    if directory is None or not (directory / "partition").exists():
        return number
    return number_in(directory.parent) or number


def built_of(host: HostPaths, number: int) -> list[int]:
    """Give the devices that a device is built of: the disks of an array, the physical volumes of a logical one."""
    return _listed(device_directory(host, number), "slaves")


def built_on(host: HostPaths, number: int) -> list[int]:
    """Give the devices that are built on a device."""
    return _listed(device_directory(host, number), "holders")


def image_of(host: HostPaths, number: int) -> str | None:
    """Give the file that a loop device shows as a disk; None where it is none, or bound to nothing."""
    directory = device_directory(host, number)
    if directory is None:
        return None
    try:
        text = (directory / "loop" / "backing_file").read_bytes().removesuffix(b"\n")
    except OSError:
        return None
    return os.fsdecode(text.removesuffix(b" (deleted)")) or None


def devices_of(host: HostPaths, mounted: Mounted, table: list[Mounted] | None = None) -> set[int]:
    """Give the block devices that a mounted file system lies on; none where it lies on none.

    :param table: where the layers of an overlay are looked up.
    """
    if os.major(mounted.number) != 0:
        return {mounted.number}
    if mounted.fstype == "btrfs":
        return _devices_of_btrfs(host, mounted)
    found: set[int] = set()
    if mounted.fstype == "overlay" and table is not None:
        for path in _layers(mounted.options):
            below = mount_of([other for other in table if other.fstype != "overlay"], path)
            if below is not None:
                found |= devices_of(host, below)
    return found


def foundations(host: HostPaths, path: Path, table: list[Mounted] | None = None) -> tuple[set[int], set[int]]:
    """Give what a path rests on, all the way down, through images on other file systems.

    :return: the device numbers of the file systems, and those of the block devices; a partition's disk is among them.
    """
    table = mount_table(host) if table is None else table
    file_systems: set[int] = set()
    devices: set[int] = set()
    paths = [resolved(host, path)]
    for _ in range(_DEEPEST):
        if not paths:
            break
        mounted = mount_of(table, paths.pop())
        if mounted is None or mounted.number in file_systems:
            continue
        file_systems.add(mounted.number)
        for number in devices_of(host, mounted, table):
            for lower in below(host, number):
                devices.add(lower)
                image = image_of(host, lower)
                if image is not None:
                    paths.append(image)
    return file_systems, devices


def below(host: HostPaths, number: int) -> Iterator[int]:
    """Give a device, its disk where it is a partition, and everything that these are built of."""
    seen: set[int] = set()
    waiting = [number]
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            yield one
            waiting += [whole_disk_of(host, one), *built_of(host, one)]


def number_of_node(host: HostPaths, name: str) -> int | None:
    """Give the device number behind the name of a device file on this host; None where it names none."""
    try:
        status = os.stat(host.root / name.lstrip("/"))
    except OSError:
        return None
    return status.st_rdev if stat.S_ISBLK(status.st_mode) else None


def swaps(host: HostPaths) -> list[str]:
    """Give the devices and files that are swapped to."""
    try:
        lines = (host.proc / "swaps").read_bytes().splitlines()[1:]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutsideFailure(f"{host.proc / 'swaps'} cannot be read: {error.strerror}.") from error
    return [os.fsdecode(line.split()[0].replace(b"\\040", b" ")) for line in lines if line.split()]


def _listed(directory: Path | None, kind: str) -> list[int]:
    if directory is None:
        return []
    try:
        entries = sorted((directory / kind).iterdir())
    except OSError:
        return []
    return [number for entry in entries if (number := number_in(entry)) is not None]


def _devices_of_btrfs(host: HostPaths, mounted: Mounted) -> set[int]:
    """Find them by what was mounted; where that is no device's name any more, take those of every btrfs there is."""
    every = [
        {number for entry in devices.iterdir() if (number := number_in(entry)) is not None}
        for devices in (host.sys / "fs" / "btrfs").glob("*/devices")
    ]
    source = number_of_node(host, mounted.source)
    if source is None:
        return set().union(*every)
    return next((devices for devices in every if source in devices), {source})


def _layers(options: str) -> Iterator[str]:
    for option in options.split(","):
        key, _, value = option.partition("=")
        if key in ("lowerdir", "upperdir", "workdir", "lowerdir+", "datadir+"):
            yield from (path for path in value.split(":") if path.startswith("/"))
