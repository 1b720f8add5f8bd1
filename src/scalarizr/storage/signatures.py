"""What is on a block device: every signature that libblkid knows, and data where one would be."""

import contextlib
import errno
import fcntl
import os
from pathlib import Path

import msgspec

from scalarizr.errors import OutsideFailure, ScalarizrError
from scalarizr.host.run import run
from scalarizr.storage.opened_device import opened, reported

FSTYPES = ("ext3", "ext4", "xfs", "btrfs")
EDGE = 1 << 20
BLKFLSBUF = 0x1261  # linux/fs.h
_PROBE_TIMEOUT = 60.0
_NOTHING_FOUND, _AMBIVALENT = 2, 8
_IN_WORDS = {
    "LVM2_member": "an LVM physical volume",
    "LVM1_member": "an LVM physical volume",
    "linux_raid_member": "a member of a RAID array",
    "swap": "swap space",
    "crypto_LUKS": "an encrypted volume (LUKS)",
    "zfs_member": "a member of a ZFS pool",
    "bcache": "a bcache device",
    "jbd": "an external journal",
    "xfs_log": "an external XFS log",
}
_OF_USAGE = {"raid": "a member of an array", "crypto": "an encrypted volume", "other": "a signature"}


class Contents(msgspec.Struct, frozen=True):
    """What is on a device.

    :param fstype: the one file system on it, where it is of a type that a volume can have; else None.
    :param uuid: that file system's.
    :param found: everything that was found, in words.
    """

    fstype: str | None
    uuid: str | None
    found: list[str]

    @property
    def empty(self) -> bool:
        """Whether nothing at all was found: only then may it be formatted."""
        return not self.found


def contents(device: Path) -> Contents:
    """Tell what is on a device: every signature that libblkid knows, and data that is not zeros at its two ends.

    :raises OutsideFailure: it cannot be read.
    """
    with reported(device), opened(device, os.O_RDONLY) as descriptor:
        _flush(device)
        size = os.lseek(descriptor, 0, os.SEEK_END)
        if size == 0:
            raise OSError(errno.ENOMEDIUM, os.strerror(errno.ENOMEDIUM))
        first = _has_data(descriptor, 0, min(EDGE, size))
        last = size > EDGE and _has_data(descriptor, max(EDGE, size - EDGE), size)
    signatures = _signatures(device)
    systems = [one for one in signatures if one.get("USAGE") == "filesystem" and one.get("TYPE") in FSTYPES]
    adoptable = systems[0] if len(signatures) == len(systems) == 1 else {}
    found = [_described(one) for one in signatures]
    if not found and first:
        found.append("data that is not zeros in its first MiB")
    if not found and last:
        found.append("data that is not zeros in its last MiB")
    return Contents(adoptable.get("TYPE"), adoptable.get("UUID"), found)


def probe(device: Path) -> dict[str, str]:
    """Give what libblkid tells of the one signature on a device; empty where there is none, or several.

    :return: its values by name: TYPE, USAGE, UUID, PTTYPE…
    :raises OutsideFailure: blkid fails.
    """
    return _blkid(device)[1]


def _blkid(device: Path) -> tuple[int, dict[str, str]]:
    finished = run(["blkid", "-p", "-o", "export", "--", device], timeout=_PROBE_TIMEOUT)
    if finished.returncode not in (0, _NOTHING_FOUND, _AMBIVALENT):
        raise OutsideFailure(
            f"blkid could not tell what is on {device}: {finished.last_words()} Nothing was changed.",
            {"device": str(device)},
        )
    lines = finished.stdout.decode("utf-8", "replace").splitlines()
    return finished.returncode, {key: value for key, _, value in (line.partition("=") for line in lines)}


def _signatures(device: Path) -> list[dict[str, str]]:
    """Give all signatures on a device, each with what is known of it."""
    code, values = _blkid(device)
    one = {key: value for key, value in values.items() if key in ("TYPE", "PTTYPE", "USAGE", "UUID", "LABEL")}
    # blkid succeeds for an empty partition, too: it tells what the table says of it.
    if code == _NOTHING_FOUND or (code == 0 and not one):
        return []
    if code == 0 and one.get("TYPE") in FSTYPES and "PTTYPE" not in one:
        return [one]  # beside one of these, libblkid tolerates no other: it would have called that ambivalent
    found = _listed_by_wipefs(device)
    kinds = {entry["TYPE"] for entry in found}
    if "TYPE" in one and kinds <= {one["TYPE"]}:
        return [one]
    known = [{**entry, **one} if entry["TYPE"] == one.get("TYPE") else entry for entry in found]
    return known or [one or {"TYPE": "several signatures that contradict one another", "USAGE": "unknown"}]


def _listed_by_wipefs(device: Path) -> list[dict[str, str]]:
    # offset,uuid,label,type: the form that all its releases know.
    finished = run(["wipefs", "--parsable", "--", device], timeout=_PROBE_TIMEOUT)
    if finished.returncode != 0:
        return []
    found: dict[str, dict[str, str]] = {}
    for line in finished.stdout.decode("utf-8", "replace").splitlines():
        columns = line.split(",")
        if line.startswith("#") or len(columns) < 4:
            continue
        entry = {"TYPE": columns[3], "UUID": columns[1], "LABEL": columns[2]}
        if columns[3] in ("gpt", "dos", "PMBR", "mac", "sun", "sgi", "bsd", "atari"):
            entry["PTTYPE"] = columns[3]
        found.setdefault(columns[3], {key: value for key, value in entry.items() if value})
    return list(found.values())


def _described(signature: dict[str, str]) -> str:
    kind = signature.get("TYPE")
    uuid = f" (UUID {signature['UUID']})" if "UUID" in signature else ""
    if "PTTYPE" in signature and kind in (None, signature["PTTYPE"]):
        return f"a partition table ({signature['PTTYPE']})"
    if kind in _IN_WORDS:
        return f"{_IN_WORDS[kind]}{uuid}"
    usage = signature.get("USAGE", "filesystem")
    if usage == "unknown" or kind is None:
        return kind or "a signature"
    if usage in _OF_USAGE:
        return f"{_OF_USAGE[usage]} ({kind}){uuid}"
    return f"{'an' if kind[0] in 'aeiou' or kind.startswith('xfs') else 'a'} {kind} file system{uuid}"


def _flush(device: Path) -> None:
    """Have a device that nothing else holds read anew, past what the kernel still remembers of it."""
    with contextlib.suppress(OSError, ScalarizrError), opened(device, os.O_RDONLY | os.O_EXCL) as descriptor:
        fcntl.ioctl(descriptor, BLKFLSBUF, 0)


def _has_data(descriptor: int, start: int, end: int) -> bool:
    while start < end:
        chunk = os.pread(descriptor, end - start, start)
        if not chunk:
            raise OSError(errno.EIO, "ended before its size")
        if chunk != bytes(len(chunk)):
            return True
        start += len(chunk)
    return False
