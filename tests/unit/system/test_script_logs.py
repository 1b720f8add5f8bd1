"""Where scripts' output goes: inside of its directory, bounded, and for a time."""

import os
import time
from pathlib import Path

import pytest

from scalarizr.errors import AlreadyExists, OutsideFailure
from scalarizr.system.script_logs import ScriptLog, give_up, log_paths, log_stem, prune, reserve


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))


def aged(path: Path, seconds: float, size: int = 0) -> Path:
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - seconds,) * 2)
    return path


@pytest.mark.parametrize(
    ("given", "stem"),
    [
        (("HostUp", "app", "deploy.sh", "7"), "HostUp.app.deploy.sh.7"),
        ((None, "", "job", "7"), "none.none.job.7"),
        (("..", "../../etc", "/etc/passwd", "7"), "_._etc._etc_passwd.7"),
        (("a\0b", "имя", ".hidden", "7"), "a_b._._hidden.7"),
    ],
)
def test_no_name_leads_out_of_the_directory(given: tuple[str, str, str, str], stem: str) -> None:
    assert log_stem(*given) == stem
    out, _err = log_paths(Path("/logs"), stem)
    assert out.parent == Path("/logs") and os.path.normpath(out) == str(out)


def test_the_longest_names_still_are_names_of_files(tmp_path: Path) -> None:
    stem = log_stem("e" * 999, "r" * 999, "n" * 999, "i" * 64)
    reserve(tmp_path, {"i" * 64: stem})
    assert len(names(tmp_path)) == 2


def test_files_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "scripting"
    reserve(directory, {"7": "none.none.job.7"})
    assert names(directory) == ["none.none.job.7-err.log", "none.none.job.7-out.log"]
    assert all((directory / name).stat().st_mode & 0o777 == 0o600 for name in names(directory))
    assert directory.stat().st_mode & 0o777 == 0o700


def test_an_id_is_used_once_whatever_the_names_and_then_nothing_is_made(tmp_path: Path) -> None:
    reserve(tmp_path, {"7": "none.none.job.7"})
    with pytest.raises(AlreadyExists, match="7"):
        reserve(tmp_path, {"8": "HostUp.app.other.8", "7": "HostUp.app.other.7"})
    assert len(names(tmp_path)) == 2
    give_up(tmp_path, ["none.none.job.7"])
    reserve(tmp_path, {"7": "none.none.job.7"})


def test_a_link_in_the_place_of_a_log_is_not_followed(tmp_path: Path) -> None:
    directory = tmp_path / "scripting"
    directory.mkdir()
    (directory / "none.none.job.7-err.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AlreadyExists):
        reserve(directory, {"7": "none.none.job.7"})
    with pytest.raises(OSError):
        ScriptLog(directory / "none.none.job.7-err.log", 100)
    assert not (tmp_path / "elsewhere").exists()


def test_a_directory_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutsideFailure, match=r"file.*No script was started"):
        reserve(tmp_path / "file" / "scripting", {"7": "none.none.job.7"})


def test_what_is_too_much_is_thrown_away_and_the_log_says_so(tmp_path: Path) -> None:
    log = ScriptLog(tmp_path / "a-out.log", 10)
    log.write(b"0123456789")
    assert not log.full
    log.write(b"more")
    log.write(b"and more")
    assert log.full
    log.close()
    assert (tmp_path / "a-out.log").read_text() == "0123456789\n[cut: more than 10 bytes are not kept]\n"


def test_old_logs_go_and_nothing_else_does(tmp_path: Path) -> None:
    aged(tmp_path / "none.none.job.7-out.log", 100)
    aged(tmp_path / "none.none.job.8-out.log", 10)
    aged(tmp_path / "notes.txt", 100)
    (tmp_path / "dir.9-out.log").mkdir()
    assert prune(tmp_path, keep=50, size=1 << 20) == 1
    assert names(tmp_path) == ["dir.9-out.log", "none.none.job.8-out.log", "notes.txt"]
    assert prune(tmp_path / "missing", keep=50, size=1) == 0


def test_the_oldest_go_first_where_all_are_too_large(tmp_path: Path) -> None:
    for age in (30, 20, 10):
        aged(tmp_path / f"none.none.job.{age}-out.log", age, size=100)
    prune(tmp_path, keep=1000, size=250)
    assert names(tmp_path) == ["none.none.job.10-out.log", "none.none.job.20-out.log"]


def test_the_log_of_a_script_that_runs_stays_however_long_it_said_nothing(tmp_path: Path) -> None:
    path = tmp_path / "none.none.job.7-out.log"
    log = ScriptLog(path, 100)
    os.utime(path, (0, 0))
    assert prune(tmp_path, keep=50, size=1 << 20) == 0
    log.close()
    assert prune(tmp_path, keep=50, size=1 << 20) == 0, "it ages from its end"
    os.utime(path, (0, 0))
    assert prune(tmp_path, keep=50, size=1 << 20) == 1
