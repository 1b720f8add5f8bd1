"""A transaction on configuration files: plan → validate → journal → switch → reload | undo.

Old set or new set, whatever happens meanwhile: an error undoes what was done, the next start undoes what a crash left.
A file that a person edited since is left as it is, and reported.
"""

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from scalarizr.audit import made
from scalarizr.changes.confirmation import confirmation_within
from scalarizr.changes.diff import unified_diff
from scalarizr.changes.journal import Journal, PlannedFile, Record
from scalarizr.changes.live_file import FileState, kept_in_place, read_state
from scalarizr.changes.mode import DryRun, confirmation_terms, is_dry_run
from scalarizr.changes.prepared import Prepared
from scalarizr.changes.switch import Switch
from scalarizr.errors import OutsideFailure, PermissionRefused, Refused, ScalarizrError

Validate = Callable[[list[PlannedFile]], str]


class ConfiguredService(Protocol):
    """A program whose configuration is changed."""

    def validate(self, files: list[PlannedFile]) -> str:
        """Check the planned set with the real program as if it were live; gives its words, or raises."""

    def reload(self) -> None:
        """Make the live set effective; returns when it is. A stopped service is started."""

    def is_running(self) -> bool:
        """Tell whether it runs."""

    def open_ports(self, files: list[PlannedFile]) -> None:
        """Let through an active firewall what these files newly listen on, as far as that is the agent's to do."""

    def close_ports(self) -> None:
        """Close what was opened before and the live set needs no more."""


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan wants beyond the files.

    :param service: whose configuration it is; None: no program's.
    :param name: the service's name, for a dry run.
    :param reload: make the change effective.
    :param validate: checks the planned set in place of the service's own way: raises in the caller's words.
    :param preparations: steps before a live file changes, each with its undoing.
    :param decided: called when it is clear whether the change is made or undone: an interruption comes too late then.
    """

    service: ConfiguredService | None = None
    name: str = ""
    reload: bool = True
    validate: Validate | None = None
    preparations: tuple[tuple[Callable[[], None], Callable[[], None]], ...] = ()
    decided: Callable[[], None] = lambda: None


class Transaction:
    """One change of one service's files; made by `Changes.transaction`.

    :param watch: has a change watched that will wait for its confirmation: the record, and how many seconds.
    :param unloaded: a file that is there while the service has not loaded what its files hold.
    """

    def __init__(
        self,
        journal: Journal,
        log: logging.Logger,
        service: str,
        method: str,
        unloaded: Path,
        watch: Callable[[Record, float], None],
    ) -> None:
        self._journal = journal
        self._log = log
        self._service = service
        self._method = method
        self._unloaded = unloaded
        self._watch = watch
        self._files: dict[Path, PlannedFile] = {}

    def read(self, path: Path) -> bytes | None:
        """Give what the transaction would leave in a file; None where there is none.

        :raises OutsideFailure: it cannot be read.
        """
        real = Path(os.path.realpath(path))
        planned = self._files.get(real)
        return planned.new.content if planned else self._state(real).content

    def exists(self, path: Path) -> bool:
        """Tell whether the transaction would leave something under a name, be it a link that leads nowhere."""
        planned = self._files.get(path)
        return os.path.lexists(path) if planned is None else not planned.new.absent

    def write(
        self,
        path: Path,
        content: bytes,
        *,
        mode: int | None = None,
        owner: tuple[int, int] | None = None,
        secret: bool = False,
    ) -> None:
        """Plan a file's new content. A link stays; the file that it leads to is changed.

        :param mode: permission bits; None: as they are, 0644 for a new file.
        :param owner: (uid, gid); None: as it is, the agent's own for a new file.
        :param secret: the content is never shown in a diff.
        """
        real = Path(os.path.realpath(path))
        old = self._old(real)
        kept = old.mode if old.content is not None else 0o644
        new = FileState(content, kept if mode is None else mode, owner or old.owner, old.attributes)
        self._plan(real, old, new, secret)

    def delete(self, path: Path, *, secret: bool = False) -> None:
        """Plan the removal of a file, of the one that it leads to where it is a link."""
        real = Path(os.path.realpath(path))
        self._plan(real, self._old(real), FileState(None), secret)

    def link(self, path: Path, target: str) -> None:
        """Plan a symbolic link in place of whatever is under the name.

        :param target: what it holds.
        """
        self._plan(path, self._old(path), FileState(None, target=target), secret=False)

    def unlink(self, path: Path) -> None:
        """Plan the removal of a name; where it is a link, what it leads to stays."""
        self._plan(path, self._old(path), FileState(None), secret=False)

    def restore(self, path: Path, state: FileState, *, secret: bool = False) -> None:
        """Plan a name to become what it once was, owner and attributes included.

        :param path: the name itself, whatever it leads to.
        """
        self._plan(path, self._old(path), state, secret)

    def remember(self) -> dict[Path, PlannedFile]:
        """Give the plan as it stands, for `return_to`."""
        return dict(self._files)

    def return_to(self, remembered: dict[Path, PlannedFile]) -> None:
        """Forget what was planned since."""
        self._files = remembered

    @property
    def plan(self) -> list[PlannedFile]:
        """What would change."""
        return [file for file in self._files.values() if not _same(file.old, file.new)]

    def apply(self, effect: Effect | None = None, *, in_place_of: Record | None = None) -> Record | None:
        """Do what was planned, all of it or nothing.

        :param in_place_of: the waiting change that this one takes back.
        :return: the change's record; None where everything was so already.
        :raises DryRun: in a dry run, instead of doing anything.
        :raises ScalarizrError: nothing was changed, or everything was put back.
        """
        effect = effect or Effect()
        files = self.plan
        validate = effect.validate or (effect.service.validate if effect.service else None)
        if is_dry_run():
            raise DryRun(self._preview(files, validate, effect))
        if not files:
            self._leave(effect)
            return None
        self._refuse_while_one_waits(in_place_of)
        now = time.time()
        identity = self._journal.new_id(now)
        record = Record(identity, now, self._method, self._service, "applying", [])
        switch = Switch(identity, files)
        if validate is None:
            return self._change(record, files, switch, effect, None)
        # What the change needs is written while the program checks.
        with Prepared(self._journal, record, files, switch) as prepared:
            prepared.start()
            validate(files)
            return self._change(record, files, switch, effect, prepared)

    def _leave(self, effect: Effect) -> None:
        """Do what is to be done where everything is so already."""
        self._prepare(effect)
        if effect.service is not None and effect.reload and self._unloaded.exists():
            effect.service.reload()
            self._unloaded.unlink(missing_ok=True)
        terms = confirmation_terms()
        if terms is not None:
            # Whose first answer was lost asks again: what is so already may yet be taken back.
            terms.record = next(iter(self._journal.waiting(self._service)), None)

    def _refuse_while_one_waits(self, in_place_of: Record | None) -> None:
        for waiting in self._journal.waiting(self._service):
            if in_place_of is None or waiting.id != in_place_of.id:
                raise Refused(
                    f"The change {waiting.id} ({waiting.method}) waits for its confirmation: confirm it with "
                    "change.confirm or take it back with change.revert first. Nothing was changed.",
                    {"id": waiting.id, "service": self._service},
                )

    def _prepare(self, effect: Effect) -> None:
        """Take the steps that a plan without files wants, all or none."""
        with contextlib.ExitStack() as undoing:
            for step, its_undoing in effect.preparations:
                undoing.callback(its_undoing)
                step()
            undoing.pop_all()

    def _change(
        self, record: Record, files: list[PlannedFile], switch: Switch, effect: Effect, prepared: Prepared | None
    ) -> Record:
        terms = confirmation_terms()
        if terms is not None:
            record = msgspec.structs.replace(record, confirmation=confirmation_within(terms.within))
            self._watch(record, terms.within)
        confirmation = record.confirmation
        try:
            record = self._journal.begin(record, files, prepared)
        except OSError as error:
            raise _failure(error, "The change could not be written into the journal", "Nothing was changed.") from error
        self._carry_out(record, files, switch, effect)
        record = msgspec.structs.replace(record, status="waiting" if confirmation else "applied")
        if confirmation:
            self._journal.settle(record)
        switch.tidy()
        self._journal.finish(record)
        made.note("change_id", record.id)
        if terms is not None:
            terms.record = record
        names = [file.path for file in record.files]
        shown = ",".join(names[:20]) + (f",… ({len(names)} in all)" if len(names) > 20 else "")
        self._log.info("change id=%s method=%s %s files=%s", record.id, record.method, record.status, shown)
        if effect.service is not None and not confirmation:
            self._in_any_case(record, effect.service.close_ports)
        return record

    def _carry_out(self, record: Record, files: list[PlannedFile], switch: Switch, effect: Effect) -> None:
        undoing: list[Callable[[], None]] = []
        service = effect.service
        try:
            for step, its_undoing in effect.preparations:
                undoing.append(its_undoing)
                step()
            switch.to("new")
            if service is not None:
                undoing.append(service.close_ports)
                service.open_ports(files)
            if service is not None and effect.reload:
                service.reload()
                self._unloaded.unlink(missing_ok=True)
            elif service is not None:
                self._unloaded.touch(mode=0o600)
            effect.decided()
        except BaseException as failure:
            effect.decided()
            edited = undo(switch)
            if service is not None and effect.reload:
                self._in_any_case(record, service.reload)
            rest = self._end_undone(record, switch, edited)
            for step in reversed(undoing):
                self._in_any_case(record, step)
            if isinstance(failure, OSError):
                raise _failure(failure, "The change could not be made", rest) from failure
            if isinstance(failure, ScalarizrError):
                failure.say_further(rest)
            raise

    def _end_undone(self, record: Record, switch: Switch, edited: list[str]) -> str:
        if edited:
            conflict = msgspec.structs.replace(record, status="conflict", confirmation=None)
            self._journal.settle(conflict)
            switch.tidy()
            self._journal.finish(conflict)
            return f"Everything was put back, except what somebody edited meanwhile: {', '.join(edited)}."
        switch.tidy(durably=True)
        self._journal.forget(record)
        return "Everything was put back as it was."

    def _in_any_case(self, record: Record, step: Callable[[], None]) -> None:
        try:
            step()
        except (ScalarizrError, OSError) as failure:
            self._log.error("change id=%s while going back: %s", record.id, failure)

    def _old(self, path: Path) -> FileState:
        return self._files[path].old if path in self._files else self._state(path)

    def _state(self, path: Path) -> FileState:
        try:
            return read_state(path)
        except OSError as error:
            raise _failure(error, f"{path} cannot be read", "Nothing was changed.") from error

    def _plan(self, path: Path, old: FileState, new: FileState, secret: bool) -> None:
        planned = self._files.get(path)
        in_place = planned.in_place if planned else kept_in_place(path)
        hidden = secret or (planned is not None and planned.secret)
        self._files[path] = PlannedFile(path, old, new, in_place, hidden)

    def _preview(self, files: list[PlannedFile], validate: Validate | None, effect: Effect) -> dict[str, Any]:
        valid, words = True, ""
        if validate is not None and files:
            try:
                words = validate(files)
            except ScalarizrError as refusal:
                valid, words = False, refusal.message
        services = []
        if effect.service is not None and effect.reload and files:
            services = [{"name": effect.name, "action": "reload" if effect.service.is_running() else "start"}]
        return {
            "changes": [shown_file(file) for file in files],
            "valid": valid,
            "validator_output": words,
            "services": services,
        }


def shown_file(file: PlannedFile) -> dict[str, str]:
    """Show what a change does to a file: `{path, action, diff}`; of one that holds secrets no content."""
    action = "create" if file.old.absent else "delete" if file.new.absent else "modify"
    diff = unified_diff(str(file.path), _text(file.old), _text(file.new))
    return {
        "path": str(file.path),
        "action": action,
        "diff": "(not shown: it holds secrets)\n" if file.secret else diff,
    }


def undo(switch: Switch) -> list[str]:
    """Put the old set back.

    :return: the files that were left because they are neither old nor new: a person edited them since.
    """
    while True:
        edited = switch.edited()
        try:
            switch.to("old", leave=edited)
        except Refused:
            if switch.edited() == edited:
                raise
        else:
            return [str(path) for path in edited]


def _text(state: FileState) -> bytes | None:
    return f"(a link to {state.target})\n".encode() if state.target is not None else state.content


def _same(old: FileState, new: FileState) -> bool:
    return old.holds_the_same(new) and (
        new.content is None or (old.mode == new.mode and new.owner in (None, old.owner))
    )


def _failure(error: OSError, what: str, rest: str) -> ScalarizrError:
    where = f"{error.filename}: " if error.filename else ""
    kind = PermissionRefused if error.errno in (errno.EPERM, errno.EACCES, errno.EROFS) else OutsideFailure
    return kind(f"{what}: {where}{error.strerror}. {rest}", {"reason": error.strerror})
