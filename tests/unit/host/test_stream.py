"""A program whose output is read as it comes: whole, with its last words, and never for longer than wanted."""

import threading
import time
from pathlib import Path

import pytest

from scalarizr.errors import OutsideFailure, TimedOut
from scalarizr.host import stream as module
from scalarizr.host.stream import Stream


def test_all_that_it_writes_comes_in_order_whatever_the_pieces() -> None:
    with Stream(["sh", "-c", "seq 1 200000; echo done >&2"], stall=90) as stream:
        text = b"".join(stream.chunks())
        ended = stream.finished()
    assert text == b"".join(b"%d\n" % number for number in range(1, 200001))
    assert stream.taken == len(text) and ended.returncode == 0 and ended.last_words() == "done"


def test_its_last_words_are_kept_and_its_first_are_not_in_the_way() -> None:
    with Stream(["sh", "-c", "seq 1 100000 >&2; echo why >&2; exit 3"], stall=90) as stream:
        assert list(stream.chunks()) == []
        ended = stream.finished()
    assert ended.returncode == 3 and ended.last_words(100).endswith("why") and len(ended.stderr) <= 2**14


def test_one_that_says_nothing_for_too_long_is_ended() -> None:
    with Stream(["sleep", "100"], stall=0.3) as stream:
        pid = stream._process.pid
        with pytest.raises(TimedOut, match=r"sleep said nothing"):
            next(stream.chunks())
    assert not Path(f"/proc/{pid}").exists()


def test_it_tells_since_when_it_is_waited_for_and_ends_when_another_thread_says_so() -> None:
    with Stream(["sleep", "100"], stall=90) as stream:
        seen: list[float] = []

        def end() -> None:
            deadline = time.monotonic() + 60
            while stream.waited_since is None and time.monotonic() < deadline:
                time.sleep(0.01)
            seen.append(stream.waited_since or 0)
            stream.kill()

        thread = threading.Thread(target=end)
        thread.start()
        assert list(stream.chunks()) == []
        thread.join()
        assert seen[0] > 0 and stream.finished().returncode == -9


def test_one_that_is_left_in_the_middle_is_dead_afterwards() -> None:
    with Stream(["yes"], stall=90) as stream:
        assert next(stream.chunks()).startswith(b"y\n")
        pid = stream._process.pid
    assert not Path(f"/proc/{pid}").exists()


def test_one_that_is_not_there_is_said_so() -> None:
    with pytest.raises(OutsideFailure, match="could not be started: No such file"):
        Stream(["/nonexistent/pg_dump"], stall=1)


def test_one_that_cannot_be_killed_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DYING", 0.05)
    # As where the kernel holds it in the middle of a system call.
    monkeypatch.setattr(Stream, "kill", lambda _stream: None)
    with Stream(["sleep", "600"], stall=90) as stream:
        process = stream._process
    assert process.poll() is None
    process.kill()
    process.wait(60)
