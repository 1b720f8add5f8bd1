"""Starting the guard: a small process that ends the wait of a change, though the agent be killed meanwhile.

It is the bare interpreter that waits; nothing of the product is imported until its time has come (`scalarizr.guard`).
"""

import subprocess
import sys
from pathlib import Path

from scalarizr.errors import OutsideFailure

_WAIT = """\
import sys, time
etc, change, record, seconds, sys.path[:] = *sys.argv[1:4], float(sys.argv[4]), sys.argv[5:]
end = time.clock_gettime(time.CLOCK_BOOTTIME) + seconds
missed = 0
while (left := end - time.clock_gettime(time.CLOCK_BOOTTIME)) > 0:
    time.sleep(min(left, 10))
    try:
        with open(record, "rb") as file:
            if b'"status":"waiting"' not in file.read():
                sys.exit()
        missed = 0
    except FileNotFoundError:
        try:
            open(record.replace("/history/", "/pending/"), "rb").close()
            missed = 0
        except FileNotFoundError:
            # Not begun yet; or it failed, or was confirmed and is not kept any more.
            missed += 1
    if missed > 12:
        sys.exit()
from scalarizr.guard import end_wait
end_wait(etc, change)
"""


def start_guard(etc: Path, record: Path, seconds: float) -> None:
    """Start the guard of a change that is about to be made.

    :param etc: the agent's configuration directory.
    :param record: where the change will be recorded once it waits.
    :param seconds: how long it waits.
    :raises OutsideFailure: it cannot be started.
    """
    try:
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WAIT, etc, record.parent.name, record, str(seconds), *sys.path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
    except OSError as error:
        raise OutsideFailure(
            f"The process that would take the change back cannot be started: {error.strerror}. Nothing was changed."
        ) from error
