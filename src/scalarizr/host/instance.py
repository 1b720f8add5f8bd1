"""One agent on one state directory: holding it, and saying that the settings were read again.

The kernel tells who holds it (a record lock, fcntl(2)). `telling` is the other side.
"""

import contextlib
import fcntl
import time
from pathlib import Path

import msgspec

from scalarizr.host.files import write_file
from scalarizr.host.locks import try_lock

LOCK, WORD = "lock", "reloaded"


class Word(msgspec.Struct, frozen=True):
    """What an agent says of its last reading of its settings.

    :param began: seconds since boot when it began to read.
    :param problems: what could not be put in force; the old stays there.
    """

    began: float
    problems: list[str] = []


def hold(state: Path) -> int | None:
    """Take a state directory for this process.

    :return: the descriptor that holds it, which must be the only one of its file in this process; None where another
        agent has it.
    :raises OSError: the lock file cannot be had.
    """
    descriptor = try_lock(state / LOCK)
    if descriptor is not None:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def now() -> float:
    """Give the seconds since boot, which no setting of the clock changes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def say(state: Path, word: Word) -> None:
    """Say, as the agent, what became of reading the settings; where the disk is full, nothing is said."""
    with contextlib.suppress(OSError):
        write_file(state / WORD, msgspec.json.encode(word), mode=0o600)
