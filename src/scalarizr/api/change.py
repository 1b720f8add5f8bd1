"""The `change` namespace: what was changed, and the way back."""

from typing import NotRequired, TypedDict

from scalarizr.api.parts import Parts
from scalarizr.changes import history
from scalarizr.changes.journal import Record
from scalarizr.changes.transaction import shown_file
from scalarizr.rpc.method import command, query


class Change(TypedDict):
    """One change of configuration files."""

    id: str
    time: float
    method: str
    service: str
    files: list[str]
    status: str
    confirm_by: NotRequired[float]


class FileChange(TypedDict):
    """What a change did to one file."""

    path: str
    action: str
    diff: str


class ShownChange(TypedDict):
    """A change with its diffs."""

    id: str
    time: float
    method: str
    service: str
    files: list[FileChange]
    status: str
    confirm_by: NotRequired[float]


class ChangeAPI:
    """The history of configuration changes: the last 64.

    :param parts: the agent's shared mechanisms.
    """

    def __init__(self, parts: Parts) -> None:
        self._changes = parts.changes

    @query
    def list(self, limit: int = 50) -> list[Change]:
        """List the changes, newest first.

        :param limit: how many at most.
        :return: `status` is `applied`, `waiting` (for its confirmation, until `confirm_by`), `reverted`, `conflict`
            (something that a person edited was left as it is) or `failed`; times are in Unix seconds.
        """
        return [_shown(record) for record in self._changes.journal.history()[: max(limit, 0)]]

    @query
    def show(self, id: str) -> ShownChange:  # noqa: A002  the wire's name
        """Show a change.

        :param id: its id.
        :return: the same with the unified diff of each file; keys and other secrets are not shown.
        :raises NotFound: there is none of that id.
        """
        record = self._changes.find(id)
        files = [FileChange(**shown_file(self._changes.journal.planned(file))) for file in record.files]  # type: ignore[typeddict-item]
        return ShownChange(**{**_shown(record), "files": files})

    @command(resource="changes")
    def confirm(self, id: str) -> Change:  # noqa: A002  the wire's name
        """Keep a change that waits for its confirmation.

        :param id: its id, which the call with `_confirm_within` gave.
        :return: the change.
        :raises NotFound: there is none of that id.
        :raises Refused: it does not wait, or no longer: it is being taken back.
        """
        return _shown(self._changes.confirm(self._changes.find(id)))

    @command(resource="changes")
    def revert(self, id: str, reload: bool = True) -> Change:  # noqa: A002  the wire's name
        """Put the files back as they were before a change, all of them or none.

        :param id: its id.
        :param reload: reload the service that the files belong to, where it has one.
        :return: the change that did it.
        :raises NotFound: there is none of that id.
        :raises Refused: a later change, which is named, or a person touched a file of it since; nothing was changed.
        """
        return _shown(history.revert(self._changes, id, reload=reload))


def _shown(record: Record) -> Change:
    change = Change(
        id=record.id,
        time=record.time,
        method=record.method,
        service=record.service,
        files=[file.path for file in record.files],
        status=record.status,
    )
    if record.confirmation is not None and record.status == "waiting":
        change["confirm_by"] = record.confirmation.by
    return change
