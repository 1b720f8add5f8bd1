"""A new UUID for a btrfs by one write, the way of `btrfstune -m` (feature `metadata_uuid`, Linux 5.0).

That program sets a flag first and takes it back afterwards: killed in between, it leaves what neither it nor the kernel
takes up again. Here the new superblock takes the old one's place at once, or not at all.
On-disk format: kernel documentation and btrfs-progs, ctree.h, struct btrfs_super_block.
"""

import hashlib
import mmap
import os
import struct
import uuid
from pathlib import Path

from scalarizr.errors import NotSupported, OutsideFailure

_PRIMARY, _LENGTH = 65536, 4096
_MIRRORS = (64 << 20, 256 << 30)
_MAGIC = b"_BHRfS_M"
_FSID, _METADATA_UUID = slice(0x20, 0x30), slice(0x23B, 0x24B)
_METADATA_UUID_FEATURE = 1 << 10
_BEING_CHANGED = 1 << 35 | 1 << 36
_CASTAGNOLI = 0x82F63B78


def change_btrfs_uuid(device: Path) -> None:
    """Give a btrfs of one device, mounted nowhere and without a log tree, a new random UUID.

    :raises NotSupported: it has several devices, or checksums of a kind that is not known here.
    :raises OutsideFailure: it is being changed by another program, or cannot be written.
    """
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_EXCL | os.O_DIRECT | os.O_CLOEXEC)
        try:
            _change(descriptor, device)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OutsideFailure(
            f"The UUID of the btrfs on {device} cannot be changed: {error.strerror}. It is as it was.",
            {"device": str(device)},
        ) from error


def _change(descriptor: int, device: Path) -> None:
    new = uuid.uuid4().bytes
    with mmap.mmap(-1, _LENGTH) as block:
        # The first one last: it is what counts.
        for place in (*reversed(_MIRRORS), _PRIMARY):
            if os.preadv(descriptor, [block], place) != _LENGTH or block[0x40:0x48] != _MAGIC:
                if place == _PRIMARY:
                    raise OutsideFailure(f"{device} holds no btrfs.", {"device": str(device)})
                continue
            _require_changeable(block[:], device)
            (features,) = struct.unpack_from("<Q", block, 0xBC)
            if not features & _METADATA_UUID_FEATURE:
                block[_METADATA_UUID] = block[_FSID]
                struct.pack_into("<Q", block, 0xBC, features | _METADATA_UUID_FEATURE)
            block[_FSID] = new
            block[:0x20] = _checksum(block[:], device)
            os.pwritev(descriptor, [block], place)
    os.fsync(descriptor)


def _require_changeable(block: bytes, device: Path) -> None:
    (flags,), (devices,) = struct.unpack_from("<Q", block, 0x38), struct.unpack_from("<Q", block, 0x88)
    if flags & _BEING_CHANGED:
        raise OutsideFailure(
            f"btrfstune is changing the UUID of {device}, or was cut off at it. Nothing was changed; let it end first.",
            {"device": str(device)},
        )
    if devices != 1:
        raise NotSupported(f"The btrfs on {device} has {devices} devices: only one of one is given a new identity.")
    if block[:0x20] != _checksum(block, device):
        raise OutsideFailure(f"The superblock of the btrfs on {device} is broken.", {"device": str(device)})


def _checksum(block: bytes, device: Path) -> bytes:
    (kind,) = struct.unpack_from("<H", block, 0xC4)
    data = block[0x20:]
    if kind == 0:
        return struct.pack("<I", _crc32c(data)).ljust(0x20, b"\0")
    if kind == 2:
        return hashlib.sha256(data).digest()
    if kind == 3:
        return hashlib.blake2b(data, digest_size=32).digest()
    raise NotSupported(f"The btrfs on {device} has checksums of kind {kind}, which are not known here.")


def _crc32c(data: bytes) -> int:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_CASTAGNOLI if value & 1 else 0)
        table.append(value)
    register = 0xFFFFFFFF
    for byte in data:
        register = register >> 8 ^ table[(register ^ byte) & 0xFF]
    return register ^ 0xFFFFFFFF
