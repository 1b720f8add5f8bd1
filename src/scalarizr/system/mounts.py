"""The real file systems of this host: what is mounted, where, and how full it is."""

from collections.abc import Iterator
from typing import Any

from scalarizr.host.capacity import Capacity
from scalarizr.host.mount_fields import unescaped
from scalarizr.host.paths import HostPaths
from scalarizr.host.procfile import read_text

# What the kernel makes up itself, or keeps in memory; filesystems(5) and /proc/filesystems. Everything else holds data
# somewhere: on a device, on a network, in a process (FUSE).
_NOT_REAL = frozenset(
    {
        "autofs",
        "binder",
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "cpuset",
        "debugfs",
        "devpts",
        "devtmpfs",
        "efivarfs",
        "fuse.gvfsd-fuse",
        "fuse.lxcfs",
        "fuse.portal",
        "fusectl",
        "hugetlbfs",
        "mqueue",
        "nfsd",
        "nsfs",
        "pipefs",
        "proc",
        "pstore",
        "ramfs",
        "resctrl",
        "rootfs",
        "rpc_pipefs",
        "securityfs",
        "selinuxfs",
        "smackfs",
        "sockfs",
        "sysfs",
        "tmpfs",
        "tracefs",
        "usbfs",
        "xenfs",
    }
)


def real_mounts(host: HostPaths, capacity: Capacity) -> dict[str, dict[str, Any]]:
    """Give the mounts of real file systems; where one hides another one at the same place, the one that is seen.

    :param host: where the host's trees are.
    :param capacity: asks how full they are; a mount that does not answer has no figures.
    :return: by mount point: `{device, mpoint, fstype, options, total, free}`, sizes in kB or None.
    """
    seen = {mount["mpoint"]: mount for mount in _listed(host)}
    real = {place: mount for place, mount in seen.items() if mount["fstype"] not in _NOT_REAL}
    spaces = capacity.of(list(real))
    return {place: {**mount, **(spaces[place] or {"total": None, "free": None})} for place, mount in real.items()}


def _listed(host: HostPaths) -> Iterator[dict[str, str]]:
    """Read the table whose options are those of the mount and of its file system together: `ro` where either is."""
    for line in read_text(host.proc / "self" / "mounts").splitlines():
        columns = [unescaped(column.encode()) for column in line.split(" ")]
        if len(columns) >= 4:
            device, mpoint, fstype, options = columns[:4]
            yield {"device": device, "mpoint": mpoint, "fstype": fstype, "options": options}
