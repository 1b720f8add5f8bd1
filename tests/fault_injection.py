"""Faults on demand, in a real agent and its workers: a library around the C library's calls (fault_injection.c)."""

import ctypes
import errno
import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from running_agent import RunningAgent

_SOURCE = Path(__file__).with_name("fault_injection.c")
FORK, THREAD, OPEN, READ, WRITE, FSYNC, ACCEPT = range(7)


class _Page(ctypes.Structure):
    _fields_ = (
        ("clock", ctypes.c_int64),
        ("failing", ctypes.c_int32 * 7),
        ("spared", ctypes.c_int32 * 7),
        ("count", ctypes.c_int32 * 7),
        ("place", ctypes.c_char * 512),
    )


class Faults:
    """The faults of the processes that are started with `environment`.

    :param directory: for the library, which is compiled there, and the memory that is shared with it.
    """

    def __init__(self, directory: Path) -> None:
        if shutil.which("cc") is None:
            pytest.skip("LEFT OUT: there is no cc")
        directory.mkdir(parents=True, exist_ok=True)
        library = directory / "fault_injection.so"
        subprocess.run(
            ["cc", "-O1", "-Wall", "-fPIC", "-shared", "-o", library, _SOURCE, "-ldl"],
            check=True,
            timeout=120,
        )
        shared = directory / "faults"
        shared.write_bytes(bytes(mmap.PAGESIZE))
        with open(shared, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self._page = _Page.from_buffer(self._memory)
        self.environment = {"LD_PRELOAD": str(library), "FAULT_INJECTION": str(shared)}

    def fail(self, *kinds: int, with_errno: int = errno.EIO, on: Path | str = "", after: int = 0) -> None:
        """Make calls fail from now on.

        :param kinds: of calls.
        :param with_errno: how.
        :param on: for calls on files: what is in their paths.
        :param after: how many of each kind still work.
        """
        self._page.place = os.fsencode(on)
        for kind in kinds:
            self._page.spared[kind] = after
            self._page.failing[kind] = with_errno

    def heal(self) -> None:
        """Make everything work again."""
        for kind in range(7):
            self._page.failing[kind] = 0

    def count(self, kind: int) -> int:
        """Tell how often a kind of call was made to fail."""
        return int(self._page.count[kind])

    def set_clock(self, seconds: int) -> None:
        """Set the clock of the day so far forward, or back where negative, from the real one."""
        self._page.clock = seconds

    @contextmanager
    def failing(self, *kinds: int, with_errno: int = errno.EIO, on: Path | str = "", after: int = 0) -> Iterator[None]:
        """Let calls fail during the block; see `fail`."""
        self.fail(*kinds, with_errno=with_errno, on=on, after=after)
        try:
            yield
        finally:
            self.heal()


def agent_with_faults(directory: Path, faults: Faults, settings: str = "") -> RunningAgent:
    """Make an agent with the test methods in which faults can be made; not started."""
    script = Path(__file__).with_name("slow_methods.py")
    variables = [f"{name}={value}" for name, value in faults.environment.items()]
    return RunningAgent(directory, settings, command=["env", *variables, sys.executable, str(script)])
