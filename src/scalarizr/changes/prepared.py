"""A change being prepared while its program checks it, so that little is left to be written when the program says yes.

First the journal's objects, then the change's record beside the journal, then what the switch needs beside the live
files: each durable before the next, so that whatever a crash leaves is found by the record. Nothing of it counts before
the journal takes it.
"""

import contextlib
import hashlib
import os
import zlib
from pathlib import Path
from types import TracebackType

from scalarizr.changes.journal import Journal, PlannedFile, Record
from scalarizr.changes.switch import Switch
from scalarizr.errors import Busy, OutsideFailure
from scalarizr.host.files import write_file
from scalarizr.host.side_thread import SideThread


class Prepared:
    """A change that may be made: while the block runs, a thread writes what it needs.

    What cannot be written, or is swept up meanwhile, is written by `Journal.begin` and the switch, which say why they
    cannot. What the journal did not take by the end of the block goes.

    :param journal: the journal that may take it.
    :param record: the change's, without its files.
    :param files: what the change is about.
    :param switch: theirs.
    """

    def __init__(self, journal: Journal, record: Record, files: list[PlannedFile], switch: Switch) -> None:
        self._journal = journal
        self._record = record
        self._files = files
        self._switch = switch
        self._token = os.urandom(8).hex()
        self._digests: dict[int, str] = {}
        self._written: dict[str, Path] = {}
        self._formed: Record | None = None
        self._is_taken = False
        self._thread = SideThread(self._prepare, "prepare-change")
        self._is_started = False

    def __enter__(self) -> "Prepared":
        return self

    def start(self) -> None:
        """Begin to write: within the block, so that whatever a cancellation cuts off goes at its end."""
        with contextlib.suppress(OutsideFailure):  # no thread, nothing prepared
            self._thread.start()
            self._is_started = True

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.wait()
        for place in self._written.values():
            with contextlib.suppress(OSError):
                os.unlink(place)
        if self._formed is not None and not self._is_taken:
            self._switch.tidy(durably=True)
            with contextlib.suppress(OSError, Busy):
                self._journal.drop_formed(self._record)

    def formed(self) -> Record | None:
        """Wait for what is being written; give the record as it stands beside the journal, None where it does not."""
        if self._is_started:
            self._thread.result()
        return self._formed

    def taken(self) -> None:
        """Say that the journal has it."""
        self._is_taken = True

    def digest(self, content: bytes) -> str:
        """Give a content's hash."""
        return self._digests.get(id(content)) or hashlib.sha256(content).hexdigest()

    def take(self, digest: str, place: Path) -> bool:
        """Make what was written an object; its name is not durable yet.

        :return: whether there was something, whole and durable.
        """
        written = self._written.pop(digest, None)
        if written is None:
            return False
        try:
            os.rename(written, place)
        except FileNotFoundError:
            return False
        return True

    def _prepare(self) -> None:
        with contextlib.suppress(OSError, Busy):
            self._journal.make_directories()
            self._write_objects()
            self._formed = self._journal.form(self._record, self._files, self)
            self._switch.prepare()

    def _write_objects(self) -> None:
        for content in (state.content for file in self._files for state in (file.new, file.old)):
            if not content or id(content) in self._digests:
                continue
            digest = hashlib.sha256(content).hexdigest()
            self._digests[id(content)] = digest
            if digest not in self._written and not (self._journal.objects / digest).exists():
                place = self._journal.objects / f".{digest}.{self._token}"
                write_file(place, zlib.compress(content, 1), mode=0o600, durable_name=False)
                self._written[digest] = place
