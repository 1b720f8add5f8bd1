"""What is known of an operation, and what its worker is told."""

from typing import Any, Literal

import msgspec

from scalarizr.errors import NotFound

Status = Literal["new", "in-progress", "completed", "failed", "canceled"]
FINISHED = ("completed", "failed", "canceled")
INTERRUPTED = -32015


class Progress(msgspec.Struct, frozen=True):
    """How far an operation is.

    :param done: of what it does.
    :param total: all of it; None where that is not known.
    :param unit: what is counted, such as `bytes`.
    :param step: what it does now, in words.
    """

    done: float
    total: float | None = None
    unit: str = ""
    step: str = ""

    def shown(self) -> dict[str, Any]:
        """Give it with `percent`, null where the total is not known."""
        percent = round(min(self.done / self.total, 1.0) * 100, 1) if self.total else None
        return {**msgspec.structs.asdict(self), "percent": percent}


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One operation, as `operation.result` gives it.

    :param id: its id.
    :param name: the method, `namespace.method`.
    :param status: `new`, `in-progress`, `completed`, `failed`, `canceled`.
    :param result: what the method returned.
    :param error: why it failed.
    :param error_code: the JSON-RPC code of that.
    :param trace: kept for the old shape; always None.
    :param logs: its log lines, the newest 1,000.
    :param progress: see `Progress.shown`.
    :param started_at: Unix time.
    :param finished_at: Unix time.
    """

    id: str
    name: str
    status: Status
    result: Any = None
    error: str | None = None
    error_code: int | None = None
    trace: None = None
    logs: list[str] = msgspec.field(default_factory=list)
    progress: dict[str, Any] | None = None
    started_at: float | None = None
    finished_at: float | None = None


class Job(msgspec.Struct, kw_only=True):
    """What a worker is told, on its standard input and nowhere else.

    :param params: the checked parameters, by their names on the wire, secrets revealed.
    :param shown_params: the same with secrets masked: what may be recorded.
    :param platform_access: cloud credentials, or None.
    :param extra: for whoever performs it: `secrets` are texts that are masked in log lines and errors.
    """

    params: dict[str, Any]
    shown_params: dict[str, Any]
    platform_access: dict[str, Any] | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict)


class UndoStep(msgspec.Struct, frozen=True):
    """A step that has to be undone where the operation does not end well.

    :param number: its place; undone from the highest down.
    :param function: `package.module:function`, which may be called again and again.
    :param arguments: its keyword arguments.
    """

    number: int
    function: str
    arguments: dict[str, Any]


def no_operation(identity: str) -> NotFound:
    """Make the error of an operation that is not there, or not for who asks."""
    return NotFound(f"There is no operation {identity[:60]}.", {"operation_id": identity[:60]})


def secrets_of(job: Job) -> list[str]:
    """Give every text of a job that must not be seen."""
    return [*job.extra.get("secrets", ()), *_texts(job.platform_access)]


def _texts(data: Any) -> list[str]:
    if isinstance(data, str):
        return [data]
    if isinstance(data, dict):
        return [text for item in data.values() for text in _texts(item)]
    if isinstance(data, list):
        return [text for item in data for text in _texts(item)]
    return []
