"""Mounting where nobody else sees it: in a mount namespace of a thread's own, which goes with the thread.

unshare(2) is per thread; programs that the thread starts inherit its namespace, and keep it for as long as they run.
"""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from scalarizr.host.side_thread import run_aside

T = TypeVar("T")
# linux/sched.h and linux/mount.h.
_CLONE_NEWNS = 0x00020000
BIND, BIND_ALL = 4096, 4096 | 16384
_PRIVATE_ALL = 16384 | 1 << 18
_libc: list[ctypes.CDLL] = []


class NotPermitted(Exception):
    """This process may not have a mount namespace of its own; the text is the kernel's word for it."""


def in_own_namespace(work: Callable[[], T], name: str) -> T:
    """Run `work` in a thread whose mounts nobody else sees, but the programs that it starts.

    :param work: may mount.
    :param name: the thread's.
    :return: what `work` returns; what it raises is raised here.
    :raises NotPermitted: that needs CAP_SYS_ADMIN, and a root that is a mount point.
    """

    def inside() -> T:
        try:
            if _call().unshare(_CLONE_NEWNS) != 0:
                raise _failure("unshare")
            mount("none", Path("/"), _PRIVATE_ALL)
        except OSError as error:
            raise NotPermitted(error.strerror) from error
        return work()

    return run_aside(inside, name)


def mount(source: str, target: Path, flags: int, kind: str | None = None) -> None:
    """Mount, as mount(2).

    :param source: a path, or what the kind of file system takes for one.
    :param flags: such as `BIND`, or `BIND_ALL` with all that is mounted below.
    :param kind: of the file system; None where the flags need none.
    :raises OSError: the kernel's refusal.
    """
    result = _call().mount(
        os.fsencode(source), os.fsencode(target), kind.encode() if kind else None, ctypes.c_ulong(flags), None
    )
    if result != 0:
        raise _failure(str(target))


def _call() -> ctypes.CDLL:
    if not _libc:
        _libc.append(ctypes.CDLL(None, use_errno=True))
    return _libc[0]


def _failure(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)
