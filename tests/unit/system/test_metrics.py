"""Scaling metrics: scripts and files that do what they should, and those that do not."""

import os
from pathlib import Path

import pytest

from scalarizr.environment.source import Metric
from scalarizr.host.processes import is_alive, wait_until
from scalarizr.system.metrics import read_metrics


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


def script(place: Path, text: str, mode: int = 0o755) -> Path:
    path = place / f"script{len(list(place.iterdir()))}"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return path


def read(path: Path | str, method: str = "execute", limit: float = 60) -> tuple[float | None, str | None]:
    (result,) = read_metrics([Metric(id=1, name="m", path=str(path), retrieve_method=method)], limit)  # type: ignore[arg-type]
    assert result["id"] == 1 and result["name"] == "m"
    assert (result["value"] is None) != (result["error"] is None) and len(result["error"] or "") <= 255
    return result["value"], result["error"]


def test_numbers_are_read(place: Path) -> None:
    assert read(script(place, "echo ' 42.5 '")) == (42.5, None)
    file = place / "file"
    file.write_text("17\nsecond line\n")
    assert read(file, "read") == (17.0, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("echo many", "no number"),
        ("echo nan", "no finite number"),
        ("true", "output is empty"),
        ("echo 1; exit 3", "exit status 3"),
        ("echo sorry >&2; exit 1", "sorry"),
        ("kill -9 $$", "signal 9"),
        ("head -c 5000000 /dev/zero", "no number"),
        ("head -c 5000 /dev/zero | tr '\\0' e >&2; exit 1", "exit status 1"),
    ],
)
def test_a_script_without_a_number_says_why(place: Path, text: str, words: str) -> None:
    value, error = read(script(place, text))
    assert value is None and error and words in error


def test_one_that_forks_and_hangs_is_stopped_with_all_its_children(place: Path) -> None:
    pids = place / "pids"
    path = script(place, f"sleep 100 & echo $! >> {pids}; (sleep 101 & echo $! >> {pids}; wait) & sleep 102")
    # Long enough for its children to be there, however slow this machine is.
    value, error = read(path, limit=3)
    assert value is None and error and "3 s" in error
    children = [int(pid) for pid in pids.read_text().split()]
    assert len(children) == 2 and wait_until(lambda: not any(map(is_alive, children)), 30), "a child was left behind"


def test_one_that_leaves_a_child_with_its_output_open_is_not_waited_for(place: Path) -> None:
    assert read(script(place, "sleep 100 & echo 5")) == (5.0, None)


@pytest.mark.root
def test_what_others_may_write_is_not_run(place: Path) -> None:
    for mode in (0o775, 0o757):
        value, error = read(script(place, "echo 1", mode))
        assert value is None and error and "may be written by others" in error
    foreign = script(place, "echo 1")
    os.chown(foreign, 12345, 0)
    assert "may be written by others" in (read(foreign)[1] or "")
    open_directory = place / "open"
    open_directory.mkdir()
    inside = script(open_directory, "echo 1")
    open_directory.chmod(0o777)
    assert "may be written by others" in (read(inside)[1] or "")
    open_directory.chmod(0o1777)
    assert read(inside) == (1.0, None)
    link = place / "link"
    link.symlink_to(foreign)
    assert "may be written by others" in (read(link)[1] or "")


def test_files_that_are_none_say_why(place: Path) -> None:
    os.mkfifo(place / "fifo")
    (place / "long").write_text("1" * 10_000_000)
    (place / "plain").write_text("1")
    for path, method in (
        (place / "missing", "execute"),
        (place / "missing", "read"),
        (place / "plain", "execute"),
        (place, "execute"),
        (place, "read"),
        (place / "long", "read"),
        ("relative", "read"),
    ):
        value, error = read(path, method)
        assert value is None and error
    value, error = read(place / "fifo", "read", limit=0.3)
    assert value is None and error and "0.3 s" in error


def test_all_are_read_at_the_same_time_in_the_environments_order(place: Path) -> None:
    # Each waits until all of them are there.
    there = f"until [ $(ls {place} | grep -c here) -eq 20 ]; do sleep 0.05; done"
    paths = [script(place, f"touch {place}/here-{number}; {there}; echo {number}") for number in range(20)]
    results = read_metrics(
        [Metric(id=n, name=str(n), path=str(path), retrieve_method="execute") for n, path in enumerate(paths)], 60
    )
    assert [result["value"] for result in results] == [float(number) for number in range(20)]
