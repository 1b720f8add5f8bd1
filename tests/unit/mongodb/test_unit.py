"""The unit that systemd is given: it reads it, and every word stays one word."""

import shutil
import subprocess
from pathlib import Path

import pytest

from scalarizr.errors import OutsideFailure
from scalarizr.mongodb.record import Wanted
from scalarizr.mongodb.unit import UNIT, unit_text

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="LEFT OUT: no systemd-analyze")


def wanted(directory: Path, account: str = "daemon") -> Wanted:
    program = directory / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    command = [str(program), "-f", str(directory / 'a "b" $c %d \\ .config')]
    return Wanted(
        enabled=True,
        command=command,
        directory=str(directory),
        home=str(directory),
        output=str(directory / "o"),
        account=account,
        generation="1",
    )


def test_it_runs_as_the_account_restarts_always_and_leaves_the_servers_alone(tmp_path: Path) -> None:
    lines = unit_text(wanted(tmp_path)).splitlines()
    for line in ("User=daemon", "Restart=always", "KillMode=process", "StartLimitIntervalSec=0", "NoNewPrivileges=yes"):
        assert line in lines
    assert "User=" not in unit_text(wanted(tmp_path, account=""))


def test_what_no_unit_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutsideFailure):
        unit_text(Wanted(command=["/bin/x\ny"], directory="/"))


@needs_systemd
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path) -> None:
    directory = tmp_path / "with space"
    directory.mkdir()
    unit = tmp_path / UNIT
    unit.write_text(unit_text(wanted(directory)))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=60)
    about = [line for line in done.stderr.splitlines() if UNIT in line or "Failed" in line]
    assert about == [] and done.returncode == 0, done.stderr
