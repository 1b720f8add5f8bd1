"""Mounting a device where nobody else sees it, for a program that needs it mounted for a moment.

The mount goes with the thread whose namespace it is in, whatever ends that.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from scalarizr.errors import NotSupported, OutsideFailure
from scalarizr.host.mount_namespace import NotPermitted, in_own_namespace
from scalarizr.host.run import run
from scalarizr.operations.progress import current

T = TypeVar("T")
_TIMEOUT = 600.0


def privately_mounted(device: Path, fstype: str, options: str, work: Callable[[Path], T]) -> T:
    """Run `work` in a thread that has a device mounted; what it starts sees it, too.

    :param options: for mount(8), by comma.
    :param work: gets the mount point.
    :return: what `work` returns.
    :raises NotSupported: this process may have no mount namespace of its own.
    :raises OutsideFailure: it cannot be mounted.
    """

    def inside() -> T:
        with tempfile.TemporaryDirectory(prefix="scalarizr-") as place:
            _run(["mount", "-t", fstype, "-o", options, "--", device, place], device)
            try:
                return work(Path(place))
            finally:
                _run(["umount", "--", place], device)

    # A cancellation waits: what the thread does to the device would go on, unseen, while that is undone.
    with current().uninterrupted():
        try:
            return in_own_namespace(inside, "private-mount")
        except NotPermitted as error:
            raise NotSupported(f"This process may not mount privately: {error}. Nothing was changed.") from error


def _run(command: list[str | Path], device: Path) -> None:
    finished = run(command, timeout=_TIMEOUT)
    if finished.returncode != 0:
        raise OutsideFailure(f"{command[0]} failed for {device}: {finished.last_words()}", {"device": str(device)})
