"""What an operation's code is told of its cancellation: once, and not in the middle of what must not be cut off."""

import contextvars
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from scalarizr.host.processes import is_alive
from scalarizr.host.run import run
from scalarizr.host.stream import Stream
from scalarizr.operations.progress import Canceled, Running, set_current


def test_a_cancellation_is_raised_once_so_that_cleaning_up_is_not_cut_off() -> None:
    running = Running()
    with pytest.raises(Canceled):
        running.cancel()
    running.cancel()
    with running.uninterrupted():
        running.cancel()


def test_it_waits_for_the_end_of_what_must_not_be_cut_off() -> None:
    running = Running()
    done = []
    with pytest.raises(Canceled):
        with running.uninterrupted():
            with running.uninterrupted():
                running.cancel()
                running.cancel()
                done.append("inner")
            done.append("outer")
        done.append("never")
    assert done == ["inner", "outer"]
    running.cancel()


def test_after_the_end_it_comes_too_late() -> None:
    running = Running()
    running.end()
    running.cancel()


@pytest.mark.parametrize(
    "start",
    [lambda: run(["sleep", "600"], timeout=600), lambda: Stream(["sleep", "600"], stall=600)],
    ids=["run", "stream"],
)
def test_a_program_that_is_just_being_started_is_ended(
    start: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    running, started, popen = Running(), list[int](), subprocess.Popen

    def be_cancelled_then(*arguments: Any, **options: Any) -> Any:
        process = popen(*arguments, **options)
        started.append(process.pid)
        running.cancel()
        return process

    def in_an_operation() -> None:
        set_current(running)
        start()

    monkeypatch.setattr(subprocess, "Popen", be_cancelled_then)
    with pytest.raises(Canceled):
        contextvars.copy_context().run(in_an_operation)
    assert len(started) == 1 and not is_alive(started[0])
