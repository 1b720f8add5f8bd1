"""Work beside its caller: whatever cuts the caller off, the work has ended when the caller goes on."""

import contextvars
import threading
import time
from collections.abc import Iterator

import pytest

from cut_off import CutOff, can_be_cut_off, cut_the_main_thread_off
from scalarizr.errors import OutsideFailure
from scalarizr.host.side_thread import SideThread, run_aside


@pytest.fixture(autouse=True)
def _signalled() -> Iterator[None]:
    with can_be_cut_off():
        yield


def test_what_the_work_returns_is_given() -> None:
    assert run_aside(lambda: threading.current_thread().name, "beside") == "beside"


def test_what_the_work_raises_is_raised() -> None:
    with pytest.raises(ValueError, match="no number"):
        run_aside(lambda: int("no number"), "beside")


def test_the_work_has_its_callers_context() -> None:
    told: contextvars.ContextVar[str] = contextvars.ContextVar("told")
    told.set("before")
    thread = SideThread(told.get, "beside")
    thread.start()
    assert thread.result() == "before"


def test_a_caller_that_is_cut_off_goes_on_when_the_work_has_ended() -> None:
    ended: list[bool] = []

    def work() -> None:
        cut_the_main_thread_off()
        time.sleep(0.3)  # in which a caller that does not wait again is gone
        ended.append(True)

    with pytest.raises(CutOff):
        run_aside(work, "beside")
    assert ended == [True]


def test_a_start_that_is_cut_off_leaves_no_work_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()
    ended: list[bool] = []
    start = threading.Thread.start

    def start_and_be_cut_off(thread: threading.Thread) -> None:
        start(thread)
        begun.wait(30)
        cut_the_main_thread_off()

    monkeypatch.setattr(threading.Thread, "start", start_and_be_cut_off)

    def work() -> None:
        begun.set()
        time.sleep(0.3)  # in which a caller that does not wait is gone
        ended.append(True)

    with pytest.raises(CutOff):
        run_aside(work, "beside")
    assert ended == [True]


def test_a_thread_that_comes_after_its_start_was_given_up_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    late: list[threading.Thread] = []
    done: list[bool] = []

    def be_cut_off_first(thread: threading.Thread) -> None:
        late.append(thread)
        cut_the_main_thread_off()

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", be_cut_off_first)
        with pytest.raises(CutOff):
            run_aside(lambda: done.append(True), "beside")
    late[0].start()
    late[0].join()
    assert done == []


def test_a_process_without_room_for_a_thread_says_so() -> None:
    before = threading.stack_size(1 << 60)  # more than there are addresses
    try:
        with pytest.raises(OutsideFailure, match=r"no more threads"):
            run_aside(lambda: None, "beside")
    finally:
        threading.stack_size(before)


def test_a_result_is_waited_for_no_longer_than_wanted() -> None:
    ended = threading.Event()
    thread = SideThread(lambda: ended.wait(20), "beside")
    thread.start()
    with pytest.raises(TimeoutError):
        thread.result(limit=0.05)
    ended.set()
    assert thread.result(limit=20) is True and thread.ended


def test_what_may_be_left_does_not_hold_up_a_caller_that_is_cut_off() -> None:
    ended, bell = threading.Event(), threading.Event()

    def work() -> None:
        cut_the_main_thread_off()
        ended.wait(60)

    thread = SideThread(work, "beside", may_be_left=True, bell=bell)
    with pytest.raises(CutOff):
        thread.start()
        thread.result(limit=50)
    assert not thread.ended and not bell.is_set()
    ended.set()
    assert bell.wait(60) and thread.ended


def test_whoever_waits_may_look_at_something_meanwhile_and_give_up() -> None:
    ended = threading.Event()
    thread = SideThread(lambda: ended.wait(60), "beside")
    thread.start()

    def give_up() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        thread.result(tick=give_up)
    ended.set()
    assert thread.result() is True
