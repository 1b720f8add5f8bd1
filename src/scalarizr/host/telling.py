"""Having the agent of a state directory read its settings again, and waiting for its word that it did.

The kernel says who holds the directory, so that no signal ever goes to a process which only has the number that an
agent once had.
"""

import fcntl
import os
import select
import signal
import struct
from pathlib import Path

import msgspec

from scalarizr.host.instance import LOCK, WORD, Word, now

# struct flock of 64-bit Linux: type, whence, start, length, pid (fcntl(2)).
_RECORD_LOCK = "hhqqi"


class NoWord(Exception):
    """A running agent did not say that it has read its settings; the text says why, as far as that is known."""


def have_settings_read(state: Path, patience: float = 15.0) -> Word | None:
    """Have the agent of a state directory read its settings again, and wait until it has.

    :param patience: seconds to wait at most.
    :return: what it says; None where no agent runs.
    :raises NoWord: it may not be told, or does not say anything in time.
    """
    began = now()
    try:
        process = _open_holder(state)
        if process is None:
            return None
        try:
            signal.pidfd_send_signal(process, signal.SIGHUP)
            while now() < began + patience:
                word = _last_word(state)
                if word is not None and word.began >= began:
                    return word
                if select.select([process], [], [], 0.01)[0]:  # it has ended
                    return None
        finally:
            os.close(process)
    except PermissionError:
        raise NoWord("the agent belongs to another user: run this as that one, or as root") from None
    except ProcessLookupError:
        return None
    raise NoWord(f"the agent did not say within {patience:.0f} s that it has read them; its log may say why")


def _open_holder(state: Path) -> int | None:
    """Give a pidfd of the process that holds a state directory; None where none does."""
    try:
        lock = os.open(state / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        while (pid := _holder(lock)) is not None:
            process = os.pidfd_open(pid)
            if _holder(lock) == pid:  # it held the lock before and after: the descriptor is its own
                return process
            os.close(process)
        return None
    finally:
        os.close(lock)


def _holder(descriptor: int) -> int | None:
    asked = struct.pack(_RECORD_LOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = struct.unpack(_RECORD_LOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked)[: len(asked)])
    if kind == fcntl.F_UNLCK:
        return None
    if pid <= 0:
        raise NoWord("the agent runs in another container: send it SIGHUP there")
    return int(pid)


def _last_word(state: Path) -> Word | None:
    try:
        return msgspec.json.decode((state / WORD).read_bytes(), type=Word)
    except (OSError, msgspec.DecodeError):
        return None
