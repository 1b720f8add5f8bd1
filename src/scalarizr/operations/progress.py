"""What an operation's code tells of itself, and notes before it takes a step that may have to be undone."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from scalarizr.host.run import set_shield
from scalarizr.operations.record import Progress
from scalarizr.operations.store import Store
from scalarizr.secret import without

_OFTEN_ENOUGH = 0.25


class Canceled(BaseException):
    """Raised in an operation's code, wherever it is, when somebody cancelled it. Not to be swallowed."""


class Running:
    """The running operation, as its own code sees it. Outside a worker everything here does nothing.

    :param store: where it is recorded; None outside a worker.
    :param identity: the operation's id.
    :param secrets: texts that are masked in what it says.
    """

    def __init__(self, store: Store | None = None, identity: str = "", secrets: Sequence[str] = ()) -> None:
        self._store = store
        self._identity = identity
        self._secrets = tuple(secrets)
        self._shown_at = 0.0
        self._latest: Progress | None = None
        self._deferred = 0
        self._cancel_waits = False
        self._ended = False
        self._canceled = False

    def log(self, text: str) -> None:
        """Add a line to the operation's log."""
        if self._store is not None:
            with self.uninterrupted():
                self._store.add_line(self._identity, without(text, self._secrets))

    def progress(self, done: float, total: float | None = None, unit: str = "", step: str = "") -> None:
        """Tell how far it is; as often as wanted, since only four times a second is it written down.

        :param done: of what it does.
        :param total: all of it, where that is known.
        :param unit: what is counted.
        :param step: what it does now, in words.
        """
        self._latest = Progress(done, total, unit, without(step, self._secrets))
        now = time.monotonic()
        if self._store is not None and now - self._shown_at >= _OFTEN_ENOUGH:
            self._shown_at = now
            self.flush()

    def flush(self) -> None:
        """Write the latest progress down."""
        if self._store is not None and self._latest is not None:
            with self.uninterrupted():
                self._store.set_progress(self._identity, self._latest)
            self._latest = None

    def before(self, undo: str, **arguments: Any) -> int:
        """Note, durably, what undoes the step that is about to be taken.

        :param undo: `package.module:function`; it is called with `arguments` where the operation does not end well, by
            whoever is left to do it, perhaps more than once.
        :param arguments: JSON values.
        :return: the note's number, for `done_with`.
        """
        if self._store is None:
            return 0
        with self.uninterrupted():
            return self._store.add_undo_step(self._identity, undo, arguments)

    def done_with(self, number: int) -> None:
        """Forget a note: the step need not be undone any more."""
        if self._store is not None:
            with self.uninterrupted():
                self._store.forget_undo_step(self._identity, number)

    @contextlib.contextmanager
    def uninterrupted(self) -> Iterator[None]:
        """Let a cancellation wait until the block has ended."""
        self._deferred += 1
        try:
            yield
        finally:
            self._deferred -= 1
        if self._cancel_waits and not self._deferred and not self._ended:
            self._cancel_waits = False
            self._canceled = True
            raise Canceled

    def cancel(self) -> None:
        """Raise `Canceled` here, or at the end of an uninterrupted block: for the signal's handler.

        Once: whoever asks again does not cut off the cleaning up.
        """
        if self._ended or self._canceled:
            return
        if self._deferred:
            self._cancel_waits = True
        else:
            self._canceled = True
            raise Canceled

    def end(self) -> None:
        """From here on a cancellation comes too late."""
        self._ended = True


_current: ContextVar[Running | None] = ContextVar("running_operation", default=None)


def current() -> Running:
    """Give the operation that this code runs for; one that does nothing where there is none."""
    return _current.get() or Running()


def set_current(running: Running) -> None:
    """Make an operation the current one: for the worker."""
    _current.set(running)
    set_shield(running.uninterrupted)
