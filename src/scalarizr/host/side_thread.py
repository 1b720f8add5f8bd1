"""Work that a thread does beside its caller, who can be interrupted while it waits and can wait again.

`threading.Thread.join` would not do: a cancellation is an exception that a signal's handler raises wherever the main
thread is, and when it cuts a join off, Python takes the thread for ended from then on: whoever waits again, to clean up
behind it, does not wait (bpo-45274, until 3.13).
"""

import contextlib
import contextvars
import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from scalarizr.errors import OutsideFailure

T = TypeVar("T")
_COMES_WITHIN = 1.0
_LOOK_AGAIN = 0.05
_TICK = 0.2


class SideThread(Generic[T]):
    """One piece of work, done once, in a thread that has the caller's context.

    :param work: what it does; it ends by itself.
    :param name: the thread's, for whoever looks at the process.
    :param may_be_left: nobody has to wait for its end, neither a caller that was cut off nor the process.
    :param bell: is set when it has ended.
    """

    def __init__(
        self, work: Callable[[], T], name: str, *, may_be_left: bool = False, bell: threading.Event | None = None
    ) -> None:
        self._work = work
        self._name = name
        self._may_be_left = may_be_left
        self._bell = bell
        self._is_wanted = False
        self._comes = False
        self._has_begun = False
        self._has_ended = False
        self._results: list[T] = []
        self._failure: BaseException | None = None
        # Its put and get are whole in themselves: no exception of a signal leaves it locked, as it may a Condition.
        self._end: queue.SimpleQueue[None] = queue.SimpleQueue()

    def start(self) -> None:
        """Begin. Where this is cut off, nothing of the work goes on behind it, unless it may be left.

        :raises OutsideFailure: this process may have no more threads.
        """
        context = contextvars.copy_context()
        self._is_wanted = True
        try:
            threading.Thread(target=context.run, args=(self._run,), name=self._name, daemon=self._may_be_left).start()
            self._comes = True
        except RuntimeError as error:
            self._is_wanted = False
            raise OutsideFailure(f"The agent may have no more threads: {error}. Nothing was done.") from error
        except BaseException:
            if not self._may_be_left:
                self.wait()
            raise

    @property
    def ended(self) -> bool:
        """Whether the work has ended."""
        return self._has_ended

    def wait(self, limit: float | None = None, tick: Callable[[], None] = lambda: None) -> None:
        """Wait for the work's end, however it ended; one that was never begun has ended.

        :param limit: seconds; None: the work has a limit of its own.
        :param tick: called five times a second meanwhile; what it raises ends the waiting.
        :raises TimeoutError: it did not end within the limit.
        """
        began = ticked = time.monotonic()
        while (self._is_wanted or self._has_begun) and not self._has_ended:
            now = time.monotonic()
            # A start that was cut off may have made a thread or none: one that comes later than this does nothing.
            if not self._comes and now - began >= _COMES_WITHIN:
                self._is_wanted = False
            if limit is not None and now - began >= limit:
                raise TimeoutError
            if now - ticked >= _TICK:
                tick()
                ticked = now
            # What rings once may ring for somebody who was cut off at that instant.
            with contextlib.suppress(queue.Empty):
                self._end.get(timeout=_LOOK_AGAIN if limit is None else min(_LOOK_AGAIN, limit))

    def result(self, limit: float | None = None, tick: Callable[[], None] = lambda: None) -> T:
        """Wait as `wait` does; give what the work returned, or raise what it raised."""
        self.wait(limit, tick)
        if self._failure is not None:
            raise self._failure
        return self._results[0]

    def _run(self) -> None:
        self._has_begun = True
        try:
            if self._is_wanted:
                self._results.append(self._work())
        except BaseException as failure:  # noqa: BLE001  raised again where it is waited for
            self._failure = failure
        finally:
            self._has_ended = True
            self._end.put(None)
            if self._bell is not None:
                self._bell.set()


def run_aside(work: Callable[[], T], name: str) -> T:
    """Do a piece of work in a thread of its own, and wait for its end: also where a cancellation cuts the wait off.

    :param work: what it does; it ends by itself.
    :param name: the thread's.
    :return: what the work returns; what it raises is raised here.
    :raises OutsideFailure: this process may have no more threads.
    """
    thread = SideThread(work, name)
    thread.start()
    try:
        return thread.result()
    finally:
        thread.wait()
