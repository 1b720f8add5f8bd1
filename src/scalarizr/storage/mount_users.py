"""Which processes use a mounted file system, from what the kernel tells of each (proc(5)).

Nothing that lies on a network or in a process is touched to find out: what hangs there hangs nobody here.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from scalarizr.host.mounts import LOCAL
from scalarizr.host.paths import HostPaths
from scalarizr.storage.mount_table import Mounted, is_below, mount_of, mount_table, other_namespaces


class Process(msgspec.Struct, frozen=True):
    """One process.

    :param pid: its number.
    :param name: its program's short name.
    """

    pid: int
    name: str


class _Sought(msgspec.Struct):
    number: int
    inner: frozenset[int]
    mpoints: list[str]
    table: list[Mounted]


def users_of(host: HostPaths, mpoint: str) -> list[Process]:
    """Give the processes that have something open on the file system mounted at a directory, or work in it.

    One process stands for each other mount namespace that keeps it mounted on its own.
    This process itself is left out.
    """
    table = mount_table(host)
    there = [mounted for mounted in table if mounted.mpoint == mpoint]
    if not there:
        return []
    number = there[-1].number
    inner = frozenset({number, *_seen_as(mpoint)}) if host.live else frozenset({number})
    here = [mounted for mounted in table if mounted.number == number]
    sought = _Sought(number, inner, [mounted.mpoint for mounted in here], table)
    peers = frozenset(_group(peer) for mounted in here for peer in mounted.peers)
    found = {pid for pid in _processes(host) if _uses(host, pid, sought)}
    for pid, theirs in other_namespaces(host):
        kept = [mounted for mounted in theirs if mounted.number == number]
        # What is a peer of ours, or receives from one, goes with it.
        if any(not peers & {_group(peer) for peer in mounted.peers} for mounted in kept):
            found.add(pid)
    found.discard(os.getpid())
    return [Process(pid, _name(host, pid)) for pid in sorted(found)]


def writers_of(host: HostPaths, number: int) -> list[Process]:
    """Give the processes that have a block device itself open for writing, under a name in /dev.

    :param number: the device's.
    """
    found = []
    for pid in _processes(host):
        directory = host.proc / str(pid)
        with contextlib.suppress(OSError):
            for name in os.listdir(directory / "fd"):
                if _writes(directory, name, number):
                    found.append(Process(pid, _name(host, pid)))
                    break
    return found


def _writes(directory: Path, name: str, number: int) -> bool:
    with contextlib.suppress(OSError, IndexError, ValueError):
        link = directory / "fd" / name
        # Nothing but device files is asked: their answers wait for nothing.
        if os.readlink(link).startswith("/dev/") and os.stat(link).st_rdev == number:
            flags = (directory / "fdinfo" / name).read_text().split("flags:")[1].split()[0]
            return bool(int(flags, 8) & os.O_ACCMODE)
    return False


def _uses(host: HostPaths, pid: int, sought: _Sought) -> bool:
    directory = host.proc / str(pid)
    for name in ("cwd", "root", "exe"):
        if _lies_there(os.fspath(directory / name), sought):
            return True
    try:
        descriptors = os.listdir(directory / "fd")
    except OSError:
        return False
    return any(_lies_there(f"{directory}/fd/{name}", sought) for name in descriptors) or _maps(host, pid, sought)


def _lies_there(link: str, sought: _Sought) -> bool:
    try:
        target = os.readlink(link)
    except OSError:
        return False
    if not target.startswith("/"):
        return False
    if any(is_below(target, mpoint) for mpoint in sought.mpoints):
        return True
    # A mount elsewhere, or taken out of sight, shows another path: the device tells, where asking cannot hang.
    mounted = mount_of(sought.table, target)
    if mounted is None or mounted.fstype not in LOCAL:
        return False
    with contextlib.suppress(OSError):
        return os.stat(link).st_dev in sought.inner
    return False


def _maps(host: HostPaths, pid: int, sought: _Sought) -> bool:
    with contextlib.suppress(OSError, ValueError), open(host.proc / str(pid) / "maps", "rb") as file:
        for line in file:
            columns = line.split(None, 5)
            if len(columns) == 6 and columns[4] != b"0":
                major, _, minor = columns[3].partition(b":")
                if os.makedev(int(major, 16), int(minor, 16)) == sought.number:
                    return True
    return False


def _seen_as(mpoint: str) -> Iterator[int]:
    """Give the device number that files at a mount point show: a btrfs subvolume has one of its own."""
    with contextlib.suppress(OSError):
        yield os.stat(mpoint).st_dev


def _processes(host: HostPaths) -> list[int]:
    return [int(entry.name) for entry in os.scandir(host.proc) if entry.name.isdigit()]


def _group(peer: str) -> str:
    return peer.partition(":")[2]


def _name(host: HostPaths, pid: int) -> str:
    with contextlib.suppress(OSError):
        return (host.proc / str(pid) / "comm").read_text(errors="replace").strip()
    return "ended"
