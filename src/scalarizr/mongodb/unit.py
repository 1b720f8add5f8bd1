"""Keeping the monitoring agent running through systemd: a unit, written from what is wanted."""

import os
import threading
from pathlib import Path

from scalarizr.errors import OutsideFailure
from scalarizr.host.files import write_file
from scalarizr.host.processes import wait_until
from scalarizr.host.run import Finished, run
from scalarizr.mongodb.keeper import STEADY, environment
from scalarizr.mongodb.record import MonitoringRecord, Wanted

UNIT = "scalarizr-mongodb-monitoring.service"
_LIMIT = 60.0


def systemd_runs() -> bool:
    """Tell whether systemd supervises this host (sd_booted(3)) and takes units from this process."""
    return Path("/run/systemd/system").is_dir() and os.geteuid() == 0


def unit_text(wanted: Wanted) -> str:
    """Write the unit. It names no key: those are in the configuration file alone."""
    account = f"User={wanted.account}\n" if wanted.account else ""
    variables = "".join(
        f"Environment={_quoted(f'{name}={value}')}\n" for name, value in environment(wanted.home).items()
    )
    command = " ".join(_quoted(word).replace("$", "$$") for word in wanted.command)
    return (
        "# Written by scalarizr (mongodb.enable_mms); the next call replaces it.\n"
        "[Unit]\n"
        "Description=MongoDB monitoring agent, kept for scalarizr\n"
        "Wants=network-online.target\n"
        "After=network-online.target\n"
        "# However often it ends, it is started again.\n"
        "StartLimitIntervalSec=0\n\n"
        "[Service]\n"
        f"{account}"
        f"WorkingDirectory={_path(wanted.directory)}\n"
        f"{variables}"
        f"ExecStart={command}\n"
        "UMask=0077\n"
        "NoNewPrivileges=yes\n"
        "Restart=always\n"
        "RestartSec=5\n"
        "# The MongoDB servers that an automation agent started do not end with it.\n"
        "KillMode=process\n\n"
        "[Install]\n"
        "WantedBy=multi-user.target\n"
    )


class Unit:
    """The unit of the monitoring agent.

    :param directory: where units of this host's own are.
    :param record: what is wanted.
    """

    def __init__(self, directory: Path, record: MonitoringRecord) -> None:
        self._file = directory / UNIT
        self._record = record

    def look(self) -> None:
        """Stop, aside, what an agent that died had still to stop; what is to run systemd keeps running by itself."""
        if not self._record.wanted().enabled:
            threading.Thread(target=self.stop, name="monitoring agent", daemon=True).start()

    def start(self, wanted: Wanted) -> str | None:
        """Write the unit, enable it and start it, or start it anew.

        :return: why it does not run; None where it does.
        """
        write_file(self._file, unit_text(wanted).encode(), mode=0o644)
        for command in (["daemon-reload"], ["enable", UNIT], ["reset-failed", UNIT], ["restart", UNIT]):
            done = _systemctl(*command)
            if done.returncode != 0 and command[0] != "reset-failed":
                return f"systemctl {' '.join(command)} failed: {done.last_words()}"
        if wait_until(lambda: not self._is_active(), STEADY):
            return f"it ended; `journalctl --unit {UNIT}` shows what it said"
        return None

    def stop(self) -> str | None:
        """Stop it, and have it not started at boot.

        :return: why it still runs; None where it does not.
        """
        if not self._file.exists():
            return None
        done = _systemctl("disable", "--now", UNIT)
        return None if done.returncode == 0 else f"systemctl disable failed: {done.last_words()}"

    def runs(self, generation: str) -> bool:
        """Tell whether it runs. Its configuration is the last that was written: each start of the unit reads it."""
        return bool(generation) and self._file.exists() and self._is_active()

    def _is_active(self) -> bool:
        return _systemctl("is-active", "--quiet", UNIT).returncode == 0


def _systemctl(*arguments: str) -> Finished:
    return run(["systemctl", "--no-ask-password", *arguments], timeout=_LIMIT)


def _quoted(word: str) -> str:
    """Quote a word for a unit file (systemd.syntax(7)); specifiers are not expanded in it."""
    if not word.isprintable():
        raise OutsideFailure("A path of the monitoring agent has a character that no unit file can hold.")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _path(path: str) -> str:
    return path.replace("%", "%%")
