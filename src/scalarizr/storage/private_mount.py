"""Mounting a device where nobody else sees it, for a program that needs it mounted for a moment.

A thread takes a mount namespace of its own (unshare(2) is per thread), and the mount goes with it, whatever ends it.
"""

import contextvars
import ctypes
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from scalarizr.errors import NotSupported, OutsideFailure
from scalarizr.host.run import run
from scalarizr.operations.progress import current

T = TypeVar("T")
# linux/sched.h, linux/mount.h
_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 16384, 1 << 18
_TIMEOUT = 600.0


def privately_mounted(device: Path, fstype: str, options: str, work: Callable[[Path], T]) -> T:
    """Run `work` in a thread that has a device mounted; what it starts sees it, too.

    :param options: for mount(8), by comma.
    :param work: gets the mount point.
    :return: what `work` returns.
    :raises NotSupported: this process may have no mount namespace of its own.
    :raises OutsideFailure: it cannot be mounted.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def inside() -> None:
        try:
            _enter_namespace()
            with tempfile.TemporaryDirectory(prefix="scalarizr-") as place:
                _run(["mount", "-t", fstype, "-o", options, "--", device, place], device)
                try:
                    outcome.append(work(Path(place)))
                finally:
                    _run(["umount", "--", place], device)
        except BaseException as error:  # noqa: BLE001  raised again where it is waited for
            failure.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(inside,), name="private-mount")
    # A cancellation waits: what the thread does to the device would go on, unseen, while that is undone.
    with current().uninterrupted():
        thread.start()
        thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def _enter_namespace() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    flags = ctypes.c_ulong(_MS_REC | _MS_PRIVATE)
    if libc.unshare(_CLONE_NEWNS) != 0 or libc.mount(b"none", b"/", None, flags, None) != 0:
        raise NotSupported(
            f"This process may not mount privately: {os.strerror(ctypes.get_errno())}. Nothing was changed."
        )


def _run(command: list[str | Path], device: Path) -> None:
    finished = run(command, timeout=_TIMEOUT)
    if finished.returncode != 0:
        raise OutsideFailure(f"{command[0]} failed for {device}: {finished.last_words()}", {"device": str(device)})
