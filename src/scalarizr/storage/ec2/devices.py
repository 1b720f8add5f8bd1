"""Which block device a volume is here: found by its identity, never by 'a new device appeared'.

On Nitro the volume's id is the serial number of an NVMe device, which udev's links carry too. On Xen there is the
device's name in the attachment, and the number of the virtual disk that it stands for (Linux, xen-blkfront.c).
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from scalarizr.errors import OutsideFailure
from scalarizr.host.paths import HostPaths

_MODEL = "Amazon Elastic Block Store"
_LINK = re.compile(r"nvme-Amazon_Elastic_Block_Store_(vol[0-9a-f]{8,17})(?:_[0-9]{1,4}|-ns-[0-9]{1,4})?", re.ASCII)
_NAMESPACE = re.compile(r"nvme[0-9]{1,4}n[0-9]{1,4}", re.ASCII)
_XEN_NAME = re.compile(r"(?:/dev/)?(sd|xvd)([a-z]{1,2})([0-9]{0,2})", re.ASCII)
_XEN_DISK = re.compile(r"device/vbd/([0-9]{1,10})", re.ASCII)
_SECTOR = 512


class Attachment(msgspec.Struct, frozen=True):
    """What EC2 says of a volume that is attached to this instance.

    :param volume_id: such as `vol-0123456789abcdef0`.
    :param name: the device's name at EC2, such as `/dev/sdf`.
    :param size: bytes.
    """

    volume_id: str
    name: str
    size: int


class Devices:
    """The block devices of this host, as far as they are EBS volumes.

    :param by_id: the directory of udev's links.
    :param host: where the host's trees are.
    """

    def __init__(self, by_id: Path, host: HostPaths) -> None:
        self._by_id = by_id
        self._host = host

    def find(self, attachment: Attachment) -> Path | None:
        """Find the device of an attached volume; None as long as it has not appeared.

        :raises OutsideFailure: two devices claim to be it.
        """
        serial = attachment.volume_id.replace("-", "")
        found = {device for named, device in self._linked() if named == serial}
        found |= {device for named, device in self._numbered() if named == serial}
        if not found and self.is_xen():
            found = set(self._xen(attachment))
        if len(found) > 1:
            names = ", ".join(sorted(map(str, found)))
            raise OutsideFailure(
                f"{attachment.volume_id} cannot be told apart: {names} all claim to be it. Nothing was changed."
            )
        return found.pop() if found else None

    def size(self, device: Path) -> int | None:
        """Give the bytes of a device, as the kernel has them now."""
        text = self._read(self._host.sys / "class" / "block" / device.name / "size")
        return int(text) * _SECTOR if text is not None and text.isdecimal() else None

    def is_xen(self) -> bool:
        """Whether volumes come as Xen's virtual disks here, not as NVMe devices."""
        return self._read(self._host.sys / "hypervisor" / "type") == "xen" and not any(self._numbered())

    def names_taken(self) -> set[str]:
        """Give the names, as EC2 says them, of the Xen disks that are there whatever EC2 knows of them."""
        if not self.is_xen():
            return set()
        found = set()
        for disk in self._entries(self._host.sys / "block"):
            matched = _XEN_NAME.fullmatch(disk.name)
            if matched is not None:
                found.add(f"/dev/sd{matched[2]}")
        return found

    def _linked(self) -> Iterator[tuple[str, Path]]:
        """Give serial and device of every link of udev's that is not out of date."""
        for link in self._entries(self._by_id):
            matched = _LINK.fullmatch(link.name)
            if matched is None:
                continue
            device = Path(os.path.realpath(link))
            told = self._serial(self._host.sys / "class" / "block" / device.name)
            if self._is_block_device(device) and told in (None, matched[1]):
                yield matched[1], device

    def _numbered(self) -> Iterator[tuple[str, Path]]:
        """Give serial and device of every NVMe namespace of EBS."""
        for disk in self._entries(self._host.sys / "block"):
            if not _NAMESPACE.fullmatch(disk.name) or self._read(disk / "device" / "model") != _MODEL:
                continue
            serial, device = self._serial(disk), self._host.dev / disk.name
            if serial is not None and self._is_block_device(device):
                yield serial, device

    def _serial(self, disk: Path) -> str | None:
        return self._read(disk / "device" / "serial")

    def _xen(self, attachment: Attachment) -> Iterator[Path]:
        """Give the Xen disks whose number is that of the attachment's name, and whose size is the volume's.

        Old kernels of Red Hat name `/dev/sdf` `xvdj`: the number tells all the same. Where the kernel does not tell it,
        the name has to be the attachment's.
        """
        matched = _XEN_NAME.fullmatch(attachment.name)
        if matched is None:
            return
        letters, partition = matched[2], matched[3]
        names = {f"{prefix}{letters}{partition}" for prefix in ("sd", "xvd")}
        numbers = _disk_numbers(letters, int(partition or 0))
        for disk in self._entries(self._host.sys / "block"):
            if not _XEN_NAME.fullmatch(disk.name):
                continue
            told = _XEN_DISK.fullmatch(self._read(disk / "device" / "nodename") or "")
            is_it = int(told[1]) in numbers if told is not None else disk.name in names
            device = self._host.dev / disk.name
            if is_it and self.size(device) == attachment.size and self._is_block_device(device):
                yield device

    def _is_block_device(self, path: Path) -> bool:
        if not self._host.live:
            return True  # a recorded tree has no devices
        try:
            return stat.S_ISBLK(os.stat(path).st_mode)
        except OSError:
            return False

    @staticmethod
    def _entries(directory: Path) -> list[Path]:
        with contextlib.suppress(OSError):
            return sorted(directory.iterdir())
        return []

    @staticmethod
    def _read(path: Path) -> str | None:
        try:
            return path.read_text("ascii", "replace").strip()
        except OSError:
            return None


def _disk_numbers(letters: str, partition: int) -> set[int]:
    """Give the numbers of a virtual disk under its two names (Xen, docs/misc/vbd-interface: SCSI, xvd, extended)."""
    index = 0
    for letter in letters:
        index = index * 26 + ord(letter) - ord("a") + 1
    index -= 1
    if index < 16:
        return {8 << 8 | index << 4 | partition, 202 << 8 | index << 4 | partition}
    return {1 << 28 | index << 8 | partition}
