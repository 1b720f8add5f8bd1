"""All configuration changes of one state directory: making them one at a time, cleaning up after those that were cut
off, confirming them, and ending the wait of those that nobody confirmed."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import msgspec

from scalarizr.changes.confirmation import seconds_left
from scalarizr.changes.journal import Journal, PlannedFile, Record
from scalarizr.changes.live_file import FileState
from scalarizr.changes.mode import confirmable, preview
from scalarizr.changes.switch import Switch, sweep
from scalarizr.changes.transaction import ConfiguredService, Effect, Transaction, undo
from scalarizr.errors import NotFound, OutsideFailure, Refused, ScalarizrError
from scalarizr.host.files import make_private_directory
from scalarizr.host.locks import locked, try_lock

Outcome = tuple[Any, Exception | None]


class _Collected(Transaction):
    """The one transaction of several calls: what each applies is only collected."""

    effect: Effect | None = None

    def apply(self, effect: Effect | None = None, *, in_place_of: Record | None = None) -> Record | None:
        del in_place_of
        effect = effect or Effect()
        if self.effect is not None:
            effect = msgspec.structs.replace(
                effect if effect.service else self.effect,
                reload=self.effect.reload or effect.reload,
                preparations=self.effect.preparations + effect.preparations,
            )
        self.effect = effect
        return None

    def is_of(self, method: str) -> None:
        """Note that a call of this method is one of its calls: what it may be shown to depends on all of them."""
        if method not in self._method.split(", "):
            self._method = f"{self._method}, {method}"

    def apply_all(self) -> None:
        Transaction.apply(self, self.effect)


class _Together(msgspec.Struct):
    stack: contextlib.ExitStack
    transaction: _Collected | None = None
    service: str = ""


_together: ContextVar[_Together | None] = ContextVar("calls_together", default=None)


class Changes:
    """Makes transactions, and cleans up after those that were cut off.

    :param state: directory of the journal and the locks.
    :param log: the agent's log.
    :param services: gives the program behind a service's name, where there is one.
    :param start_guard: starts the process that ends the wait of a change: its record, and in how many seconds.
    :param keep: how many finished changes the history keeps.
    """

    def __init__(
        self,
        state: Path,
        log: logging.Logger,
        services: Callable[[str], ConfiguredService | None] = lambda _name: None,
        start_guard: Callable[[Path, float], None] = lambda _record, _seconds: None,
        keep: int = 64,
    ) -> None:
        self._state = state
        self._log = log
        self._start_guard = start_guard
        self.on_waiting: Callable[[Record], object] = lambda _record: None
        self.service = services
        self.journal = Journal(state, keep)

    @contextlib.contextmanager
    def transaction(self, service: str, method: str) -> Iterator[Transaction]:
        """Hold a service's configuration, in all processes, while it is changed.

        :param service: whose configuration it is: a plain name.
        :param method: what the caller called, for the history.
        :raises Busy: somebody else holds it for longer than 30 s.
        """
        joined = _together.get()
        if joined is not None and joined.service in ("", service):
            if joined.transaction is None:
                joined.service = service
                joined.stack.enter_context(self._held(service))
                joined.transaction = self._make(_Collected, service, method)
            joined.transaction.is_of(method)
            yield joined.transaction
            return
        with self._held(service):
            yield self._make(Transaction, service, method)

    def together(self, calls: Sequence[Callable[[], Any]]) -> list[Outcome]:
        """Run several calls so that their changes of one service become one change, validated and reloaded once.

        A call that is refused takes nothing of the others with it; where the one change cannot be made, each call is
        made by itself.

        :return: of each call its result, or its error.
        """
        if len(calls) == 1:
            return [_outcome(calls[0])]
        outcomes: list[Outcome] = []
        with contextlib.ExitStack() as stack:
            joined = _Together(stack)
            token = _together.set(joined)
            try:
                for call in calls:
                    remembered = joined.transaction.remember() if joined.transaction else {}
                    outcomes.append(_outcome(call))
                    if outcomes[-1][1] is not None and joined.transaction is not None:
                        joined.transaction.return_to(remembered)
            finally:
                _together.reset(token)
            if joined.transaction is None or joined.transaction.effect is None:
                return outcomes
            try:
                joined.transaction.apply_all()
                return outcomes
            except ScalarizrError:
                pass  # whose fault it is shows when each is made by itself
        return [
            _outcome(call) if failure is None else (None, failure)
            for call, (_result, failure) in zip(calls, outcomes, strict=True)
        ]

    # The ways of making a change, as the dispatcher knows them.
    preview = staticmethod(preview)
    confirmable = staticmethod(confirmable)

    def recover(self) -> list[Record]:
        """Undo what a crash left half done, and end what waited for a confirmation for too long.

        :return: the changes that were undone, with their final status: `failed`, or `conflict` where a person edited a
            file since, which was left as it is.
        """
        recovered: list[Record] = []
        try:
            for aside in self.journal.sweep():
                self._log.error("the record of a change cannot be read; look at what it was about: kept as %s", aside)
            for service in sorted({record.service for record in (*self.journal.pending(), *self.journal.formed())}):
                recovered += self._recovered_service(service)
            finished = self.journal.history()
            places = {Path(file.path).parent for record in finished for file in record.files}
            sweep(places, {one.id for one in finished})
            for record in self.journal.waiting():
                if seconds_left(record) == 0:
                    self._expire_if_possible(record)
        except (ScalarizrError, OSError) as failure:
            self._log.error("what was cut off of changes cannot be looked through: %s", failure)
        return recovered

    def _recovered_service(self, service: str) -> list[Record]:
        lock = try_lock(self._lock_file(service))
        if lock is None:
            return []  # another process is in the middle of it
        try:
            return self._recover_service(service)
        except (ScalarizrError, OSError) as failure:
            self._log.error("%s", failure)
            return []
        finally:
            os.close(lock)

    def _expire_if_possible(self, record: Record) -> None:
        try:
            self.expire(record.id)
        except (ScalarizrError, OSError) as failure:
            self._log.error("change id=%s could not be taken back yet: %s", record.id, failure)

    def confirm(self, record: Record) -> Record:
        """Keep a change that waits.

        :raises Refused: it does not wait any more.
        """
        with self._held(record.service):
            record = self.find(record.id)
            if record.status != "waiting":
                raise Refused(f"The change {record.id} is {record.status}: it waits for nothing.", {"id": record.id})
            if seconds_left(record) == 0:
                raise Refused(
                    f"The change {record.id} was to be confirmed earlier: it is being taken back.", {"id": record.id}
                )
            kept = msgspec.structs.replace(record, status="applied", confirmation=None)
            self.journal.update(kept)
            self._close_ports(kept)
        self._log.info("change id=%s confirmed", record.id)
        return kept

    def expire(self, change_id: str) -> Record | None:
        """Take back a change that nobody confirmed in time.

        What a person edited since stays as it is. The rest of the files go back with it only where what comes out is
        valid; then, and where nothing was edited, the service is reloaded.

        :return: the change as it is now; None where it does not wait, or not long enough yet.
        """
        try:
            record = self.find(change_id)
        except NotFound:
            return None
        with self._held(record.service):
            record = self.find(change_id)
            if record.status != "waiting" or seconds_left(record) > 0:
                return None
            files = self._planned(record)
            edited = Switch(record.id, files).edited()
            service = self.service(record.service)
            transaction = self._make(Transaction, record.service, "change.expire")
            for file in files:
                if file.path not in edited:
                    transaction.restore(file.path, file.old, secret=file.secret)
            effect = Effect(validate=service.validate if service and edited else lambda _files: "")
            undone: Record | None = None
            try:
                undone = transaction.apply(effect, in_place_of=record)
            except ScalarizrError as failure:
                if not edited:
                    raise
                self._log.error("change id=%s was not taken back: %s", record.id, failure.message)
            if undone is not None:
                self.journal.update(msgspec.structs.replace(undone, status="reverted"))
            status = "conflict" if edited else "reverted"
            record = msgspec.structs.replace(record, status=status, confirmation=None)
            # Who sees it taken back finds the service without it.
            self._reload(service, record)
            self.journal.update(record)
        if edited:
            names = ", ".join(map(str, edited))
            self._log.error("change id=%s was not confirmed; what somebody edited was left: %s", record.id, names)
        else:
            self._log.warning("change id=%s method=%s was not confirmed and is taken back", record.id, record.method)
        return record

    def find(self, change_id: str) -> Record:
        """Give one change.

        :raises NotFound: there is none of that id, or it is no longer kept.
        """
        for record in self.journal.history():
            if record.id == change_id:
                return record
        raise NotFound(
            f"There is no change {change_id[:60]} in the history, which keeps the last ones.", {"id": change_id[:60]}
        )

    @contextlib.contextmanager
    def _held(self, service: str) -> Iterator[None]:
        lock = self._lock_file(service)
        make_private_directory(self._state)
        make_private_directory(lock.parent)
        with locked(lock, what=f"the configuration of {service}"):
            self._recover_service(service)
            yield

    def _lock_file(self, service: str) -> Path:
        return self._state / "locks" / service

    def _make(self, kind: Any, service: str, method: str) -> Any:
        unloaded = self._state / "locks" / f"{service}.unloaded"
        return kind(self.journal, self._log, service, method, unloaded, self._watch)

    def _watch(self, record: Record, seconds: float) -> None:
        self._start_guard(self.journal.place_of(record), seconds)
        self.on_waiting(record)

    def _recover_service(self, service: str) -> list[Record]:
        for record in self.journal.formed():
            if record.service == service:
                self._drop_formed(record)
        return [self._settle(record) for record in self.journal.pending() if record.service == service]

    def _drop_formed(self, record: Record) -> None:
        """Remove what a change that was cut off before it was begun left beside live files, and then its record."""
        nothing = FileState(None)
        files = [PlannedFile(Path(file.path), nothing, nothing, file.in_place) for file in record.files]
        Switch(record.id, files).tidy(durably=True)
        self.journal.drop_formed(record)

    def _settle(self, record: Record) -> Record:
        files = self._planned(record)
        switch = Switch(record.id, files)
        if record.status == "applying":
            record = self._undo(record, switch)
        if record.status in ("failed", "conflict"):
            # Before it is finished: should this be cut off as well, the next start does it again.
            self._reload(self.service(record.service), record)
        switch.tidy()
        self.journal.finish(record)
        return record

    def _planned(self, record: Record) -> list[PlannedFile]:
        try:
            return [self.journal.planned(file) for file in record.files]
        except OSError as error:
            raise OutsideFailure(
                f"The change {record.id} ({record.method}) cannot be taken back: {error.filename}: {error.strerror}. "
                f"See to it that its files are as they should be, and remove {self._place_of(record).parent}: "
                f"{', '.join(file.path for file in record.files)}",
                {"id": record.id, "service": record.service},
            ) from error

    def _place_of(self, record: Record) -> Path:
        pending = self.journal.pending_place(record) / "record.json"
        return pending if pending.exists() else self.journal.place_of(record)

    def _undo(self, record: Record, switch: Switch) -> Record:
        try:
            edited = undo(switch)
            record = msgspec.structs.replace(record, status="conflict" if edited else "failed", confirmation=None)
            self.journal.settle(record)
        except OSError as error:
            raise OutsideFailure(
                f"The change {record.id} ({record.method}), which was cut off, cannot be undone: "
                f"{error.filename or 'the disk'}: {error.strerror}. It is tried again at the next change, or start.",
                {"id": record.id, "service": record.service},
            ) from error
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

    def _reload(self, service: ConfiguredService | None, record: Record) -> None:
        """Let a service that runs load what was put back; it may have loaded what is gone."""
        if service is None:
            return
        try:
            if service.is_running():
                service.reload()
        except (ScalarizrError, OSError) as failure:
            self._log.error("change id=%s: after going back: %s", record.id, failure)
        self._close_ports(record)

    def _close_ports(self, record: Record) -> None:
        """Close what the service needs no more; while a change waits, it may yet go back to that."""
        service = self.service(record.service)
        try:
            if service is not None:
                service.close_ports()
        except (ScalarizrError, OSError) as failure:
            self._log.error("change id=%s: a port stays open in the firewall: %s", record.id, failure)


def _outcome(call: Callable[[], Any]) -> Outcome:
    try:
        return call(), None
    except Exception as failure:  # noqa: BLE001  one call's failure is that call's alone
        return None, failure
