"""Between dispatcher and operations: a checked call becomes a worker's job, a finished record the call's outcome."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scalarizr.errors import Fact, ScalarizrError
from scalarizr.operations.record import Job
from scalarizr.operations.runner import Operations
from scalarizr.platform_access import PlatformAccess
from scalarizr.rpc.rights import present_rights
from scalarizr.secret import masked, revealed, secrets_in


class OperationFailed(ScalarizrError):
    """An operation ended with an error, whose code and words it carries."""

    def __init__(self, message: str, code: int, facts: Mapping[str, Fact]) -> None:
        super().__init__(message, facts)
        self.code = code


class WorkerGate:
    """Runs long methods as operations.

    :param operations: records them and runs the workers.
    :param etc: the configuration directory, which the worker reads itself.
    :param namespaces: the table of namespaces, which the worker shares.
    :ivar on_waiting: called when an operation has ended whose change may wait for its confirmation now.
    """

    def __init__(self, operations: Operations, etc: Path, namespaces: Mapping[str, str]) -> None:
        self._operations = operations
        self._etc = etc
        self._namespaces = dict(namespaces)
        self._watching: set[asyncio.Task[Any]] = set()
        self.on_waiting: Callable[[], object] = lambda: None

    async def start(
        self,
        name: str,
        resource: str,
        arguments: dict[str, Any],
        access: PlatformAccess | None,
        confirm_within: float | None = None,
    ) -> str:
        """Record and start an operation.

        :param confirm_within: seconds after which its change reverts unless it is confirmed.
        :return: its id.
        :raises Busy: one of the same name runs on the same resource.
        """
        on_the_wire = {keyword.rstrip("_"): value for keyword, value in arguments.items()}
        job = Job(
            params=revealed(on_the_wire),
            shown_params=masked(on_the_wire),
            platform_access=None if access is None else access.revealed(),
            extra={
                "etc": str(self._etc),
                "namespaces": self._namespaces,
                "secrets": secrets_in(arguments),
                "confirm_within": confirm_within,
                "full_rights": present_rights().unlimited,
            },
        )
        identity = await self._operations.start(name, resource, job)
        if confirm_within is not None:
            task = asyncio.get_running_loop().create_task(self._watch(identity))
            self._watching.add(task)
            task.add_done_callback(self._watching.discard)
        return identity

    async def _watch(self, operation_id: str) -> None:
        await self._operations.wait(operation_id)
        self.on_waiting()

    async def outcome(self, operation_id: str) -> Any:
        """Wait for an operation's end.

        :return: its result.
        :raises ScalarizrError: it failed or was cancelled.
        """
        record = await self._operations.wait(operation_id)
        if record.status == "completed":
            return record.result
        facts = await self._operations.error_facts(operation_id)
        raise OperationFailed(
            record.error or f"The operation {operation_id} ended as {record.status}.",
            record.error_code if record.error_code is not None else -32015,
            {**facts, "operation_id": operation_id},
        )
