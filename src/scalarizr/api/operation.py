"""The `operation` namespace: long work, followed."""

from typing import Any, Literal

import msgspec

from scalarizr.api.parts import Parts
from scalarizr.operations.record import Record, no_operation
from scalarizr.operations.runner import Operations
from scalarizr.rpc.method import command, query
from scalarizr.rpc.rights import present_rights


class OperationAPI:
    """Operations: what methods with an `async` parameter run as.

    :param parts: the agent's shared mechanisms.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @query
    async def result(self, operation_id: str) -> dict[str, Any]:
        """Tell what is known of an operation.

        :param operation_id: its id.
        :return: `{id, name, status, result, error, error_code, trace, logs, progress, started_at, finished_at}`.
            `status` is `new`, `in-progress`, `completed`, `failed` or `canceled`; `error` a text or null; `trace`
            always null; `progress` null or `{done, total, unit, step, percent}`; times in Unix seconds.
        :raises NotFound: there is none of that id; finished ones are kept for `[operations] keep`.
        """
        return _shown(await self._visible(operation_id))

    @command(resource="")
    async def cancel(self, operation_id: str) -> dict[str, Any]:
        """Ask an operation to stop.

        It undoes what it has begun and ends as `canceled`. One that is finished already stays what it is.

        :param operation_id: its id.
        :return: its record as it is now; it may need some seconds to end.
        :raises NotFound: there is none of that id.
        """
        await self._visible(operation_id)
        return _shown(await self._operations.cancel(operation_id))

    @query
    async def list(
        self,
        status: Literal["new", "in-progress", "completed", "failed", "canceled"] | None = None,
        name: str | None = None,
        limit: int = 100,
    ) -> list[dict[str, Any]]:
        """List operations, newest first: those of methods that the caller may call itself.

        :param status: only those in this state.
        :param name: only those of this method, `namespace.method`.
        :param limit: how many at most.
        :return: their records, as `result` gives them.
        """
        records = await self._operations.newest(status, name, max(0, min(limit, 10_000)), present_rights().show)
        return [_shown(record) for record in records]

    @query
    async def has_in_progress(self) -> bool:
        """Tell whether an operation of a method that the caller may call itself is not finished.

        :return: true while one waits or runs.
        """
        return await self._operations.has_in_progress(present_rights().show)

    async def _visible(self, operation_id: str) -> Record:
        record = await self._operations.result(operation_id)
        if not present_rights().show(record.name):
            raise no_operation(operation_id)
        return record

    @property
    def _operations(self) -> Operations:
        if self._parts.operations is None:
            raise TypeError("a worker has no operations of its own")
        return self._parts.operations


def _shown(record: Record) -> dict[str, Any]:
    return msgspec.structs.asdict(record)
