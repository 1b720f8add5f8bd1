"""The maintenance switch: a file in the state directory, which survives restarts. While it is there the agent answers
queries and refuses what changes something."""

import contextlib
import os
import time
from pathlib import Path

import msgspec

from scalarizr.host.files import fsync_directory, write_file

_FILE = "maintenance"


class Maintenance(msgspec.Struct, frozen=True):
    """That somebody is at work on the server.

    :param since: Unix time.
    :param reason: what for, in the words of who switched it on.
    """

    since: float
    reason: str = ""


def read(state: Path) -> Maintenance | None:
    """Tell whether it is on; a file that cannot be read counts as on.

    :param state: the state directory.
    """
    path = state / _FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Maintenance)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError):
        with contextlib.suppress(OSError):
            return Maintenance(path.stat().st_mtime)
        return Maintenance(0.0)


def words(state: Path) -> str | None:
    """Give the sentence with which calls are refused; None where it is off."""
    found = read(state)
    if found is None:
        return None
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(found.since))
    why = f" ({found.reason})" if found.reason else ""
    return (
        f"This server is in maintenance since {since}{why}: it answers queries and refuses what changes something, "
        "until `scalarizr maintenance off`."
    )


def switch_on(state: Path, reason: str, now: float) -> None:
    """Switch it on, durably; where it is on already, with the new reason.

    :raises OSError: it is then as it was.
    """
    write_file(state / _FILE, msgspec.json.encode(Maintenance(now, reason)), mode=0o600)


def switch_off(state: Path) -> None:
    """Switch it off, durably.

    :raises OSError: it is then as it was.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(state / _FILE)
        fsync_directory(state)
