"""Processes of other programs, as the kernel's /proc shows them (proc(5))."""

import contextlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that ended and was not reaped yet does not."""
    return _state(pid) not in ("", "Z", "X")


def sleeps(pid: int) -> bool:
    """Tell whether a process waits for something to happen, with nothing to do meanwhile."""
    return _state(pid) == "S"


def program_of(pid: int) -> str:
    """Give the short name of a process's program; empty where it is gone."""
    return _read(pid, "comm").decode("utf-8", "replace").strip()


def title_of(pid: int) -> str:
    """Give a process's command line, or the title that it gave itself; empty where it is gone."""
    return _read(pid, "cmdline").replace(b"\0", b" ").decode("utf-8", "replace").strip()


def children_of(pid: int) -> set[int]:
    """Give a process's children."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children", "rb", buffering=0) as file:
        return {int(word) for word in file.read().split()}
    # A kernel without CONFIG_PROC_CHILDREN, or a process that is gone.
    return {int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _parent(int(entry)) == pid}


def read_pid_file(path: Path) -> int | None:
    """Give the process id that a pid file holds; None where there is none."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(path.read_text(errors="replace").split("\n")[0])
        return pid if pid > 1 else None
    return None


def takes(pid: int, number: int) -> bool:
    """Tell whether a process would take a signal at once: it neither blocks it nor has one of its number waiting."""
    masks = dict(re.findall(rb"^(SigPnd|ShdPnd|SigBlk):\s+([0-9a-f]+)$", _read(pid, "status"), re.MULTILINE))
    return bool(masks) and not any(int(mask, 16) & 1 << (number - 1) for mask in masks.values())


def wait_until(condition: Callable[[], bool], timeout: float, *, shortest: float = 0.001, share: float = 0.03) -> bool:
    """Look again and again, the longer it takes the more seldom, until something is so.

    :param shortest: seconds between two looks at the beginning.
    :param share: of the time that it took so far, between two looks later on.
    :return: whether it became so in time.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        if waited >= timeout:
            return False
        time.sleep(min(max(waited * share, shortest), 0.05))
    return True


def _state(pid: int) -> str:
    return next(iter(_stat(pid)), "")


def _parent(pid: int) -> int:
    columns = _stat(pid)
    return int(columns[1]) if len(columns) > 1 else 0


def _stat(pid: int) -> list[str]:
    # The second column, in parentheses, may hold anything: what follows it is told by the last parenthesis.
    return _read(pid, "stat").decode("utf-8", "replace").rpartition(")")[2].split()


def _read(pid: int, name: str) -> bytes:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
        return file.read()
    return b""
