"""The kernel's table of mounts with the device numbers, which names alone cannot stand in for (proc(5), mountinfo)."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from scalarizr.errors import OutsideFailure
from scalarizr.host.mount_fields import unescaped
from scalarizr.host.paths import HostPaths


class Mounted(msgspec.Struct, frozen=True):
    """One mount.

    :param id: the kernel's number of the mount.
    :param number: the file system's device number, as `st_dev` has it; one of major 0 belongs to no device (btrfs,
        tmpfs, overlay, network).
    :param root: which directory of the file system is mounted.
    :param mpoint: where.
    :param flags: of this mount alone, by comma: `ro`, `nosuid`, `noexec`, `noatime` and their kin.
    :param peers: the peer groups that it shares mounts with, or receives them from.
    :param fstype: the type of file system.
    :param source: what was mounted, by the name that was used then.
    :param options: of the file system, by comma.
    """

    id: int
    number: int
    root: str
    mpoint: str
    flags: str
    peers: frozenset[str]
    fstype: str
    source: str
    options: str


def mount_table(host: HostPaths, process: str = "self") -> list[Mounted]:
    """Give the mounts that a process sees, in the order of their making.

    :param process: its number, or `self`.
    :raises OutsideFailure: the table cannot be read.
    """
    path = host.proc / process / "mountinfo"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise OutsideFailure(f"{path} cannot be read: {error.strerror}.", {"file": str(path)}) from error
    table = []
    for line in content.split(b"\n"):
        left, separator, right = line.partition(b" - ")
        place, what = left.split(b" "), right.split(b" ")
        if separator and len(place) >= 6 and len(what) >= 2:
            major, _, minor = place[2].partition(b":")
            table.append(
                Mounted(
                    id=int(place[0]),
                    number=os.makedev(int(major), int(minor)),
                    root=unescaped(place[3]),
                    mpoint=unescaped(place[4]),
                    flags=unescaped(place[5]),
                    peers=frozenset(word.decode() for word in place[6:]),
                    fstype=what[0].decode("ascii", "replace"),
                    source=unescaped(what[1]),
                    options=unescaped(what[2]) if len(what) > 2 else "",
                )
            )
    return table


def options_of(mounted: Mounted) -> str:
    """Give the options that mount it again as it is mounted: its file system's, and then its own."""
    return ",".join(filter(None, (mounted.options, mounted.flags)))


def mount_of(table: list[Mounted], path: str) -> Mounted | None:
    """Give the mount that a path lies on, by its name alone: links are not followed; None where there is none."""
    best: Mounted | None = None
    for mounted in table:
        if is_below(path, mounted.mpoint) and (best is None or len(mounted.mpoint) >= len(best.mpoint)):
            best = mounted
    return best


def is_below(path: str, directory: str) -> bool:
    """Tell whether a path is a directory or lies below it, by name."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def resolved(host: HostPaths, path: Path) -> str:
    """Give a path without links where this is the running host; else as it is."""
    return os.path.realpath(path) if host.live else os.path.normpath(path)


def other_namespaces(host: HostPaths) -> Iterator[tuple[int, list[Mounted]]]:
    """Give one process of each mount namespace but our own, and the mounts that it sees."""
    seen = {_namespace(host, "self")}
    try:
        processes = sorted(int(entry.name) for entry in host.proc.iterdir() if entry.name.isdigit())
    except OSError:
        return
    for pid in processes:
        namespace = _namespace(host, str(pid))
        if namespace is None or namespace in seen:
            continue
        try:
            table = mount_table(host, str(pid))
        except OutsideFailure:
            continue  # it has ended meanwhile, another one of its namespace may follow
        seen.add(namespace)
        yield pid, table


def _namespace(host: HostPaths, process: str) -> str | None:
    with contextlib.suppress(OSError):
        return os.readlink(host.proc / process / "ns" / "mnt")
    return None
