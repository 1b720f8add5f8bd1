"""Logs over the wire: whole lines, bounded, and nothing outside of their directory."""

import base64
import os
import threading
import time
from pathlib import Path

import pytest

from scalarizr.errors import InvalidParameter, NotFound, OutsideFailure
from scalarizr.system.log_files import newest_part, script_output


def tail(path: Path, size: int) -> bytes:
    return base64.b64decode(newest_part(path, size))


def test_the_newest_whole_lines_are_given(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"first\nsecond\nthird\n")
    assert tail(path, 100) == b"first\nsecond\nthird\n"
    assert tail(path, 13) == b"second\nthird\n"
    assert tail(path, 12) == b"third\n"
    assert tail(path, 6) == b"third\n"
    path.write_bytes(b"x" * 50)
    assert tail(path, 10) == b"x" * 10, "a line longer than all that may be given is cut"


def test_a_log_of_ten_gigabytes_is_read_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with open(path, "wb") as file:
        file.truncate(10 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n")
    assert tail(path, 20).endswith(b"the end\n") and len(tail(path, 1 << 20)) <= 1 << 20


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="missing"):
        newest_part(tmp_path / "missing", 10)
    with pytest.raises(OutsideFailure, match=str(tmp_path)):
        newest_part(tmp_path, 10)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OutsideFailure, match="no regular file"):
        newest_part(tmp_path / "fifo", 10)
    for size in (0, -1, 1 << 40):
        with pytest.raises(InvalidParameter):
            newest_part(tmp_path / "log", size)


def output(directory: Path, identity: str, size: int = 1000) -> tuple[str, str]:
    found = script_output(directory, identity, size)
    return base64.b64decode(found["stdout"]).decode(), base64.b64decode(found["stderr"]).decode()


def test_both_streams_of_a_script_are_given(tmp_path: Path) -> None:
    (tmp_path / "Event.role.name.abc-1-out.log").write_text("printed")
    (tmp_path / "Event.role.name.abc-1-err.log").write_text("complained")
    (tmp_path / "Event.role.name.xabc-1-out.log").write_text("of another")
    assert output(tmp_path, "abc-1") == ("printed", "complained")
    assert all("rotated away" in text for text in output(tmp_path, "bc-1"))
    assert all("rotated away" in text for text in output(tmp_path / "missing", "abc-1"))


def test_a_long_stream_is_cut_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.b.c.1-out.log").write_text("x" * 5000)
    text, _ = output(tmp_path, "1", 100)
    assert text.startswith("x" * 100 + "\n[cut") and "5000" in text


@pytest.mark.parametrize("identity", ["", "../x", "a/b", "*", "a.b", "a\0", "a\n", "x" * 200, "ä"])
def test_an_id_cannot_escape_the_directory(tmp_path: Path, identity: str) -> None:
    with pytest.raises(InvalidParameter):
        script_output(tmp_path, identity, 100)


def test_links_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "a.b.c.1-out.log").symlink_to(secret)
    assert "secret" not in output(logs, "1")[0]


def test_a_log_that_is_rotated_while_it_is_read_gives_lines_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"0 %06d\n" % number for number in range(50_000)))
    stop = threading.Event()

    def rotate() -> None:
        generation = 0
        while not stop.is_set():
            generation += 1
            fresh = tmp_path / "fresh"
            fresh.write_bytes(b"".join(b"%d %06d\n" % (generation % 10, number) for number in range(50_000)))
            os.rename(path, tmp_path / "log.1")
            os.rename(fresh, path)

    rotating = threading.Thread(target=rotate)
    rotating.start()
    try:
        read, deadline = 0, time.monotonic() + 60
        while read < 60 and time.monotonic() < deadline:
            try:
                lines = tail(path, 100_000).splitlines()
            except NotFound:
                continue  # the instant between the two renames
            read += 1
            assert len({line[:1] for line in lines}) == 1 and all(len(line) == 8 for line in lines)
            assert lines[-1].endswith(b"049999")
        assert read == 60
    finally:
        stop.set()
        rotating.join()
