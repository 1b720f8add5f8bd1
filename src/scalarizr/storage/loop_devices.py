"""Loop devices: which one is backed by a file, attaching, detaching, and noticing that the file has grown (loop(4))."""

import fcntl
import os
import re
import struct
from pathlib import Path

from scalarizr.errors import OutsideFailure
from scalarizr.host.paths import HostPaths
from scalarizr.host.run import run

_LOOP_GET_STATUS64 = 0x4C05
_LOOP_SET_CAPACITY = 0x4C07
# struct loop_info64 (linux/loop.h): lo_device and lo_inode are its first two fields.
_INFO_SIZE = 232
# Where losetup(8) has them, too.
_DEVICES = Path("/dev")
_NAME = re.compile(r"loop[0-9]+", re.ASCII)


def loop_device_of(host: HostPaths, file: Path) -> Path | None:
    """Find the loop device that a file backs, by the file's inode: its name may have changed.

    :return: None where there is none.
    """
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    names = sorted(entry for entry in os.listdir(host.sys / "block") if _NAME.fullmatch(entry))
    for name in names:
        if (host.sys / "block" / name / "loop" / "backing_file").exists():
            device = _DEVICES / name
            if _backing(device) == (status.st_dev, status.st_ino):
                return device
    return None


def _backing(device: Path) -> tuple[int, int] | None:
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        info = fcntl.ioctl(descriptor, _LOOP_GET_STATUS64, bytes(_INFO_SIZE))
    except OSError:
        return None  # detached meanwhile
    finally:
        os.close(descriptor)
    number, inode = struct.unpack_from("=QQ", info)
    return number, inode


def attach(host: HostPaths, file: Path) -> Path:
    """Attach a file to a loop device, if it is not already.

    :raises OutsideFailure: with losetup's words.
    """
    attached = loop_device_of(host, file)
    if attached is not None:
        return attached
    done = run(["losetup", "--find", "--show", file], timeout=30)
    name = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode != 0 or not name:
        raise OutsideFailure(f"{file} cannot be attached to a loop device: {done.last_words()}")
    return Path(name)


def detach(device: Path) -> None:
    """Detach a loop device; where something still uses it, the kernel does so when that ends.

    :raises OutsideFailure: with losetup's words.
    """
    done = run(["losetup", "--detach", device], timeout=30)
    if done.returncode != 0 and "No such device" not in done.last_words():
        raise OutsideFailure(f"{device} cannot be detached: {done.last_words()}")


def notice_size(device: Path) -> None:
    """Let a loop device take the size that its file has now."""
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _LOOP_SET_CAPACITY)
    finally:
        os.close(descriptor)
