"""The audit log as the agent writes it: 0600, rotated, told to syslog, honest about what a crash or a person took."""

import json
import logging
import os
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scalarizr.audit.chain import files_of
from scalarizr.audit.log import AuditLog, read_head
from scalarizr.audit.verification import verify


class Said(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.words.append(record.getMessage())


@pytest.fixture
def said() -> Iterator[Said]:
    yield Said()


def opened(directory: Path, said: Said | None = None, **settings: Any) -> AuditLog:
    log = logging.Logger("test")
    if said is not None:
        log.addHandler(said)
    settings = {"max_size": 10**6, "keep": 3, "syslog": str(directory / "syslog"), **settings}
    return AuditLog(directory / "audit.log", directory / "head", log, **settings)


def entries(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files_of(directory / "audit.log") for line in file.read_bytes().splitlines()]


def findings(directory: Path) -> int:
    return len(verify(files_of(directory / "audit.log")).findings)


def test_its_files_are_readable_by_their_owner_alone_from_the_first_byte(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        opened(tmp_path).close()
    finally:
        os.umask(old)
    assert {oct((tmp_path / name).stat().st_mode & 0o777) for name in ("audit.log", "head")} == {"0o600"}


def test_the_next_start_goes_on_with_the_chain(tmp_path: Path) -> None:
    for start in range(3):
        log = opened(tmp_path)
        log.record({"start": start})
        log.close()
    assert [entry["n"] for entry in entries(tmp_path)] == [1, 2, 3] and findings(tmp_path) == 0
    assert read_head(tmp_path / "head") == verify(files_of(tmp_path / "audit.log")).end


def test_rotation_keeps_the_chain_and_the_number_of_files(tmp_path: Path) -> None:
    log = opened(tmp_path, max_size=1000, keep=3)
    for number in range(100):
        log.record({"number": number})
    log.close()
    names = [file.name for file in files_of(tmp_path / "audit.log")]
    assert names == ["audit.log.3", "audit.log.2", "audit.log.1", "audit.log"]
    assert findings(tmp_path) == 0 and log.end.n == 100


def test_a_log_that_logrotate_moved_away_goes_on_in_a_new_file(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.record({"number": 1})
    (tmp_path / "audit.log").rename(tmp_path / "audit.log.1")
    log.record({"number": 2})
    log.close()
    assert [entry["number"] for entry in entries(tmp_path)] == [1, 2] and findings(tmp_path) == 0


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_tail_that_was_cut_off_is_noted_at_the_next_start(tmp_path: Path, said: Said, cut: int) -> None:
    log = opened(tmp_path)
    for number in range(5):
        log.record({"number": number})
    log.close()
    path = tmp_path / "audit.log"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]) + lines[-2][:-cut])
    opened(tmp_path, said).close()
    gap = entries_after_cut(tmp_path)[-1]
    assert gap["event"] == "gap" and gap["noted_n"] == 5
    assert said.words and "line 5" in said.words[0]


def entries_after_cut(directory: Path) -> list[dict[str, Any]]:
    found = []
    for line in (directory / "audit.log").read_bytes().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def test_a_kill_between_the_line_and_its_note_is_no_gap(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.record({"number": 1})
    noted = (tmp_path / "head").read_bytes()
    log.record({"number": 2})
    log.close()
    (tmp_path / "head").write_bytes(noted)
    opened(tmp_path).close()
    assert [entry["n"] for entry in entries(tmp_path)] == [1, 2]


def test_a_full_disk_stops_nothing_is_told_and_leaves_a_chain_that_holds(tmp_path: Path, said: Said) -> None:
    log = opened(tmp_path, said)
    log.record({"number": 1})
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "audit.log").stat().st_size + 40, limit[1]))
        log.record({"number": 2, "text": "x" * 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    log.record({"number": 3})
    log.close()
    found = verify(files_of(tmp_path / "audit.log"))
    assert found.findings == [] and found.cut_off == 1
    assert any("could not be written" in words for words in said.words)


def test_the_head_goes_to_syslog(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(tmp_path / "syslog"))
        syslog.settimeout(5)
        log = opened(tmp_path)
        log.record({"number": 1})
        log.tell_syslog()
        log.close()
        assert f"<86>scalarizr: audit n=1 head={log.end.head}".encode() in syslog.recv(4096)


def test_without_syslog_the_head_is_only_logged(tmp_path: Path, said: Said) -> None:
    log = opened(tmp_path, said)
    log.record({"number": 1})
    log.tell_syslog()
    log.close()
    assert any(log.end.head in words for words in said.words)


def test_a_link_in_the_place_of_the_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "audit.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        opened(tmp_path)
