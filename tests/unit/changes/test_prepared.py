"""A change being prepared: whatever cuts it off, nothing of it outlives its block."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cut_off import CutOff, can_be_cut_off, cut_the_main_thread_off
from scalarizr.changes.journal import Journal, PlannedFile, Record
from scalarizr.changes.live_file import FileState
from scalarizr.changes.prepared import Prepared
from scalarizr.changes.switch import Switch

_RECORD = Record("001", 1.0, "nginx.reconfigure", "nginx", "applying", [])


@pytest.fixture(autouse=True)
def _signalled() -> Iterator[None]:
    with can_be_cut_off():
        yield


class SlowJournal(Journal):
    """A journal on a disk that takes its time: `form` goes on when `goes_on` is set."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, keep=3)
        self.reached = threading.Event()
        self.goes_on = threading.Event()

    def form(self, record: Record, files: list[PlannedFile], prepared: Prepared | None = None) -> Record:
        self.reached.set()
        self.goes_on.wait(30)
        return super().form(record, files, prepared)


def _planned(tmp_path: Path) -> list[PlannedFile]:
    live = tmp_path / "proxies.include"
    live.write_text("old\n")
    return [PlannedFile(live, FileState(b"old\n"), FileState(b"new\n"))]


def _left(tmp_path: Path) -> list[str]:
    return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())


def test_what_is_cut_off_while_it_waits_for_the_writing_removes_what_is_written_after(tmp_path: Path) -> None:
    journal, files = SlowJournal(tmp_path / "changes"), _planned(tmp_path)

    def cut_off_and_go_on() -> None:
        journal.reached.wait(30)
        time.sleep(0.1)  # the main thread gets as far as waiting
        cut_the_main_thread_off()
        time.sleep(0.2)  # and further, if it did not wait again
        journal.goes_on.set()

    disturbance = threading.Thread(target=cut_off_and_go_on)
    disturbance.start()
    with pytest.raises(CutOff), Prepared(journal, _RECORD, files, Switch("001", files)) as prepared:
        prepared.start()
        prepared.formed()
    disturbance.join()
    for thread in threading.enumerate():
        if thread.name == "prepare-change":
            thread.join()
    assert _left(tmp_path) == ["changes/journal-lock", "proxies.include"]


def test_what_the_journal_does_not_take_goes_at_the_end_of_the_block(tmp_path: Path) -> None:
    journal, files = Journal(tmp_path / "changes", keep=3), _planned(tmp_path)
    with Prepared(journal, _RECORD, files, Switch("001", files)) as prepared:
        prepared.start()
        assert prepared.formed() is not None and len(_left(tmp_path)) > 3
    assert _left(tmp_path) == ["changes/journal-lock", "proxies.include"]


def test_what_the_journal_takes_stays(tmp_path: Path) -> None:
    journal, files = Journal(tmp_path / "changes", keep=3), _planned(tmp_path)
    with Prepared(journal, _RECORD, files, Switch("001", files)) as prepared:
        prepared.start()
        begun = journal.begin(_RECORD, files, prepared)
    assert journal.pending() == [begun] and journal.formed() == []
