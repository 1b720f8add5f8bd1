"""A transaction on configuration files: stage → validate → journal → apply → after | undo.

Old set or new set, whatever happens meanwhile: an error undoes what was done, the next start undoes what a crash left.
A file that a person edited since is left as it is, and reported.
"""

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from scalarizr.changes.diff import unified_diff
from scalarizr.changes.journal import Journal, JournaledFile, Record
from scalarizr.changes.live_file import (
    FileState,
    drop_staged,
    half_written,
    kept_in_place,
    put,
    read_state,
    rewrite,
    stage,
)
from scalarizr.changes.mode import DryRun, is_dry_run
from scalarizr.errors import OutsideFailure, PermissionRefused, Refused, ScalarizrError
from scalarizr.host.files import make_private_directory
from scalarizr.host.locks import locked, try_lock

Validate = Callable[[list[JournaledFile]], str]


class Changes:
    """Makes transactions, and cleans up after those that were cut off.

    :param state: directory of the journal and the locks.
    :param log: the agent's log.
    """

    def __init__(self, state: Path, log: logging.Logger) -> None:
        self._state = state
        self._log = log
        self.journal = Journal(state)

    @contextlib.contextmanager
    def transaction(self, service: str, method: str) -> Iterator["Transaction"]:
        """Hold a service's configuration, in all processes, while it is changed.

        :param service: whose configuration it is: a plain name.
        :param method: what the caller called, for the history.
        :raises Busy: somebody else holds it for longer than 30 s.
        """
        locks = self._state / "locks"
        make_private_directory(self._state)
        make_private_directory(locks)
        with locked(locks / service, what=f"the configuration of {service}"):
            yield Transaction(self.journal, self._log, service, method)

    def recover(self) -> list[Record]:
        """Undo what a crash left half done.

        :return: the changes that were undone, with their final status: `failed`, or `conflict` where a person edited a
            file since, which was left as it is.
        """
        recovered = []
        for record in self.journal.pending():
            lock = try_lock(self._state / "locks" / record.service)
            if lock is None:
                continue  # another process is in the middle of it
            try:
                recovered.append(self._undo(record))
            finally:
                os.close(lock)
        return recovered

    def _undo(self, record: Record) -> Record:
        edited = undo(record)
        record = msgspec.structs.replace(record, status="conflict" if edited else "failed")
        self.journal.finish(record)
        if edited:
            self._log.error(
                "change id=%s method=%s was cut off and undone, except what was edited since: %s",
                record.id,
                record.method,
                ", ".join(edited),
            )
        else:
            self._log.warning("change id=%s method=%s was cut off and undone", record.id, record.method)
        return record


class Transaction:
    """One change of one service's files; made by `Changes.transaction`."""

    def __init__(self, journal: Journal, log: logging.Logger, service: str, method: str) -> None:
        self._journal = journal
        self._log = log
        self._service = service
        self._method = method
        self._files: dict[Path, JournaledFile] = {}

    def read(self, path: Path) -> bytes | None:
        """Give what the transaction would leave in a file; None where there is none.

        :raises OutsideFailure: it cannot be read.
        """
        real = Path(os.path.realpath(path))
        planned = self._files.get(real)
        return planned.new.content if planned else self._state(real).content

    def write(self, path: Path, content: bytes, *, mode: int | None = None, secret: bool = False) -> None:
        """Plan a file's new content. A link stays; the file that it leads to is changed.

        :param mode: permission bits; None: as they are, 0644 for a new file.
        :param secret: the content is never shown in a diff.
        """
        real = Path(os.path.realpath(path))
        old = self._files[real].old if real in self._files else self._state(real)
        kept = old.mode if old.content is not None else 0o644
        new = FileState(content, kept if mode is None else mode, old.owner, old.attributes)
        self._plan(real, old, new, secret)

    def delete(self, path: Path, *, secret: bool = False) -> None:
        """Plan a file's removal."""
        real = Path(os.path.realpath(path))
        old = self._files[real].old if real in self._files else self._state(real)
        self._plan(real, old, FileState(None), secret)

    def restore(self, path: Path, state: FileState, *, secret: bool = False) -> None:
        """Plan a file to become what it once was, owner and attributes included.

        :param path: the file itself, no link to it.
        """
        self._plan(path, self._state(path), state, secret)

    def apply(
        self,
        *,
        validate: Validate | None = None,
        services: list[dict[str, str]] | None = None,
        after: Callable[[], None] | None = None,
    ) -> Record | None:
        """Do what was planned, all of it or nothing.

        :param validate: checks the planned set before a live byte changes; gives the validator's words, or raises.
        :param services: what happens to services, for a dry run: `[{name, action}]`.
        :param after: what makes the new set effective; where it raises, the old set is put back.
        :return: the change's record; None where everything was so already.
        :raises DryRun: in a dry run, instead of doing anything.
        :raises ScalarizrError: nothing was changed, or everything was put back.
        """
        files = [file for file in self._files.values() if not _same(file.old, file.new)]
        valid, words = True, ""
        if validate is not None and files:
            try:
                words = validate(files)
            except ScalarizrError as refusal:
                if not is_dry_run():
                    raise
                valid, words = False, refusal.message
        if is_dry_run():
            raise DryRun(self._preview(files, valid, words, services or []))
        if not files:
            return None
        now = time.time()
        identity = f"{int(now * 1000):013x}{os.urandom(4).hex()}"
        record = Record(identity, now, self._method, self._service, "applying", files)
        try:
            self._journal.begin(record)
        except OSError as error:
            raise _failure(error, "The change could not be written into the journal", "Nothing was changed.") from error
        self._carry_out(record, after)
        record = msgspec.structs.replace(record, status="applied")
        self._journal.finish(record)
        self._log.info(
            "change id=%s method=%s files=%s", record.id, record.method, ",".join(file.path for file in files)
        )
        return record

    def _carry_out(self, record: Record, after: Callable[[], None] | None) -> None:
        try:
            for file in record.files:
                if file.new.content is not None and not file.in_place:
                    stage(Path(file.path), file.new, record.id)
            for file in record.files:
                self._refuse_edited(file)
                put(Path(file.path), file.new, record.id, in_place=file.in_place)
            if after is not None:
                after()
        except BaseException as failure:
            edited = undo(record)
            if edited:
                self._journal.finish(msgspec.structs.replace(record, status="conflict"))
                rest = f"Everything was put back, except what somebody edited meanwhile: {', '.join(edited)}."
            else:
                self._journal.forget(record)
                rest = "Everything was put back as it was."
            if isinstance(failure, OSError):
                raise _failure(failure, "The change could not be made", rest) from failure
            raise

    def _refuse_edited(self, file: JournaledFile) -> None:
        if read_state(Path(file.path)).content != file.old.content:
            raise Refused(
                f"{file.path} was edited by somebody else at the same moment. Everything is as it was; try again.",
                {"file": file.path},
            )

    def _state(self, path: Path) -> FileState:
        try:
            return read_state(path)
        except OSError as error:
            raise _failure(error, f"{path} cannot be read", "Nothing was changed.") from error

    def _plan(self, path: Path, old: FileState, new: FileState, secret: bool) -> None:
        planned = self._files.get(path)
        in_place = planned.in_place if planned else kept_in_place(path)
        hidden = secret or (planned is not None and planned.secret)
        self._files[path] = JournaledFile(str(path), old, new, in_place, hidden)

    def _preview(
        self, files: list[JournaledFile], valid: bool, words: str, services: list[dict[str, str]]
    ) -> dict[str, Any]:
        shown = [shown_file(file) for file in files]
        return {
            "changes": shown,
            "valid": valid,
            "validator_output": words,
            "services": services if files else [],
        }


def shown_file(file: JournaledFile) -> dict[str, str]:
    """Show what a change does to a file: `{path, action, diff}`; of one that holds secrets no content."""
    action = "create" if file.old.content is None else "delete" if file.new.content is None else "modify"
    diff = unified_diff(file.path, file.old.content, file.new.content)
    return {
        "path": file.path,
        "action": action,
        "diff": "(not shown: it holds secrets)\n" if file.secret else diff,
    }


def undo(record: Record) -> list[str]:
    """Put the old set back.

    :return: the files that were left because they are neither old nor new: a person edited them since.
    """
    edited = []
    for file in reversed(record.files):
        path = Path(file.path)
        drop_staged(path, record.id)
        try:
            live = read_state(path).content
        except OSError:
            edited.append(file.path)
            continue
        if live == file.old.content:
            continue
        if live != file.new.content and not (file.in_place and half_written(live, file.old.content, file.new.content)):
            edited.append(file.path)
        elif file.in_place and live is not None and file.old.content is not None:
            rewrite(path, file.old.content)
        else:
            if file.old.content is not None:
                stage(path, file.old, record.id)
            put(path, file.old, record.id, in_place=False)
    return edited


def _same(old: FileState, new: FileState) -> bool:
    return old.content == new.content and (new.content is None or old.mode == new.mode)


def _failure(error: OSError, what: str, rest: str) -> ScalarizrError:
    where = f"{error.filename}: " if error.filename else ""
    kind = PermissionRefused if error.errno in (errno.EPERM, errno.EACCES, errno.EROFS) else OutsideFailure
    return kind(f"{what}: {where}{error.strerror}. {rest}", {"reason": error.strerror})
