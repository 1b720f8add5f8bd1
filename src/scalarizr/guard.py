"""Ending the wait of changes that nobody confirmed: when their time has come, and at boot before the services start.

`python -m scalarizr.guard ETC` is what the unit for booting runs: of an earlier boot nothing may wait any longer.
"""

import sys
import time
from pathlib import Path

# A service that another program holds, or a full disk, may be well again by then: seconds between the tries.
_PAUSES = (1, 2, 5, 10, 30, *([60] * 60))


def end_wait(etc: str, change_id: str | None = None) -> None:
    """Take back what was not confirmed in time, and undo what was cut off.

    :param etc: the agent's configuration directory.
    :param change_id: the change whose time has come; None: all whose has.
    """
    from scalarizr.assembly import build_parts
    from scalarizr.logs import open_log
    from scalarizr.settings.load import load_settings

    settings = load_settings(Path(etc))
    changes = build_parts(Path(etc), settings, open_log(settings, rotates=False), None).changes
    for pause in _PAUSES if change_id is not None else ():
        changes.recover()
        if all(record.id != change_id for record in changes.journal.waiting()):
            return
        time.sleep(pause)
    changes.recover()


if __name__ == "__main__":
    end_wait(sys.argv[1])
