"""A long operation as a client holds it: its record, and waiting for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from scalarizr.client.errors import AgentError, ClientError

if TYPE_CHECKING:
    from scalarizr.client.client import Client

FINISHED = ("completed", "failed", "canceled")
_LONGEST_PAUSE = 2.0


class OperationRecord(msgspec.Struct, frozen=True):
    """What the agent knows of an operation.

    :param id: its id.
    :param name: the method, `namespace.method`.
    :param status: `new`, `in-progress`, `completed`, `failed`, `canceled`.
    :param result: what the method returned, once completed.
    :param error: why it failed, or None.
    :param error_code: the JSON-RPC code of that.
    :param trace: always None.
    :param logs: its log lines.
    :param progress: how far it is.
    :param started_at: Unix time.
    :param finished_at: Unix time.
    """

    id: str
    name: str
    status: str
    result: Any = None
    error: str | None = None
    error_code: int | None = None
    trace: None = None
    logs: list[str] = msgspec.field(default_factory=list)
    progress: dict[str, Any] | None = None
    started_at: float | None = None
    finished_at: float | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in FINISHED


def read_record(data: Any) -> OperationRecord:
    """Read a record from an answer.

    :raises ClientError: it is none.
    """
    try:
        return msgspec.convert(data, OperationRecord)
    except msgspec.ValidationError as error:
        raise ClientError(f"The agent's answer is no operation record: {error}.") from error


def outcome(record: OperationRecord) -> Any:
    """Give the result of a finished operation.

    :raises AgentError: it failed or was cancelled.
    """
    if record.status == "completed":
        return record.result
    message = record.error or f"The operation ended as {record.status}."
    raise AgentError(
        record.error_code if record.error_code is not None else -32015, message, {"operation_id": record.id}
    )


def pauses() -> Callable[[], float]:
    """Give growing pauses between two looks at an operation: 50 ms at first, 2 s at most."""
    pause = 0.035

    def following() -> float:
        nonlocal pause
        pause = min(pause * 1.4, _LONGEST_PAUSE)
        return pause

    return following


class Operation:
    """A running operation.

    :param client: the client that started it.
    :param operation_id: its id.
    """

    def __init__(self, client: Client, operation_id: str) -> None:
        self._client = client
        self.id = operation_id

    def __repr__(self) -> str:
        return f"Operation({self.id!r})"

    def record(self) -> OperationRecord:
        """Ask for its record."""
        return read_record(self._client.call("operation.result", operation_id=self.id))

    def cancel(self) -> None:
        """Ask it to stop; it cleans up after itself."""
        self._client.call("operation.cancel", operation_id=self.id)

    def wait(self, progress: Callable[[OperationRecord], object] | None = None, timeout: float | None = None) -> Any:
        """Wait for its end.

        :param progress: called with the record each time it was looked at.
        :param timeout: seconds; None waits as long as it takes.
        :return: its result.
        :raises AgentError: it failed or was cancelled.
        :raises TimeoutError: it did not end in time; it goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = pauses()
        while True:
            record = self.record()
            if progress is not None:
                progress(record)
            if record.finished:
                return outcome(record)
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"The operation {self.id} did not end within {timeout:g} s; it goes on.")
            time.sleep(pause())
