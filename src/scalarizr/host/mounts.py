"""What is mounted where, from the kernel's own list: no path is touched to find out."""

import msgspec

from scalarizr.errors import OutsideFailure
from scalarizr.host.mount_fields import unescaped
from scalarizr.host.paths import HostPaths
from scalarizr.host.procfile import read_text

# File systems whose every answer comes from this kernel's memory or a local disk.
LOCAL = frozenset(
    {
        "ext2",
        "ext3",
        "ext4",
        "xfs",
        "btrfs",
        "zfs",
        "f2fs",
        "jfs",
        "reiserfs",
        "vfat",
        "exfat",
        "ntfs3",
        "squashfs",
        "erofs",
        "iso9660",
        "udf",
        "tmpfs",
        "ramfs",
        "overlay",
        "proc",
        "sysfs",
        "devtmpfs",
        "devpts",
        "cgroup",
        "cgroup2",
        "securityfs",
        "debugfs",
        "tracefs",
        "configfs",
        "pstore",
        "bpf",
        "mqueue",
        "hugetlbfs",
        "rootfs",
        "binfmt_misc",
        "fusectl",
        "efivarfs",
        "nsfs",
        "selinuxfs",
    }
)


class Mount(msgspec.Struct, frozen=True):
    """One mount.

    :param mpoint: where.
    :param device: what, as the kernel shows it.
    :param fstype: the type of file system.
    :param options: of the mount, by comma.
    """

    mpoint: str
    device: str
    fstype: str
    options: str


def mounts(host: HostPaths) -> list[Mount]:
    """Give all mounts in the order of their making; a later one hides an earlier one at the same place."""
    try:
        text = read_text(host.proc / "self" / "mountinfo")
    except OutsideFailure:
        try:
            text = read_text(host.proc / "self" / "mounts")
        except OutsideFailure:
            text = read_text(host.proc / "mounts")
        return [
            Mount(_plain(columns[1]), _plain(columns[0]), columns[2], columns[3])
            for columns in (line.split(" ") for line in text.splitlines())
            if len(columns) >= 4
        ]
    found = []
    for line in text.splitlines():
        # proc(5): … mount point, options, optional fields, `-`, type, source, options
        left, separator, right = line.partition(" - ")
        place, what = left.split(" "), right.split(" ")
        if separator and len(place) >= 6 and len(what) >= 2:
            found.append(Mount(_plain(place[4]), _plain(what[1]), what[0], place[5]))
    return found


def _plain(text: str) -> str:
    return unescaped(text.encode())
