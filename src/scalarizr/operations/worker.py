"""A worker's life: take the operation up, do it or undo it, record its end.

It inherits a lock from the agent and holds it to its end: that, and no process id, is what tells that it lives.
"""

import importlib
import os
import signal
import sys
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from scalarizr.errors import ScalarizrError
from scalarizr.operations.progress import Canceled, Running, set_current
from scalarizr.operations.record import INTERRUPTED, Job, secrets_of
from scalarizr.operations.store import Store
from scalarizr.platform_access import PlatformAccess, set_platform_access
from scalarizr.secret import masked, without

Perform = Callable[[str, Job], Any]


def run(perform: Perform) -> int:
    """Run as a worker: `… OPERATION_ID LOCK_DESCRIPTOR DATABASE do|undo`, the job on standard input.

    :param perform: does the operation: name and job to result.
    :return: the exit status.
    """
    identity, descriptor, database, task = sys.argv[1:5]
    os.set_inheritable(int(descriptor), False)
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    store = Store(Path(database))
    secrets = secrets_of(job)
    running = Running(store, identity, secrets)
    set_current(running)
    # Undoing a step takes the credentials that taking it took.
    set_platform_access(None if job.platform_access is None else PlatformAccess(job.platform_access))
    if task == "undo":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        undo(store, identity, running, job)
        return 0
    signal.signal(signal.SIGTERM, lambda _number, _frame: running.cancel())
    try:
        if store.begin(identity, os.getpid()):
            record = store.get(identity)
            assert record is not None
            _perform(perform, record.name, job, store, identity, running, secrets)
        elif store.cancel_requested(identity):
            store.finish(identity, "canceled", error="The operation was cancelled before it began.")
    except Canceled:
        # It came in the narrow place before or behind the work itself.
        running.end()
        store.finish(identity, "canceled", error="The operation was cancelled.", error_code=INTERRUPTED)
    return 0


def _perform(
    perform: Perform, name: str, job: Job, store: Store, identity: str, running: Running, secrets: list[str]
) -> None:
    try:
        result = masked(perform(name, job))
        running.end()
        running.flush()
        store.finish(identity, "completed", result=result)
    except BaseException as failure:  # noqa: BLE001  whatever it was, the record says so
        running.end()
        status, message, code = _described(failure, store, identity, secrets)
        facts = failure.facts if isinstance(failure, ScalarizrError) else {}
        left = undo(store, identity, running, job)
        if left:
            message += f" Not undone: {', '.join(left)}; the log lines say why."
        running.flush()
        store.finish(identity, status, error=message, error_code=code, error_facts=_without_secrets(facts, secrets))


def _described(failure: BaseException, store: Store, identity: str, secrets: list[str]) -> tuple[Any, str, int]:
    if isinstance(failure, Canceled):
        if store.cancel_requested(identity):
            return "canceled", "The operation was cancelled.", INTERRUPTED
        return "failed", "The operation was interrupted: its worker was told to stop.", INTERRUPTED
    if isinstance(failure, ScalarizrError):
        return "failed", without(str(failure), secrets), failure.code
    reference = uuid.uuid4().hex[:12]
    # The agent reads a worker's standard error and puts it into its log.
    sys.stderr.write(f"internal error reference={reference}\n" + without(traceback.format_exc(), secrets))
    return "failed", f"An internal error happened; the agent's log explains it under {reference}.", -32603


def _without_secrets(facts: Any, secrets: list[str]) -> Any:
    if isinstance(facts, str):
        return without(facts, secrets)
    if isinstance(facts, dict):
        return {name: _without_secrets(fact, secrets) for name, fact in facts.items()}
    return [_without_secrets(fact, secrets) for fact in facts] if isinstance(facts, list) else facts


def undo(store: Store, identity: str, running: Running, job: Job) -> list[str]:
    """Undo what the operation noted, the last step first.

    :return: the steps that could not be undone.
    """
    left = []
    for step in store.undo_steps(identity):
        try:
            _function(step.function, job)(**step.arguments)
        except Exception as failure:  # noqa: BLE001  the other steps are undone all the same
            running.log(f"{step.function} could not be undone: {failure}")
            left.append(step.function)
        else:
            store.forget_undo_step(identity, step.number)
    return left


def _function(path: str, job: Job) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    if not module.startswith("scalarizr.") and module not in job.extra.get("undo_modules", ()):
        raise PermissionError(f"{path} is no function of this program")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function
