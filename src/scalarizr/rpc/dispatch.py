"""From a request's text to its answer's: find the method, check its parameters, run it, tell how it ended."""

import asyncio
import contextlib
import contextvars
import hashlib
import inspect
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Protocol

import msgspec

from scalarizr.audit import made
from scalarizr.errors import (
    UNCHANGED,
    Busy,
    InvalidParameter,
    NotSupported,
    Refused,
    ScalarizrError,
    TimedOut,
    lack_of_resources,
)
from scalarizr.host.locks import locked
from scalarizr.logs import AgentLog, request_id, request_secrets
from scalarizr.platform_access import PlatformAccess, set_platform_access
from scalarizr.rpc.call import (
    BadCall,
    Call,
    Caller,
    InternalError,
    batch_text,
    error_text,
    looks_modern,
    read_call,
    result_text,
    split_batch,
)
from scalarizr.rpc.call_end import Account, CallEnd
from scalarizr.rpc.registry import Method, Registry
from scalarizr.rpc.rights import set_rights
from scalarizr.rpc.types import checker
from scalarizr.secret import masked, secrets_in, without

# Seconds in which further calls gather behind a resource that was taken.
_GATHERING = 0.015
_PATIENCE = 30.0
_boolean = checker(bool)
_seconds = checker(int | float)
_SHORTEST_WAIT, _LONGEST_WAIT = 5, 3600


class QueueFull(Exception):
    """As many calls as may run or wait at once already do."""


class OperationGate(Protocol):
    """What runs long methods: start one, and wait for it."""

    async def start(
        self,
        name: str,
        resource: str,
        arguments: dict[str, Any],
        access: PlatformAccess | None,
        confirm_within: float | None = None,
    ) -> str:
        """Record and start it; gives its id."""

    async def outcome(self, operation_id: str) -> Any:
        """Wait for its end; gives its result or raises its error."""


class ChangeModes(Protocol):
    """How calls that change configuration may be made."""

    def preview(self, function: Callable[[], Any]) -> Any:
        """Only show what would change."""

    def confirmable(self, within: float, function: Callable[[], Any]) -> Any:
        """Make a change that reverts by itself after that many seconds, unless it is confirmed."""

    def together(self, functions: Sequence[Callable[[], Any]]) -> list[tuple[Any, Exception | None]]:
        """Make several calls' changes as one; gives each call's result or error."""


class _Prepared(msgspec.Struct):
    method: Method
    arguments: dict[str, Any]
    access: PlatformAccess | None
    dry_run: bool
    confirm_within: float | None
    asynchronous: bool

    def ended(self, caller: Caller, seconds: float, error: ScalarizrError | None) -> CallEnd:
        """Tell how the call ended."""
        terms: dict[str, Any] = {"dry_run": True} if self.dry_run else {}
        if self.confirm_within is not None:
            terms["confirm_within"] = self.confirm_within
        goes_on = self.asynchronous and self.method.declaration.kind == "operation" and not self.dry_run
        return CallEnd(self.method.name, self.method, caller, self.arguments, terms, goes_on, seconds, error)


class _Waiting(msgspec.Struct):
    """A call that waits for its resource, to be made together with others."""

    prepared: _Prepared
    context: contextvars.Context
    outcome: "asyncio.Future[Any]"


class Dispatcher:
    """Makes the calls.

    :param registry: the methods.
    :param executor: runs what may wait.
    :param operations: runs what takes long.
    :param modes: how changes may be made.
    :param locks: directory of the lock files of resources.
    :param log: the agent's log.
    :param queue: calls that may run or wait at once.
    :param account: hears how each call ended.
    :ivar maintenance: why what changes something is refused at present, in a sentence; None where it is not.
    """

    def __init__(
        self,
        registry: Registry,
        executor: Executor,
        operations: OperationGate,
        modes: ChangeModes,
        locks: Path,
        log: AgentLog,
        queue: int,
        account: Account,
    ) -> None:
        self._registry = registry
        self._executor = executor
        self._operations = operations
        self._modes = modes
        self._locks = locks
        self._log = log
        self._account = account
        self._resources: dict[str, asyncio.Lock] = {}
        self._waiting: dict[str, list[_Waiting]] = {}
        self._crowded: dict[str, float] = {}
        self._running = 0
        self._prefix = uuid.uuid4().hex[:6]
        self._count = 0
        self.queue = queue
        self.maintenance: str | None = None
        self.namespaces = frozenset((*registry.names, *registry.aliases))

    @property
    def full(self) -> bool:
        """Whether a further call would be refused."""
        return self._running >= self.queue

    def dispatch(self, text: bytes, namespace: str, caller: Caller) -> bytes | Coroutine[Any, Any, bytes | None] | None:
        """Answer a request or a batch.

        :param text: JSON.
        :param namespace: from the path; empty for `/`.
        :return: the answer's JSON, or None where there is nothing to answer; as a coroutine where it has to be waited
            for.
        :raises QueueFull: nothing was run.
        """
        try:
            batch = split_batch(text)
        except ScalarizrError as error:
            return error_text(error, b"null", looks_modern(text) or error.code != -32700)
        if batch is not None:
            return self._batch(batch, namespace, caller)
        return self._one(text, namespace, caller, in_batch=False)

    async def _batch(self, requests: list[msgspec.Raw], namespace: str, caller: Caller) -> bytes | None:
        answers = []
        for request in requests:
            try:
                answer = self._one(request, namespace, caller, in_batch=True)
                if inspect.isawaitable(answer):
                    answer = await answer
                else:
                    await asyncio.sleep(0)  # a long batch of short calls holds nobody else up
            except QueueFull:
                full = Busy("As many calls as may run at once already do. Nothing was done; try again later.")
                answer = error_text(full, b"null", modern=True)
            if answer is not None:
                answers.append(answer)
        return batch_text(answers)

    def _one(
        self, text: bytes | msgspec.Raw, namespace: str, caller: Caller, *, in_batch: bool
    ) -> bytes | Coroutine[Any, Any, bytes | None] | None:
        started = time.perf_counter()
        self._count += 1
        request_id.set(f"{self._prefix}-{self._count}")
        request_secrets.set(())
        set_rights(caller.rights)
        try:
            call = read_call(text, in_batch=in_batch)
        except BadCall as bad:
            self._log.call_line(f"call method=- {_origin(caller)} error={bad.error.code}")
            self._account.call_ended(
                CallEnd("-", None, caller, None, {}, False, time.perf_counter() - started, bad.error)
            )
            return error_text(bad.error, bad.id, bad.modern)
        if namespace:
            call = call._replace(method=f"{namespace}.{call.method}")
        prepared = None
        try:
            prepared = self._prepare(call, namespace, caller)
            if prepared.method.declaration.inline:
                return self._ended(call, caller, started, prepared, prepared.method.function(**prepared.arguments))
        except Exception as error:  # noqa: BLE001  becomes the call's error
            return self._failed(call, caller, started, prepared, error)
        if self.full:
            raise QueueFull
        # The present context, with this request's id and secrets, goes along; the loop's own stays as it is.
        context = contextvars.copy_context()
        return self._aside(context, call, caller, started, prepared)

    async def _aside(
        self,
        context: contextvars.Context,
        call: Call,
        caller: Caller,
        started: float,
        prepared: _Prepared,
    ) -> bytes | None:
        self._running += 1
        context.run(made.begin)
        try:
            task = asyncio.get_running_loop().create_task(self._run(prepared), context=context)
            try:
                return context.run(self._ended, call, caller, started, prepared, await task)
            except Exception as error:  # noqa: BLE001  becomes the call's error
                return context.run(self._failed, call, caller, started, prepared, error)
        finally:
            self._running -= 1

    def _prepare(self, call: Call, namespace: str, caller: Caller) -> _Prepared:
        method = self._registry.find(call.method, within=namespace, rights=caller.rights)
        if self.maintenance is not None and method.declaration.kind != "query":
            raise Refused(f"{self.maintenance} {UNCHANGED}", {"maintenance": True, "method": method.name})
        params, access, dry_run, confirm_within = call.params, None, False, None
        if params and isinstance(params, dict):
            if "_platform_access_data" in params:
                access = self._platform_access(params.pop("_platform_access_data"))
            if "_dry_run" in params:
                dry_run = _boolean(params.pop("_dry_run"), "_dry_run")
            if params.get("_confirm_within", 0) is None:
                del params["_confirm_within"]
            if "_confirm_within" in params:
                confirm_within = _confirmation(method, params.pop("_confirm_within"))
        if dry_run and not method.declaration.dry_run:
            raise NotSupported(
                f"{method.name} knows no dry run. Nothing was changed; call it without _dry_run.",
                {"parameter": "_dry_run"},
            )
        set_platform_access(access)
        if access is not None:
            request_secrets.set(tuple(access.texts()))
        arguments = method.arguments(params)
        if arguments:
            request_secrets.set((*request_secrets.get(), *secrets_in(arguments)))
        asynchronous = bool(arguments.pop("async_", method.asynchronous_unless_told))
        if params and self._log.isEnabledFor(logging.DEBUG):
            self._log.debug("params method=%s %s", method.name, _shown_arguments(arguments))
        return _Prepared(method, arguments, access, dry_run, confirm_within, asynchronous)

    def _platform_access(self, data: Any) -> PlatformAccess | None:
        if data is None or data == []:  # an empty object, as PHP writes it
            return None
        if not isinstance(data, dict):
            raise InvalidParameter("_platform_access_data", None, "an object")
        return PlatformAccess(data)

    async def _run(self, prepared: _Prepared) -> Any:
        method = prepared.method
        declaration = method.declaration
        if prepared.dry_run:
            return await self._in_thread(lambda: self._modes.preview(lambda: method.function(**prepared.arguments)))
        if declaration.kind == "operation":
            resource = _resource(method, prepared.arguments)
            identity = await self._operations.start(
                method.name, resource, prepared.arguments, prepared.access, prepared.confirm_within
            )
            made.note("operation_id", identity)
            return identity if prepared.asynchronous else await self._operations.outcome(identity)
        if inspect.iscoroutinefunction(method.function):
            work: Awaitable[Any] = method.function(**prepared.arguments)
        elif declaration.kind == "command":
            resource = _resource(method, prepared.arguments)
            alone = prepared.confirm_within is not None or not declaration.together
            work = self._command(resource, prepared) if alone else self._command_together(resource, prepared)
        else:
            work = self._in_thread(lambda: method.function(**prepared.arguments))
        task = asyncio.ensure_future(work)
        try:
            # The work itself goes on after the limit: a thread cannot be stopped, and holds its locks to its end.
            return await asyncio.wait_for(asyncio.shield(task), declaration.limit)
        except TimeoutError:
            if task.done():
                return task.result()
            task.add_done_callback(self._note_late_end)
            raise TimedOut(
                f"{method.name} did not end within {declaration.limit:g} s; it was left to end by itself.",
                {"limit": declaration.limit},
            ) from None

    def _note_late_end(self, task: "asyncio.Future[Any]") -> None:
        if not task.cancelled():
            self._log.warning("late end error=%r", task.exception())

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._executor, context.run, work)

    async def _command(self, resource: str, prepared: _Prepared) -> Any:
        """Run a command while it holds its resource."""
        function = _bound(prepared)
        if prepared.confirm_within is not None:
            within, whole = prepared.confirm_within, function
            function = lambda: self._modes.confirmable(within, whole)  # noqa: E731
        async with self._taken(resource) as deadline:
            return await self._in_thread(lambda: self._holding(resource, deadline, function))

    async def _command_together(self, resource: str, prepared: _Prepared) -> Any:
        """Run a command with all that came for the same resource while it was taken: whoever gets it works for all."""
        outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        mine = _Waiting(prepared, contextvars.copy_context(), outcome)
        queue = self._waiting.setdefault(resource, [])
        queue.append(mine)
        try:
            async with self._taken(resource) as deadline:
                if not outcome.done() and time.monotonic() < self._crowded.get(resource, 0):
                    # Those who were answered just now may have more to say: their next calls go along.
                    await asyncio.sleep(_GATHERING)
                if not outcome.done():
                    calls, queue[:] = list(queue), []
                    await self._work_for(resource, deadline, calls)
                    if len(calls) > 1 or queue:
                        self._crowded[resource] = time.monotonic() + 4 * _GATHERING
        finally:
            if mine in queue:
                queue.remove(mine)
        return await outcome

    async def _work_for(self, resource: str, deadline: float, calls: list[_Waiting]) -> None:
        def made_in_its_context(call: _Waiting) -> Callable[[], Any]:
            return lambda: self._modes_inside(call)

        functions = [made_in_its_context(call) for call in calls]
        try:
            outcomes = await self._in_thread(
                lambda: self._holding(resource, deadline, lambda: self._modes.together(functions))
            )
        except Exception as failure:  # noqa: BLE001  it is each caller's
            outcomes = [(None, failure)] * len(calls)
        ours = made.made()
        for call, (result, refusal) in zip(calls, outcomes, strict=True):
            if call.outcome.done():
                continue
            if refusal is None:
                for kind, identity in ours.items():
                    call.context.run(made.note, kind, identity)
                call.outcome.set_result(result)
            else:
                call.outcome.set_exception(refusal)

    def _modes_inside(self, call: _Waiting) -> Any:
        """Make a call with all that is its own request's, in the present mode of changing."""
        present = contextvars.copy_context()
        for variable, value in call.context.items():
            present.run(variable.set, value)
        return present.run(_bound(call.prepared))

    @contextlib.asynccontextmanager
    async def _taken(self, resource: str) -> AsyncIterator[float]:
        """Hold a resource in this process, by a lock that costs no thread.

        :return: until when it may be waited for in other processes.
        """
        lock = self._resources.setdefault(resource, asyncio.Lock())
        deadline = time.monotonic() + _PATIENCE
        try:
            async with asyncio.timeout(_PATIENCE):
                await lock.acquire()
        except TimeoutError:
            raise Busy(
                f"Another command is at work on {resource} and did not end within {_PATIENCE:.0f} s. "
                "Nothing was changed; try again later.",
                {"resource": resource},
            ) from None
        try:
            yield deadline
        finally:
            lock.release()

    def _holding(self, resource: str, deadline: float, function: Callable[[], Any]) -> Any:
        self._locks.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = hashlib.sha256(resource.encode()).hexdigest()[:24]
        with locked(self._locks / name, what=resource, timeout=max(deadline - time.monotonic(), 0.1)):
            return function()

    def _ended(self, call: Call, caller: Caller, started: float, prepared: _Prepared, result: Any) -> bytes | None:
        text = result_text(result, call.id, call.modern) if call.id is not None else None
        seconds = time.perf_counter() - started
        self._log.call_line(f"call method={prepared.method.name} {_origin(caller)} took={seconds * 1000:.2f}ms ok")
        self._account.call_ended(prepared.ended(caller, seconds, None))
        return text

    def _failed(
        self, call: Call, caller: Caller, started: float, prepared: _Prepared | None, failure: Exception
    ) -> bytes | None:
        error = self._translated(failure)
        seconds = time.perf_counter() - started
        words = without(error.message, request_secrets.get())
        self._log.call_line(
            f"call method={call.method[:100]} {_origin(caller)} took={seconds * 1000:.2f}ms error={error.code} {words}"
        )
        if prepared is None:
            method = self._registry.known(call.method)
            name = call.method[:100] if method is None else method.name
            end = CallEnd(name, method, caller, None, {}, False, seconds, error)
        else:
            end = prepared.ended(caller, seconds, error)
        self._account.call_ended(end)
        return error_text(error, call.id, call.modern) if call.id is not None else None

    def _translated(self, failure: Exception) -> ScalarizrError:
        if isinstance(failure, OSError) and (lack := lack_of_resources(failure)) is not None:
            self._log.error("a call was broken off", exc_info=failure)
            failure = lack
        if not isinstance(failure, ScalarizrError):
            reference = uuid.uuid4().hex[:12]
            self._log.error("internal error reference=%s", reference, exc_info=failure)
            return InternalError(reference)
        secrets = request_secrets.get()
        if secrets:
            failure.message = without(failure.message, secrets)
            failure.facts = {name: _clean(fact, secrets) for name, fact in failure.facts.items()}
        return failure


def _origin(caller: Caller) -> str:
    shown = f' certificate="{caller.certificate}"' if caller.certificate else ""
    return f"from={caller.address} key={caller.key} envelope={caller.envelope}{shown}"


def _bound(prepared: _Prepared) -> Callable[[], Any]:
    return lambda: prepared.method.function(**prepared.arguments)


def _confirmation(method: Method, value: Any) -> float:
    if not method.declaration.dry_run:
        raise NotSupported(
            f"{method.name} takes no _confirm_within. Nothing was changed; call it without.",
            {"parameter": "_confirm_within"},
        )
    seconds: float = _seconds(value, "_confirm_within")
    if not _SHORTEST_WAIT <= seconds <= _LONGEST_WAIT:
        raise InvalidParameter("_confirm_within", str(value)[:60], "seconds, 5 to 3600")
    return seconds


def _resource(method: Method, arguments: dict[str, Any]) -> str:
    resource = method.declaration.resource
    return resource if isinstance(resource, str) else resource(arguments)


def _clean(fact: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(fact, str):
        return without(fact, secrets)
    if isinstance(fact, list):
        return [_clean(item, secrets) for item in fact]
    if isinstance(fact, dict):
        return {name: _clean(item, secrets) for name, item in fact.items()}
    return fact


def _shown_arguments(arguments: dict[str, Any]) -> str:
    try:
        text = msgspec.json.encode(masked(arguments)).decode()
    except (TypeError, ValueError, RecursionError):
        text = "(not shown)"
    return text if len(text) <= 500 else text[:500] + "…"
