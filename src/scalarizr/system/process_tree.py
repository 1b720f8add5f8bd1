"""All that a process started, however it was hidden: found by who adopted whom, ended, reaped.

A process that detaches itself (daemon(7)) leaves its parents and its session, but not its nearest ancestor that said it
would adopt orphans (prctl(2), PR_SET_CHILD_SUBREAPER): so nothing gets away from a keeper that said so.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Collection

_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_BETWEEN_PASSES = 0.02
_SWIFT_LOOKS = 200


def adopt_orphans() -> None:
    """Become the parent of whatever descendant loses its own.

    :raises OSError: the kernel refuses.
    """
    _prctl(_SET_CHILD_SUBREAPER, 1)


def die_with_the_parent() -> None:
    """Have the kernel end this process when its parent ends: to be called between fork and exec, as the final account.

    :raises OSError: the kernel refuses.
    """
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)


def descendants(spared: Collection[int] = ()) -> set[int]:
    """Give all processes that descend from this one.

    :param spared: children of it that are left out, with all that descends from them.
    """
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            parents.setdefault(_parent(int(entry)), []).append(int(entry))
    found: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        for child in parents.get(waiting.pop(), ()):
            if child not in spared and child not in found:
                found.add(child)
                waiting.append(child)
    return found


def tell_descendants(number: signal.Signals, spared: Collection[int] = ()) -> None:
    """Send a signal to all descendants."""
    for pid in descendants(spared):
        _tell(pid, number)


def end_descendants(wait: Callable[[float], bool], limit: float, spared: Collection[int] = ()) -> bool:
    """Kill all descendants, and those that they start meanwhile.

    Each pass stops what it sees before it kills it: what is stopped starts nothing more, so that a program which forks
    all the time comes to its end, too.

    :param wait: reaps for that many seconds at most; tells whether nothing is left.
    :param limit: seconds; what sleeps uninterruptibly in the kernel ends when that lets it go.
    :return: whether nothing is left.
    """
    deadline = time.monotonic() + limit
    while not wait(0) and time.monotonic() < deadline:
        stopped: set[int] = set()
        while seen := descendants(spared) - stopped:
            for pid in seen:
                _tell(pid, signal.SIGSTOP)
            stopped |= seen
            if time.monotonic() >= deadline:
                break
        for pid in stopped:
            _tell(pid, signal.SIGKILL)
        # What forks and ends all the time is gone before a pass has found it. Orphaned, it is a child of ours each
        # time, and of those the kernel has a list that is read at once.
        for _ in range(_SWIFT_LOOKS):
            for pid in _listed_children() - set(spared):
                _tell(pid, signal.SIGKILL)
            if wait(0):
                return True
        wait(_BETWEEN_PASSES)
    return wait(0)


def children(parent: int | None = None) -> set[int]:
    """Give the children of a process, of this one when not told; ended ones that nobody reaped included."""
    wanted = os.getpid() if parent is None else parent
    return {int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _parent(int(entry)) == wanted}


def reap() -> tuple[dict[int, int], bool]:
    """Reap every child that has ended.

    :return: their exit statuses by process, negative for a signal, and whether any child is left.
    """
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended, False
        if pid == 0:
            return ended, True
        ended[pid] = os.waitstatus_to_exitcode(status)


def reap_but(spared: Collection[int]) -> bool:
    """Reap what has ended, but those that somebody else waits for.

    :return: whether nothing is left but them.
    """
    for pid in children() - set(spared):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return not descendants(spared)


def end_marked(variable: str, value: str, limit: float) -> bool:
    """Kill every process whose environment began with a variable of that value: for a tree whose root is gone.

    :param limit: seconds.
    :return: whether none is left.
    """
    mark = f"{variable}={value}".encode()
    deadline = time.monotonic() + limit
    while marked := [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _is_marked(entry, mark)]:
        if time.monotonic() >= deadline:
            return False
        for pid in marked:
            _tell(pid, signal.SIGKILL)
        time.sleep(_BETWEEN_PASSES)
    return True


def _is_marked(entry: str, mark: bytes) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{entry}/environ", "rb") as file:
        return mark in file.read().split(b"\0")
    return False


def _listed_children() -> set[int]:
    with contextlib.suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children", "rb", buffering=0) as file:
        return {int(word) for word in file.read().split()}
    return set()  # a kernel without CONFIG_PROC_CHILDREN


def holders_of(pipes: Collection[int], among: Collection[int]) -> set[int]:
    """Give the processes that hold a pipe open.

    :param pipes: the inodes of the pipes.
    :param among: the processes that are looked at.
    """
    names = {f"pipe:[{inode}]" for inode in pipes}
    return {pid for pid in among if not names.isdisjoint(_open_files(pid))}


def _open_files(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                found.add(os.readlink(entry.path))
    return found


def _parent(pid: int) -> int:
    # The name of the program, in parentheses, may hold anything (proc(5)).
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
        return int(file.read().rpartition(b")")[2].split()[1])
    return -1


def _tell(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
