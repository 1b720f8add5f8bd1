"""The agent's side of operations: record, start a worker, watch it, settle what it left.

A worker outlives the agent. The next agent finds it by its lock, and watches on. Nothing here wakes the agent up while
nothing happens: a worker's end is an event on its pidfd.
"""

import asyncio
import contextlib
import logging
import os
import select
import signal
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from scalarizr.errors import NotFound, OutsideFailure, ScalarizrError
from scalarizr.host.locks import try_lock
from scalarizr.host.threads import Threads
from scalarizr.operations.record import FINISHED, INTERRUPTED, Job, Record, Status, no_operation, secrets_of
from scalarizr.operations.store import Store
from scalarizr.operations.worker_files import WorkerFiles
from scalarizr.operations.worker_process import Task, WorkerProcess, how_it_ended, start_worker
from scalarizr.secret import without
from scalarizr.settings.model import Settings

T = TypeVar("T")
Shown = Callable[[str], bool]  # of a method; `bool` says so of all
_UNDO_ATTEMPTS = 3
# Seconds until what the disk did not take is tried again: longer each time, to this.
_TRY_AGAIN = 10.0
_NO_JOB = Job(params={}, shown_params={})


class Operations:
    """All operations of one agent.

    :param settings: the agent's.
    :param log: its log.
    :param worker_command: the argument vector of a worker, to which the operation is added.
    :param undo_modules: modules outside of this program whose functions may undo an operation's steps.
    :ivar on_ended: called with the record of each operation that has ended.
    """

    def __init__(
        self, settings: Settings, log: logging.Logger, worker_command: Sequence[str], undo_modules: Sequence[str] = ()
    ) -> None:
        self._settings = settings.operations
        self._files = WorkerFiles(settings.paths.state / "operations")
        self._store = Store(self._files.directory / "operations.db")
        self._log = log
        self._command = list(worker_command)
        self._undo_modules = list(undo_modules)
        self._waiting: deque[tuple[str, Job]] = deque()
        self._workers: dict[str, WorkerProcess] = {}
        # Known to be alive without a worker: being recorded, waiting for their turn; and being started.
        self._queued: set[str] = set()
        self._starting: set[str] = set()
        # Their workers have ended, and what they left is being settled.
        self._settling: set[str] = set()
        # Whose end, or whose cancellation, cannot be written down at present; of an end: why.
        self._unsettled: dict[str, str] = {}
        self._cancellation_unwritten: set[str] = set()
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._executor: Threads | None = None
        self._closed = False
        self.on_ended: Callable[[Record], object] = lambda _record: None

    def at_work(self) -> tuple[int, int]:
        """Give how many operations run, and how many wait for their turn."""
        return sum(worker.task == "do" for worker in self._workers.values()) + len(self._starting), len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether any runs, waits, or is being settled or undone."""
        return any((self._waiting, self._workers, self._queued, self._starting, self._settling, self._tasks))

    def apply(self, settings: Settings) -> None:
        """Put changed settings in force."""
        self._settings = settings.operations

    async def start(self, name: str, resource: str, job: Job) -> str:
        """Record an operation, and start it as soon as its turn comes.

        :param name: `namespace.method`.
        :param resource: what it works on: no second one of this name works on it meanwhile.
        :return: its id.
        :raises Busy: one is at work; the facts carry its id.
        :raises OutsideFailure: it cannot be recorded; nothing was started.
        """
        identity = uuid.uuid4().hex[:16]
        await self._aside(self._prune)
        self._queued.add(identity)
        try:
            await self._aside(self._store.create, identity, name, resource, job.shown_params)
        except BaseException:
            self._queued.discard(identity)
            raise
        self._log.info("operation id=%s name=%s resource=%s new", identity, name, resource)
        self._waiting.append((identity, job))
        self._start_waiting()
        return identity

    async def wait(self, identity: str) -> Record:
        """Wait for an operation's end.

        :raises NotFound: there is no such operation.
        :raises OutsideFailure: it has ended, and how cannot be written down.
        """
        while True:
            # First the place in the queue of those who are told, then the look: an end in between is not missed.
            told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.setdefault(identity, []).append(told)
            try:
                record = await self.result(identity)
                if record.status in FINISHED:
                    return record
                if identity in self._unsettled:
                    raise OutsideFailure(
                        f"The operation {identity} has ended, and how cannot be written down yet: "
                        f"{self._unsettled[identity]} Ask operation.result for it later.",
                        {"operation_id": identity},
                    )
                await told
            finally:
                self._waiters[identity].remove(told)
                if not self._waiters[identity]:
                    del self._waiters[identity]

    async def result(self, identity: str) -> Record:
        """Give an operation's record.

        :raises NotFound: there is none of that id.
        """
        record = await self._aside(self._found, identity)
        if record.status not in FINISHED and await self._aside(self._settle_if_dead, identity):
            record = await self._tell_of_end(identity)
            self._spawn_task(self._undo_if_left(identity, _NO_JOB))
        return record

    async def error_facts(self, identity: str) -> dict[str, Any]:
        """Give what the error of an operation that failed says for programs."""
        return await self._aside(self._store.error_facts, identity)

    async def cancel(self, identity: str) -> Record:
        """Ask an operation to stop. It cleans up after itself; after `[operations] cancel_timeout` it is killed.

        :return: its record as it is now.
        :raises NotFound: there is none of that id.
        """
        record = await self.result(identity)
        if record.status in FINISHED:
            return record
        await self._note_cancellation(identity)
        queued = next((entry for entry in self._waiting if entry[0] == identity), None)
        if queued is not None:
            self._waiting.remove(queued)
            self._queued.discard(identity)
            await self._aside(self._finish_unstarted, identity, "canceled", "The operation was cancelled.")
            await self._tell_of_end(identity)
        elif identity in self._workers:
            self._signal(self._workers[identity])
        self._log.info("operation id=%s cancel requested", identity)
        return await self.result(identity)

    async def _note_cancellation(self, identity: str) -> None:
        try:
            await self._aside(self._store.request_cancel, identity)
        except OutsideFailure:
            # A full disk, or a worker that was stopped while it held the records: it is told all the same.
            if identity not in self._workers:
                raise
            self._cancellation_unwritten.add(identity)

    async def newest(
        self, status: str | None = None, name: str | None = None, limit: int = 100, shown: Shown = bool
    ) -> list[Record]:
        """Give records, newest first, as far as `shown` says of their methods that they are to be seen."""
        if not self._store.exists():
            return []
        await self._settle_dead()
        names = [one for one in await self._aside(self._store.names) if name in (None, one) and shown(one)]
        return await self._aside(self._store.newest, status, names, limit)

    async def has_in_progress(self, shown: Shown = bool) -> bool:
        """Tell whether an operation of a method of which `shown` says so is not finished."""
        if not self._store.exists():
            return False
        await self._settle_dead()
        return any(map(shown, await self._aside(self._store.unfinished_names)))

    async def recover(self) -> None:
        """Find what the last agent left: watch the workers that live, settle those that died."""
        if not self._store.exists() and not self._store.has_traces():
            return
        try:
            problem = await self._aside(self._store.check)
            if problem:
                self._log.error("operations: %s", problem)
            await self._aside(self._prune)
            for identity, _pid in await self._aside(self._store.unfinished):
                if await self._aside(self._settle_if_dead, identity):
                    self._log.warning("operation id=%s was interrupted", identity)
                    await self._tell_of_end(identity)
                else:
                    self._spawn_task(self._adopt(identity))
            for identity in await self._aside(self._store.uncleaned):
                self._spawn_task(self._undo(identity, _NO_JOB, 1))
        except OutsideFailure as error:
            self._log.error("operations: what the last agent left is looked for again later: %s", error.message)
            self._spawn_task(self._recover_later())

    async def _recover_later(self) -> None:
        await asyncio.sleep(_TRY_AGAIN)
        await self.recover()

    async def close(self) -> None:
        """Stop watching. Workers go on; what had not begun is recorded as interrupted."""
        self._closed = True
        while self._waiting:
            identity, _job = self._waiting.popleft()
            words = "The operation was interrupted before it began."
            with contextlib.suppress(ScalarizrError):
                await self._aside(self._finish_unstarted, identity, "failed", words)
                await self._tell_of_end(identity)
            self._tell(identity)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in self._workers.values():
            self._unwatch(worker)
        self._workers.clear()
        if self._executor is not None:
            self._executor.shutdown(wait=True)
        self._store.close()

    # Starting

    def _start_waiting(self) -> None:
        while self._waiting and not self._closed:
            if self.at_work()[0] >= self._settings.parallel:
                return
            identity, job = self._waiting.popleft()
            self._starting.add(identity)
            self._queued.discard(identity)
            self._spawn_task(self._start_one(identity, job))

    async def _start_one(self, identity: str, job: Job) -> None:
        try:
            worker = await self._aside(self._spawn, identity, job, "do")
        except ScalarizrError as error:
            self._log.error("operation id=%s cannot be started: %s", identity, error.message)
            with contextlib.suppress(ScalarizrError):
                await self._aside(self._finish_unstarted, identity, "failed", error.message, error.code)
                await self._tell_of_end(identity)
            self._starting.discard(identity)
            self._tell(identity)
            self._start_waiting()
            return
        self._watch(worker)
        self._starting.discard(identity)
        # Somebody may have cancelled it while it was being started.
        if await self._aside(self._store.cancel_requested, identity) and identity in self._workers:
            self._signal(worker)

    def _spawn(self, identity: str, job: Job, task: Task) -> WorkerProcess:
        told = msgspec.structs.replace(job, extra={**job.extra, "undo_modules": self._undo_modules})
        lock_file, error_file = self._files.lock(identity), self._files.errors(identity)
        return start_worker(self._command, identity, task, told, self._store.path, lock_file, error_file)

    async def _adopt(self, identity: str) -> None:
        """Watch a worker that an earlier agent started."""
        for _ in range(50):
            pid = await self._aside(self._store.pid_of, identity)
            if pid is not None:
                try:
                    pidfd = os.pidfd_open(pid)
                except ProcessLookupError:
                    pidfd = -1
                # The lock is still held, so the process that had this number then is the worker itself.
                if not await self._aside(self._settle_if_dead, identity):
                    if pidfd >= 0 and identity in self._workers:
                        os.close(pidfd)
                    elif pidfd >= 0:
                        self._log.info("operation id=%s pid=%d found at work", identity, pid)
                        worker = WorkerProcess(identity, "do", pid, pidfd, None, _NO_JOB)
                        self._watch(worker)
                        if await self._aside(self._store.cancel_requested, identity):
                            self._signal(worker)
                    if pidfd >= 0:
                        return
                elif pidfd >= 0:
                    os.close(pidfd)
            elif await self._aside(self._settle_if_dead, identity):
                pass
            record = await self._aside(self._store.get, identity)
            if record is None or record.status in FINISHED:
                if record is not None:
                    await self._tell_of_end(identity)
                await self._undo_if_left(identity, _NO_JOB)
                return
            await asyncio.sleep(0.2)
        self._log.error("operation id=%s is held by a process that does not say who it is", identity)

    # Watching

    def _watch(self, worker: WorkerProcess) -> None:
        if self._closed:
            self._unwatch(worker)
            return
        self._workers[worker.identity] = worker
        asyncio.get_running_loop().add_reader(worker.pidfd, self._ended, worker)

    def _unwatch(self, worker: WorkerProcess) -> None:
        asyncio.get_running_loop().remove_reader(worker.pidfd)
        if worker.kill is not None:
            worker.kill.cancel()
        os.close(worker.pidfd)

    def _ended(self, worker: WorkerProcess) -> None:
        if worker.process is not None:
            # What it started and left, while its number is still its own.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.process.wait()
        self._unwatch(worker)
        self._workers.pop(worker.identity, None)
        self._settling.add(worker.identity)
        self._spawn_task(self._settle(worker))

    async def _settle(self, worker: WorkerProcess) -> None:
        identity = worker.identity
        try:
            await self._aside(self._log_errors, worker)
            pause = 0.5
            while not await self._is_settled(worker):
                await asyncio.sleep(pause)
                pause = min(2 * pause, _TRY_AGAIN)
        finally:
            self._settling.discard(identity)
            self._unsettled.pop(identity, None)
            self._cancellation_unwritten.discard(identity)
            self._start_waiting()

    async def _is_settled(self, worker: WorkerProcess) -> bool:
        identity = worker.identity
        try:
            if worker.task == "undo":
                await self._end_undo(worker)
                return True
            record = await self._end_of(worker)
            self._log.info(
                "operation id=%s name=%s %s%s",
                identity,
                record.name,
                record.status,
                f" error={record.error_code} {without(record.error, secrets_of(worker.job))}" if record.error else "",
            )
            self.on_ended(record)
            self._tell(identity)
            await self._undo_if_left(identity, worker.job)
        except NotFound as error:
            self._log.error("operation id=%s cannot be settled: %s", identity, error.message)
        except ScalarizrError as error:
            if identity not in self._unsettled:
                self._log.error("operation id=%s cannot be settled yet: %s", identity, error.message)
            self._unsettled[identity] = error.message
            self._tell(identity)
            return False
        return True

    async def _end_of(self, worker: WorkerProcess) -> Record:
        """Give the record of an operation whose worker has ended, in its final state."""
        identity, how = worker.identity, how_it_ended(worker.process)
        for _ in range(100):
            record = await self._aside(self._found, identity)
            if record.status in FINISHED or await self._aside(self._settle_unheld, identity, how):
                break
            # A program that the worker was just starting holds its lock, too, until it runs.
            await asyncio.sleep(0.05)
        return await self._aside(self._found, identity)

    async def _undo_if_left(self, identity: str, job: Job) -> None:
        if identity in await self._aside(self._store.uncleaned):
            await self._undo(identity, job, 1)

    async def _undo(self, identity: str, job: Job, attempt: int) -> None:
        told = Job(params={}, shown_params={}, platform_access=job.platform_access, extra=job.extra)
        try:
            worker = await self._aside(self._spawn, identity, told, "undo")
        except ScalarizrError as error:
            self._log.error("operation id=%s: leftovers cannot be undone: %s", identity, error.message)
            return
        worker.attempts = attempt
        self._watch(worker)

    async def _end_undo(self, worker: WorkerProcess) -> None:
        left = await self._aside(self._store.undo_steps, worker.identity)
        if left and worker.attempts < _UNDO_ATTEMPTS:
            await self._undo(worker.identity, worker.job, worker.attempts + 1)
            return
        if left:
            steps = ", ".join(step.function for step in left)
            self._log.error("operation id=%s left what could not be undone: %s", worker.identity, steps)
        else:
            self._log.info("operation id=%s: what it had begun was undone", worker.identity)
        await self._aside(self._store.end_cleaning, worker.identity)
        self._tell(worker.identity)

    def _settle_if_dead(self, identity: str) -> bool:
        """Record the end of an operation that nobody works on.

        :return: whether nobody does.
        """
        known = (self._queued, self._starting, self._workers, self._settling)
        if any(identity in some for some in known):
            return False
        return self._settle_unheld(identity)

    def _settle_unheld(self, identity: str, how: str = "died") -> bool:
        try:
            lock = try_lock(self._files.lock(identity))
        except OSError as error:
            raise OutsideFailure(f"{self._files.directory}: {error.strerror}.") from error
        if lock is None:
            return False
        os.close(lock)
        if identity in self._cancellation_unwritten:
            self._store.request_cancel(identity)
        self._store.finish_interrupted(identity, how)
        return True

    async def _settle_dead(self) -> None:
        for identity, _pid in await self._aside(self._store.unfinished):
            if await self._aside(self._settle_if_dead, identity):
                await self._tell_of_end(identity)
                await self._undo_if_left(identity, _NO_JOB)

    def _signal(self, worker: WorkerProcess) -> None:
        if worker.task != "do":
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(worker.pidfd, signal.SIGTERM)
        if worker.kill is None:
            loop = asyncio.get_running_loop()
            worker.kill = loop.call_later(self._settings.cancel_timeout, self._kill, worker)

    def _kill(self, worker: WorkerProcess) -> None:
        if select.select([worker.pidfd], [], [], 0)[0]:
            return
        self._log.warning("operation id=%s did not stop in time and is killed", worker.identity)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.pid, signal.SIGKILL)

    async def _tell_of_end(self, identity: str) -> Record:
        record = await self._aside(self._found, identity)
        self.on_ended(record)
        self._tell(identity)
        return record

    def _tell(self, identity: str) -> None:
        for told in self._waiters.get(identity, ()):
            if not told.done():
                told.set_result(None)

    def _found(self, identity: str) -> Record:
        record = self._store.get(identity) if self._store.exists() else None
        if record is None:
            raise no_operation(identity)
        return record

    def _finish_unstarted(self, identity: str, status: Status, error: str, code: int = INTERRUPTED) -> None:
        self._store.finish(identity, status, error=error, error_code=code)

    def _prune(self) -> None:
        if not self._store.exists():
            return
        self._files.forget(self._store.prune(time.time() - self._settings.keep))

    def _log_errors(self, worker: WorkerProcess) -> None:
        text = self._files.take_errors(worker.identity)
        if text:
            self._log.error("operation id=%s worker said: %s", worker.identity, without(text, secrets_of(worker.job)))

    def _spawn_task(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _aside(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run what may wait for a disk in the one thread that the records belong to."""
        if self._executor is None:
            self._executor = Threads(1, thread_name_prefix="operations")
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)
