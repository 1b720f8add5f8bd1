"""Which block device a CloudStack volume is here."""

import os
import stat
from pathlib import Path

from scalarizr.host.paths import HostPaths
from scalarizr.storage.device_links import linked_device

# Of a volume's UUID, without its dashes, KVM's disks show so much as their serial number.
_SERIAL = 20
_PREFIXES = ("vd", "xvd", "sd")
_SECTOR = 512


def links_of(identity: str) -> list[str]:
    """Give the names of udev's links to a volume, of virtio-blk and of virtio-scsi."""
    serial = identity.replace("-", "")[:_SERIAL]
    return [f"virtio-{serial}", f"scsi-0QEMU_QEMU_HARDDISK_{serial}"]


def device_of(host: HostPaths, by_id: Path, identity: str, position: int | None, size: int) -> str | None:
    """Find the device of a volume that is attached here.

    By its serial number; where the hypervisor shows none (Xen, VMware), by CloudStack's number of the disk, and then
    only one that has exactly the volume's size and no serial number that says otherwise.

    :param position: CloudStack's `deviceid`.
    :param size: bytes.
    :return: None where it is not there, or cannot be told from another.
    """
    found = linked_device(by_id, links_of(identity))
    if found is not None or position is None or not 0 < position < 26:
        return found
    letter = chr(ord("a") + position)
    candidates = [prefix + letter for prefix in _PREFIXES if _fits(host, prefix + letter, size)]
    return str(host.dev / candidates[0]) if len(candidates) == 1 else None


def _fits(host: HostPaths, name: str, size: int) -> bool:
    directory = host.sys / "class" / "block" / name
    try:
        sectors = int((directory / "size").read_text())
        is_device = stat.S_ISBLK(os.stat(host.dev / name).st_mode)
    except (OSError, ValueError):
        return False
    return is_device and sectors * _SECTOR == size and not _serial(directory)


def _serial(directory: Path) -> str:
    for place in ("serial", "device/serial"):
        try:
            text = (directory / place).read_text("ascii", "replace").strip()
        except OSError:
            continue
        if text:
            return text
    return ""
