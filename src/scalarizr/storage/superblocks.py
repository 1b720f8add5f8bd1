"""What a file system says of itself in its superblock, read as its kernel's driver keeps it.

Layouts: ext4 (kernel documentation, "The Super Block"), xfs (xfs_format.h, xfs_dsb), btrfs (on-disk format).
"""

import fcntl
import mmap
import os
import struct
from pathlib import Path

from scalarizr.errors import InvalidParameter, OutsideFailure

_BTRFS_AT = 65536
_BLOCK = 4096
# xfs_fs.h, struct xfs_fsop_geom_v1: block size at 0, data blocks at 32. _IOR('X', 100, …)
_GEOMETRY_LENGTH = 112
_XFS_IOC_FSGEOMETRY_V1 = 2 << 30 | _GEOMETRY_LENGTH << 16 | ord("X") << 8 | 100


def size_in_superblock(device: Path, fstype: str) -> int:
    """Give the bytes that a file system takes up."""
    reading = {"ext3": _ext_size, "ext4": _ext_size, "xfs": _xfs_size, "btrfs": _btrfs_size}.get(fstype)
    if reading is None:
        raise InvalidParameter("fstype", repr(fstype[:80]), "ext3, ext4, xfs or btrfs")
    try:
        size = reading(device)
    except OSError as error:
        raise OutsideFailure(f"{device} cannot be read: {error.strerror}.", {"device": str(device)}) from error
    if size is None:
        raise OutsideFailure(f"{device} holds no {fstype} file system.", {"device": str(device)})
    return size


def ext_features(device: Path) -> set[str]:
    """Tell which of the features that matter here an ext file system has: `metadata_csum`, `metadata_csum_seed`."""
    block = _buffered(device, 1024, 1024)
    incompatible, read_only = struct.unpack_from("<II", block, 0x60)
    features = {"metadata_csum"} if read_only & 0x400 else set()
    return features | ({"metadata_csum_seed"} if incompatible & 0x2000 else set())


def btrfs_device_id(device: Path) -> int:
    """Give the number that a device has within its btrfs."""
    return int(struct.unpack_from("<Q", _direct(device, _BTRFS_AT), 0xC9)[0])


def btrfs_has_log(device: Path) -> bool:
    """Tell whether a btrfs holds what was synced since its last commit in a log tree, to be replayed when mounted."""
    return bool(struct.unpack_from("<Q", _direct(device, _BTRFS_AT), 0x60)[0])


def xfs_log_is_of_another(device: Path) -> bool:
    """Tell whether an xfs and its log are of different UUIDs: no mount leaves that, only xfs_db cut off at giving one.

    It refuses a log that is not clean, and empties it before it writes the superblocks: nothing is in that log.
    """
    block = _direct(device, 0)
    if block[:4] != b"XFSB":
        return False
    size, start, in_group = (struct.unpack_from(form, block, at)[0] for form, at in ((">I", 4), (">Q", 48), (">I", 84)))
    shift = block[124]
    group, within = start >> shift, start & ((1 << shift) - 1)
    header = _direct(device, (group * in_group + within) * size)
    # xfs_log_format.h, xlog_rec_header
    return header[:4] == b"\xfe\xed\xba\xbe" and header[304:320] not in (block[32:48], bytes(16))


def _ext_size(device: Path) -> int | None:
    # Its driver keeps the superblock in the device's own page cache: a buffered read is what it last wrote there.
    block = _buffered(device, 1024, 1024)
    if struct.unpack_from("<H", block, 0x38)[0] != 0xEF53:
        return None
    blocks: int = struct.unpack_from("<I", block, 0x04)[0]
    shift: int = struct.unpack_from("<I", block, 0x18)[0]
    if struct.unpack_from("<I", block, 0x60)[0] & 0x80:  # 64bit
        blocks |= struct.unpack_from("<I", block, 0x150)[0] << 32
    return blocks << (10 + shift)


def xfs_size_mounted(mpoint: Path, number: int) -> int | None:
    """Give the bytes that a mounted xfs takes up: on its disk the old number stands until its log is written out.

    :param number: its device's.
    :return: None where another file system is mounted over it.
    """
    descriptor = os.open(mpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_dev != number:
            return None
        geometry = fcntl.ioctl(descriptor, _XFS_IOC_FSGEOMETRY_V1, bytes(_GEOMETRY_LENGTH))
    finally:
        os.close(descriptor)
    return int(struct.unpack_from("=I", geometry, 0)[0]) * int(struct.unpack_from("=Q", geometry, 32)[0])


def _xfs_size(device: Path) -> int | None:
    block = _direct(device, 0)
    if block[:4] != b"XFSB":
        return None
    size, blocks = struct.unpack_from(">IQ", block, 4)
    return int(size) * int(blocks)


def _btrfs_size(device: Path) -> int | None:
    block = _direct(device, _BTRFS_AT)
    if block[0x40:0x48] != b"_BHRfS_M":
        return None
    return int(struct.unpack_from("<Q", block, 0xC9 + 8)[0])


def _buffered(device: Path, offset: int, length: int) -> bytes:
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


def _direct(device: Path, offset: int) -> bytes:
    """Read past the page cache: these drivers write past it."""
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
    try:
        with mmap.mmap(-1, _BLOCK) as buffer:
            os.preadv(descriptor, [buffer], offset)
            return bytes(buffer)
    finally:
        os.close(descriptor)
