"""Mounting and unmounting volumes, by device numbers: a name alone never tells what is mounted."""

import contextlib
import os
import time
from pathlib import Path

from scalarizr.errors import OutsideFailure, Refused
from scalarizr.host.paths import HostPaths
from scalarizr.host.run import Finished, run
from scalarizr.storage.block_tree import devices_of, name_of
from scalarizr.storage.mount_point import check_mount_options as check_mount_options
from scalarizr.storage.mount_point import check_mount_point as check_mount_point
from scalarizr.storage.mount_point import settled
from scalarizr.storage.mount_table import Mounted, mount_of, mount_table, resolved
from scalarizr.storage.mount_users import Process as Process
from scalarizr.storage.mount_users import users_of as users_of

# A journal may have to be replayed, and what is in memory written down.
_MOUNT_TIMEOUT = 600.0
_UNMOUNT_TIMEOUT = 600.0
# Programs that look at everything (udev, monitoring) hold a mount for an instant.
_PATIENCE = 1.5
_SHOWN = 10
_MADE = "trusted.scalarizr.made"


def mounts_of(host: HostPaths, device: Path) -> list[Mounted]:
    """Give the mounts of a device's file system, in the order of their making."""
    number = os.stat(device).st_rdev
    return [mounted for mounted in mount_table(host) if number in devices_of(host, mounted)]


def mount_points(host: HostPaths, device: Path) -> list[str]:
    """Tell where a device's file system is mounted, in the order of its being mounted."""
    return [mounted.mpoint for mounted in mounts_of(host, device)]


def memory_mount_points(host: HostPaths) -> list[str]:
    """Tell where a file system in memory (tmpfs) is what is seen."""
    uppermost = {mounted.mpoint: mounted for mounted in mount_table(host)}
    return [mpoint for mpoint, mounted in uppermost.items() if mounted.fstype == "tmpfs"]


def mount_that_holds(host: HostPaths, path: Path) -> Mounted | None:
    """Give the mount that a path lies on; None where there is none."""
    return mount_of(mount_table(host), resolved(host, path))


def device_of(host: HostPaths, mounted: Mounted) -> Path | None:
    """Give a block device that a mount lies on; None where it lies on none."""
    for number in sorted(devices_of(host, mounted)):
        path = host.dev / name_of(host, number).replace("!", "/")
        with contextlib.suppress(OSError):
            if os.stat(path).st_rdev == number:
                return path
    return None


def mount(device: Path | str, mpoint: Path | str, fstype: str, options: str = "") -> None:
    """Mount a device, or memory (`tmpfs`), on a directory, which is made where it is missing.

    No link in the path is followed that anybody but root could have put there.

    :param options: for mount(8), by comma; empty: the defaults.
    :raises InvalidParameter: the path leads through a stranger's link.
    :raises OutsideFailure: it could not be mounted, with the kernel's own words.
    """
    directory = settled(Path(mpoint))
    descriptor, made = _open_directory(directory)
    try:
        # With the dot, since the link that this is would not be followed by move_mount(2), which newer mount(8) takes.
        target = f"/proc/self/fd/{descriptor}/."
        wanted = ["-o", options] if options else []
        source = device if str(device) == "tmpfs" else os.path.realpath(device)
        command = ["mount", "-c", "-t", fstype, *wanted, "--", source, target]
        finished = run(command, timeout=_MOUNT_TIMEOUT, keep=[descriptor])
    finally:
        os.close(descriptor)
    if finished.returncode != 0:
        words = finished.last_words().replace(target, str(directory))
        if made:
            remove_made_directory(made[-1])
        raise OutsideFailure(
            f"{device} ({fstype}) could not be mounted at {directory}: {words} Nothing was changed there; "
            "the kernel's messages may say more.",
            {"device": str(device), "mpoint": str(directory)},
        )


def remove_made_directory(mpoint: Path) -> None:
    """Remove a mount point that `mount` made, and parents that it made, where nothing is in them or mounted on them."""
    with contextlib.suppress(OSError):
        for directory in (mpoint, *mpoint.parents):
            os.getxattr(directory, _MADE, follow_symlinks=False)
            os.rmdir(directory)


def unmount(host: HostPaths, mpoint: Path | str, force: bool = False) -> None:
    """Unmount what is mounted on a directory last; nothing there: nothing to do.

    :param force: where processes use it, take it out of their sight now, and let it go when the last of them ends.
    :raises Refused: it is in use; names up to ten of the processes.
    :raises OutsideFailure: it could not be unmounted.
    """
    place = str(mpoint) if _is_mounted(host, str(mpoint)) else resolved(host, Path(mpoint))
    deadline = time.monotonic() + _PATIENCE
    while _is_mounted(host, place):
        finished = run(["umount", "-c", "--", place], timeout=_UNMOUNT_TIMEOUT)
        if finished.returncode == 0:
            return
        if not _is_mounted(host, place):
            return
        if b"busy" not in finished.stderr:
            raise _not_unmounted(place, finished)
        if time.monotonic() >= deadline:
            break
        time.sleep(0.1)
    else:
        return
    if not force:
        raise _busy(host, place)
    finished = run(["umount", "-c", "-l", "--", place], timeout=_UNMOUNT_TIMEOUT)
    if finished.returncode != 0 and _is_mounted(host, place):
        raise _not_unmounted(place, finished)


def _busy(host: HostPaths, place: str) -> Refused:
    users = users_of(host, place)
    shown = [f"{user.name} ({user.pid})" for user in users[:_SHOWN]]
    more = f" and {len(users) - _SHOWN} more" if len(users) > _SHOWN else ""
    below = [one.mpoint for one in mount_table(host) if one.mpoint.startswith(place.rstrip("/") + "/")]
    if below:
        shown.append(f"what is mounted below it ({', '.join(below[:_SHOWN])})")
    by = f"by {', '.join(shown)}{more}" if shown else "by the kernel: swap, a loop device or an export of it"
    return Refused(
        f"{place} is in use {by}. It is still mounted; end what uses it, or force it.",
        {"mpoint": place, "processes": [f"{user.pid} {user.name}" for user in users[:_SHOWN]]},
    )


def _not_unmounted(place: str, finished: Finished) -> OutsideFailure:
    return OutsideFailure(
        f"{place} could not be unmounted: {finished.last_words()} It is still mounted.", {"mpoint": place}
    )


def _is_mounted(host: HostPaths, place: str) -> bool:
    return any(mounted.mpoint == place for mounted in mount_table(host))


def _open_directory(directory: Path) -> tuple[int, list[Path]]:
    """Open a directory component by component, following no link, and make what is missing.

    :return: its descriptor, and the directories that were made.
    """
    made = []
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open("/", flags)
    try:
        path = Path("/")
        for name in directory.parts[1:]:
            path = path / name
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=descriptor)
                made.append(path)
            below = os.open(name, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
            if path in made:
                with contextlib.suppress(OSError):
                    os.setxattr(f"/proc/self/fd/{descriptor}", _MADE, b"1")
    except OSError as error:
        os.close(descriptor)
        raise OutsideFailure(
            f"{directory} cannot be made or opened: {error.strerror}. Nothing was mounted.", {"mpoint": str(directory)}
        ) from error
    return descriptor, made
