"""The chain of the audit log: every line that was altered, removed or put in shows."""

import json
from pathlib import Path

import pytest

from scalarizr.audit.chain import BEGINNING, Link, files_of, hash_of, line_of
from scalarizr.audit.verification import Verification, verify

_NOTHING = Link()


def written(path: Path, count: int, end: Link = _NOTHING) -> Link:
    with path.open("ab") as stream:
        for number in range(count):
            line, end = line_of({"method": f"nginx.call{number}", "params": {"hostname": "bücher.example"}}, end)
            stream.write(line)
    return end


def verified(path: Path, *heads: str) -> Verification:
    return verify(files_of(path), heads)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.log"
    written(path, 20)
    return path


def test_a_line_is_json_that_carries_its_number_and_the_hash_of_the_one_before(log: Path) -> None:
    first, second = log.read_bytes().splitlines()[:2]
    assert json.loads(first)["n"] == 1 and json.loads(first)["previous"] == BEGINNING
    assert json.loads(second)["previous"] == hash_of(first)


def test_a_log_as_it_was_written_has_no_findings(log: Path) -> None:
    found = verified(log)
    assert found.findings == [] and found.lines == 20 and found.first == 1 and found.end.n == 20


@pytest.mark.parametrize("number", range(19))
def test_an_altered_line_is_found_at_the_next_one(log: Path, number: int) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    lines[number] = lines[number].replace(b"nginx.call", b"nginx.cull")
    log.write_bytes(b"".join(lines))
    assert [finding.line for finding in verified(log).findings] == [number + 2]


@pytest.mark.parametrize("number", range(1, 19))
def test_a_removed_line_is_found(log: Path, number: int) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:number] + lines[number + 1 :]))
    assert [finding.line for finding in verified(log).findings] == [number + 1]


def test_a_line_put_in_or_two_that_changed_places_are_found(log: Path) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:5], lines[4], *lines[5:]]))
    assert verified(log).findings
    lines[7], lines[8] = lines[8], lines[7]
    log.write_bytes(b"".join(lines))
    assert verified(log).findings


def test_a_log_whose_rest_was_written_anew_lacks_the_head_that_is_known(log: Path) -> None:
    head = verified(log).end.head
    assert verified(log, head).heads == {head: True}
    log.unlink()
    written(log, 20, Link(0, hash_of(b"another beginning")))
    assert verified(log, head).heads == {head: False} and verified(log).findings


def test_the_chain_goes_on_over_rotated_files_of_which_the_oldest_are_gone(tmp_path: Path) -> None:
    path, end = tmp_path / "audit.log", Link()
    for name in ("audit.log.11", "audit.log.2", "audit.log.1", "audit.log"):
        end = written(tmp_path / name, 5, end)
    (tmp_path / "audit.log.2.gz").write_bytes(b"another file")
    assert [file.name for file in files_of(path)] == ["audit.log.11", "audit.log.2", "audit.log.1", "audit.log"]
    assert verified(path).findings == []
    (tmp_path / "audit.log.11").unlink()
    found = verified(path)
    assert found.findings == [] and found.first == 6
    (tmp_path / "audit.log.1").unlink()
    assert [finding.words for finding in verified(path).findings] == ["it is line 16 where line 11 was expected"]


def test_a_line_that_a_crash_cut_off_is_chained_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    end = written(path, 3)
    half = line_of({"method": "nginx.half"}, end)[0][:30]
    path.write_bytes(path.read_bytes() + half + b"\n")
    written(path, 2, Link(4, hash_of(half)))
    found = verified(path)
    assert found.findings == [] and found.cut_off == 1 and found.end.n == 6
    path.write_bytes(path.read_bytes().replace(half, half[:-1] + b"!"))
    assert len(verified(path).findings) == 1
