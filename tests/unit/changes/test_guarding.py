"""The program that waits for the end of a change's time: when it ends before."""

import subprocess
import sys
from pathlib import Path

import pytest

from scalarizr.changes.guarding import _WAIT

# Its naps are ten seconds; what it does at the end is another module's.
QUICK = _WAIT.replace("min(left, 10)", "0.01").partition("from scalarizr.guard")[0] + "print('takes it back')"


def said(directory: Path, seconds: float) -> str:
    record = directory / "history" / "x" / "record.json"
    arguments = ["etc", "x", str(record), str(seconds), *sys.path]
    done = subprocess.run([sys.executable, "-I", "-S", "-c", QUICK, *arguments], capture_output=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def put(directory: Path, kind: str, text: str) -> None:
    place = directory / kind / "x"
    place.mkdir(parents=True)
    (place / "record.json").write_text(text)


@pytest.mark.parametrize("kind", ["pending", "history"])
def test_a_change_that_waits_or_is_being_made_is_taken_back_at_the_end_of_its_time(tmp_path: Path, kind: str) -> None:
    put(tmp_path, kind, '{"status":"waiting"}')
    assert said(tmp_path, 1) == "takes it back"


def test_a_change_that_is_confirmed_needs_no_guard(tmp_path: Path) -> None:
    put(tmp_path, "history", '{"status":"applied"}')
    assert said(tmp_path, 100_000) == ""


def test_where_no_change_comes_the_guard_does_not_stay(tmp_path: Path) -> None:
    assert said(tmp_path, 100_000) == ""
