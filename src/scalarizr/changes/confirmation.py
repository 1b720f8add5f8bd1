"""Changes that hold only if they are confirmed: their deadline, by a clock that nobody sets."""

import time
from pathlib import Path

from scalarizr.changes.journal import Confirmation, Record

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Give the kernel's id of this boot (random(4)); empty where it gives none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def confirmation_within(seconds: float) -> Confirmation:
    """Make the deadline of a change that is made now."""
    return Confirmation(time.time() + seconds, time.clock_gettime(time.CLOCK_BOOTTIME) + seconds, boot_id())


def seconds_left(record: Record) -> float:
    """Give how long a change may still wait.

    Time since boot counts, the sleep of a suspended machine included; of an earlier boot nothing is left: a server that
    was restarted comes up as it was before the change.
    """
    assert record.confirmation is not None
    if record.confirmation.boot != boot_id():
        return 0.0
    return max(record.confirmation.since_boot - time.clock_gettime(time.CLOCK_BOOTTIME), 0.0)
