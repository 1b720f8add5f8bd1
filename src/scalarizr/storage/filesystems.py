"""File systems on devices: made, measured, grown, checked, and given an identity of their own."""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from scalarizr.errors import InvalidParameter, NotSupported, OutsideFailure, Refused
from scalarizr.host.paths import HostPaths
from scalarizr.host.run import Finished, run
from scalarizr.storage.devices import device_number
from scalarizr.storage.mount_table import mount_table
from scalarizr.storage.signatures import FSTYPES as FSTYPES
from scalarizr.storage.signatures import contents, probe
from scalarizr.storage.superblocks import (
    btrfs_device_id,
    btrfs_has_log,
    ext_features,
    size_in_superblock,
    xfs_log_is_of_another,
    xfs_size_mounted,
)

_MAKE_TIMEOUT = 3600.0
_CHECK_TIMEOUT = 6 * 3600.0
_RESIZE_TIMEOUT = 6 * 3600.0
_QUICK = 60.0
_DEEPEST_WORDS = 400
_CAP_SYS_RESOURCE = 24  # linux/capability.h


class _Kind(msgspec.Struct, frozen=True):
    """What one type of file system needs.

    :param make: the program that makes one, and its arguments.
    :param packages: where its programs are, Debian's name and Red Hat's.
    """

    make: tuple[str, ...]
    packages: tuple[str, str]


# A volume for data needs no twentieth of it kept for root. Inode tables are left to the kernel where it can make them
# (mke2fs sees to that by itself). No -F and no -f: the programs' own refusals stand behind ours.
_KINDS = {
    "ext3": _Kind(("mkfs.ext3", "-q", "-m", "1"), ("e2fsprogs", "e2fsprogs")),
    "ext4": _Kind(("mkfs.ext4", "-q", "-m", "1"), ("e2fsprogs", "e2fsprogs")),
    "xfs": _Kind(("mkfs.xfs", "-q"), ("xfsprogs", "xfsprogs")),
    "btrfs": _Kind(("mkfs.btrfs", "-q"), ("btrfs-progs", "btrfs-progs")),
}


def require_program(fstype: str) -> None:
    """Make sure that this host can make and mount a file system of a type.

    :raises InvalidParameter: the type is none of ours.
    :raises NotSupported: the program or the kernel's part is missing; names the package.
    """
    kind = _KINDS.get(fstype)
    if kind is None:
        raise InvalidParameter("fstype", repr(fstype[:80]), f"one of {', '.join(FSTYPES)}")
    if shutil.which(kind.make[0]) is None:
        debian, red_hat = kind.packages
        raise NotSupported(
            f"This host has no {kind.make[0]}: install the package {debian} (Debian, Ubuntu) or {red_hat} (Red Hat and "
            "kin). Nothing was changed.",
            {"program": kind.make[0], "packages": [debian, red_hat]},
        )
    if not _kernel_has(fstype):
        raise NotSupported(
            f"This host's kernel has no {fstype}. Nothing was changed; choose another type of file system.",
            {"fstype": fstype},
        )


def make_filesystem(device: Path, fstype: str, timeout: float = _MAKE_TIMEOUT) -> None:
    """Make a file system on a device that holds nothing.

    :param timeout: seconds.
    :raises Refused: something is on it; names what.
    :raises NotSupported: the program is missing.
    :raises OutsideFailure: it failed; the device may hold a part of one then.
    """
    require_program(fstype)
    there = contents(device)
    if not there.empty:
        raise Refused(
            f"{device} is not empty: it holds {' and '.join(there.found)}. It was not formatted, nothing was changed.",
            {"device": str(device), "found": list(there.found)},
        )
    finished = run([*_KINDS[fstype].make, "--", device], timeout=timeout)
    _require(finished, [0], f"The {fstype} file system on {device} could not be made", device)


def filesystem_size(device: Path, fstype: str) -> int:
    """Give how many bytes of a device the file system on it takes up, by its own account, mounted or not.

    One that fills its device may leave a few MiB at the end, too small for a group or a block of its own.

    :raises OutsideFailure: it cannot be read, or is not of this type.
    """
    if fstype == "xfs":
        number = device_number(device)
        for mounted in mount_table(HostPaths()):
            if mounted.number == number and (size := xfs_size_mounted(Path(mounted.mpoint), number)) is not None:
                return size
    return size_in_superblock(device, fstype)


def grows_online(fstype: str) -> bool:
    """Tell whether this process may grow a file system while it is mounted.

    All that we make can; the kernel lets ext3 and ext4 do so only for CAP_SYS_RESOURCE (linux/fs/ext4/resize.c), which
    containers often lack.
    """
    return fstype in FSTYPES and (fstype not in ("ext3", "ext4") or _may_use_resources())


def resize_filesystem(device: Path, fstype: str, mpoint: Path | None) -> None:
    """Grow a file system to its device's size; as large already: nothing changes. None of them is ever shrunk.

    :param mpoint: where it is mounted; None: it is not, and is mounted where nobody sees it if it has to be.
    :raises OutsideFailure: it failed, with the program's words; the file system is as it was, or larger.
    """
    what = f"The {fstype} file system on {device} could not be grown"
    if fstype in ("ext3", "ext4"):
        if mpoint is None:
            _repair_ext(device, ["-f"])
        _require(run(["resize2fs", "--", device], timeout=_RESIZE_TIMEOUT), [0], what, device)
    elif mpoint is None:
        from scalarizr.storage.private_mount import privately_mounted

        options = "nouuid" if fstype == "xfs" else "defaults"
        privately_mounted(device, fstype, options, lambda place: _grow_mounted(device, fstype, place, what))
    else:
        _grow_mounted(device, fstype, mpoint, what)


def give_new_identity(device: Path, fstype: str) -> None:
    """Give a file system that is mounted nowhere a new UUID, so that it can stand beside the one it was copied from.

    What was in its journal is replayed first. May be repeated, also after it was killed.

    :raises OutsideFailure: it failed, with the program's words.
    """
    before = probe(device).get("UUID")
    what = f"The {fstype} file system on {device} could not be given a new identity"
    if fstype in ("ext3", "ext4"):
        _identify_ext(device, what)
    elif fstype == "xfs":
        _identify_xfs(device, what)
    elif fstype == "btrfs":
        _identify_btrfs(device, what)
    else:
        raise InvalidParameter("fstype", repr(fstype[:80]), f"one of {', '.join(FSTYPES)}")
    if before is None or probe(device).get("UUID") in (before, None):
        raise OutsideFailure(f"{what}: it is the same as before.", {"device": str(device)})


def check(device: Path, fstype: str) -> None:
    """Check a file system that is mounted nowhere, without changing it.

    :raises OutsideFailure: it has errors; holds the end of the program's words.
    """
    commands: dict[str, list[str | Path]] = {
        "ext3": ["e2fsck", "-f", "-n", device],
        "ext4": ["e2fsck", "-f", "-n", device],
        "xfs": ["xfs_repair", "-n", device],
        "btrfs": ["btrfs", "check", "--readonly", device],
    }
    finished = run(commands[fstype], timeout=_CHECK_TIMEOUT)
    _require(finished, [0], f"The {fstype} file system on {device} has errors", device)


def _may_use_resources() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)
    return False


def _grow_mounted(device: Path, fstype: str, place: Path, what: str) -> None:
    command: Sequence[str | Path]
    if fstype == "xfs":
        command = ["xfs_growfs", "-d", place]
    else:
        command = ["btrfs", "filesystem", "resize", f"{btrfs_device_id(device)}:max", place]
    _require(run(command, timeout=_RESIZE_TIMEOUT), [0], what, device)


def _identify_btrfs(device: Path, what: str) -> None:
    from scalarizr.storage.btrfs_identity import change_btrfs_uuid
    from scalarizr.storage.private_mount import privately_mounted

    if btrfs_has_log(device):
        try:
            privately_mounted(device, "btrfs", "defaults", lambda _place: None)
        except OutsideFailure as failure:
            failure.say_further(
                "What was written last is in its log, which only a mount replays; a kernel before 6.7 mounts no "
                "copy beside its original: unmount that meanwhile."
            )
            raise
    if _kernel_can("btrfs", "metadata_uuid"):
        change_btrfs_uuid(device)
    else:
        # A kernel before 5.0: every block of its metadata is written anew.
        _require(run(["btrfstune", "-f", "-u", device], timeout=_RESIZE_TIMEOUT), [0], what, device)


def _identify_xfs(device: Path, what: str) -> None:
    from scalarizr.storage.private_mount import privately_mounted

    if xfs_log_is_of_another(device):
        _require(run(["xfs_repair", "-L", device], timeout=_CHECK_TIMEOUT), [0], what, device)
    else:
        # The log has to be clean; that of a frozen file system never is (xfs_admin(8)).
        privately_mounted(device, "xfs", "nouuid", lambda _place: None)
    # What xfs_admin does; that one is a script which has its shell evaluate the device's name.
    command = ["xfs_db", "-x", "-p", "xfs_admin", "-c", "uuid generate", str(device)]
    _require(run(command, timeout=_RESIZE_TIMEOUT), [0], what, device)


def _identify_ext(device: Path, what: str) -> None:
    _repair_ext(device, [])
    features = ext_features(device)
    if "metadata_csum" in features and "metadata_csum_seed" not in features:
        # All its checksums hang on the old UUID. Kept as their seed, none has to be written again (tune2fs(8)): it
        # takes an instant whatever the size, and a kill leaves no half of them. Kernels before 4.4 cannot mount that.
        if _kernel_can("ext4", "metadata_csum_seed"):
            command = ["tune2fs", "-O", "metadata_csum_seed", str(device)]
            _require(run(command, timeout=_RESIZE_TIMEOUT), [0], what, device)
        else:
            _repair_ext(device, ["-f"])
    _require(run(["tune2fs", "-U", "random", device], timeout=_RESIZE_TIMEOUT), [0], what, device)


def _repair_ext(device: Path, how: list[str]) -> None:
    """Replay the journal and repair what is safe to repair (e2fsck(8), -p)."""
    finished = run(["e2fsck", "-p", *how, device], timeout=_CHECK_TIMEOUT)
    _require(finished, [0, 1], f"The file system on {device} has errors that need a person (e2fsck)", device)


def _require(finished: Finished, good: Sequence[int], what: str, device: Path) -> None:
    if finished.returncode not in good:
        said = b"\n".join(filter(None, [finished.stdout.strip(), finished.stderr.strip()]))
        words = said.decode("utf-8", "replace")[-_DEEPEST_WORDS:]
        raise OutsideFailure(f"{what}: {words}", {"device": str(device), "status": finished.returncode})


def _kernel_can(driver: str, feature: str) -> bool:
    features = Path("/sys/fs") / driver / "features"
    if not features.exists():
        with contextlib.suppress(OutsideFailure):
            run(["modprobe", "-q", driver], timeout=_QUICK)
    return (features / feature).exists()


def _kernel_has(fstype: str) -> bool:
    with contextlib.suppress(OSError):
        if fstype in Path("/proc/filesystems").read_text().split():
            return True
    try:
        return run(["modprobe", "-n", "-q", fstype], timeout=_QUICK).returncode == 0
    except OutsideFailure:
        return False
