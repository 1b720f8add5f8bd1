"""The agent's own logs: one line an event, rotated, never in the way."""

import os
from pathlib import Path

import pytest

from scalarizr.logs import AgentLog, close_log, open_log, request_id, request_secrets
from scalarizr.settings.load import load_settings


def opened(tmp_path: Path, settings: str = "") -> AgentLog:
    (tmp_path / "scalarizr.toml").write_text(f'[paths]\nlogs = "logs"\n[logs]\n{settings}')
    return open_log(load_settings(tmp_path))


def lines(tmp_path: Path, name: str = "scalarizr.log") -> list[str]:
    return (tmp_path / "logs" / name).read_text().splitlines()


def test_an_event_is_one_line_with_time_level_and_request(tmp_path: Path) -> None:
    log = opened(tmp_path)
    token = request_id.set("ab-1")
    log.info("evil\nname\r\x1b[31m and %s", "ünïcode")
    request_id.reset(token)
    log.debug("detail")
    (line,) = lines(tmp_path)
    assert (
        line.endswith("INFO request=ab-1 evil\\nname\\r\\x1b[31m and ünïcode") and line[10] == "T" and line[23] == "Z"
    )
    assert len(lines(tmp_path, "scalarizr_debug.log")) == 2
    assert (tmp_path / "logs" / "scalarizr.log").stat().st_mode & 0o777 == 0o600
    close_log(log)


def test_secrets_of_the_request_are_masked_in_tracebacks_too(tmp_path: Path) -> None:
    log = opened(tmp_path)
    token = request_secrets.set(("hunter2hunter2",))
    try:
        raise ValueError("hunter2hunter2 is wrong")
    except ValueError:
        log.exception("failed with hunter2hunter2")
    request_secrets.reset(token)
    text = "\n".join(lines(tmp_path))
    assert "hunter2" not in text and "Traceback" in text and "****** is wrong" in text
    assert all(line.startswith("    ") for line in lines(tmp_path)[1:])
    close_log(log)


def test_a_log_is_rotated_by_size(tmp_path: Path) -> None:
    log = opened(tmp_path, "max_size = 2000\nkeep = 2\n")
    for number in range(200):
        log.info("event %d %s", number, "x" * 50)
    names = sorted(path.name for path in (tmp_path / "logs").glob("scalarizr.log*"))
    assert names == ["scalarizr.log", "scalarizr.log.1", "scalarizr.log.2"]
    assert all((tmp_path / "logs" / name).stat().st_size < 2300 for name in names)
    close_log(log)


def test_a_log_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.info("first")
    (tmp_path / "logs" / "scalarizr.log").rename(tmp_path / "logs" / "old")
    for handler in log.handlers:
        handler._checked = 0.0  # type: ignore[attr-defined]  # as if a second had passed
    log.info("second")
    assert len(lines(tmp_path)) == 1 and lines(tmp_path)[0].endswith("second")
    close_log(log)


def test_a_disk_that_is_full_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = opened(tmp_path)
    with open("/dev/full", "wb") as full:
        for handler in log.handlers:
            os.dup2(full.fileno(), handler._file._descriptor)  # type: ignore[attr-defined]
            handler._follow = lambda: None  # type: ignore[attr-defined]  # or, a second later, it opens the file anew
        log.call_line("a call")
        log.info("more")
    assert capsys.readouterr().err.count("No space left") == 2  # of each file once, until it can be written again
    close_log(log)


def test_without_debug_there_is_one_file(tmp_path: Path) -> None:
    log = opened(tmp_path, "debug = false\n")
    log.debug("detail")
    log.call_line("a call")
    assert not (tmp_path / "logs" / "scalarizr_debug.log").exists() and len(lines(tmp_path)) == 1
    close_log(log)
