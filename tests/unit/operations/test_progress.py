"""What an operation's code is told of its cancellation: once, and not in the middle of what must not be cut off."""

import pytest

from scalarizr.operations.progress import Canceled, Running


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
