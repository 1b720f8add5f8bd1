"""The `change` namespace: what was changed, and the way back."""

from typing import NotRequired, TypedDict

from scalarizr.api.parts import Parts
from scalarizr.changes import history
from scalarizr.changes.journal import Record
from scalarizr.changes.transaction import shown_file
from scalarizr.errors import NotFound
from scalarizr.rpc.method import command, query
from scalarizr.rpc.rights import present_rights

# Whose methods change a service's files.
_OWNERS = {"nginx": "nginx", "apache": "apache", "fstab": "storage", "hostname": "system"}


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
        """List the changes, newest first: those of methods that the caller may call itself.

        :param limit: how many at most.
        :return: `status` is `applied`, `waiting` (for its confirmation, until `confirm_by`), `reverted`, `conflict`
            (something that a person edited was left as it is) or `failed`; times are in Unix seconds.
        """
        visible = [record for record in self._changes.journal.history() if _is_visible(record)]
        return [_shown(record) for record in visible[: max(limit, 0)]]

    @query
    def show(self, id: str) -> ShownChange:  # noqa: A002  the wire's name
        """Show a change.

        :param id: its id.
        :return: the same with the unified diff of each file; keys and other secrets are not shown.
        :raises NotFound: there is none of that id.
        """
        record = self._find(id)
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
        return _shown(self._changes.confirm(self._find(id)))

    @command(resource="changes")
    def revert(self, id: str, reload: bool = True) -> Change:  # noqa: A002  the wire's name
        """Put the files back as they were before a change, all of them or none.

        :param id: its id.
        :param reload: reload the service that the files belong to, where it has one.
        :return: the change that did it.
        :raises NotFound: there is none of that id.
        :raises Refused: a later change, which is named, or a person touched a file of it since; nothing was changed.
        """
        return _shown(history.revert(self._changes, self._find(id).id, reload=reload))

    def _find(self, change_id: str) -> Record:
        for record in self._changes.journal.history():
            if record.id == change_id and _is_visible(record):
                return record
        shown = change_id[:60]
        raise NotFound(f"There is no change {shown} in the history, which keeps the last ones.", {"id": shown})


def _is_visible(record: Record) -> bool:
    """Tell whether the caller may see a change, and with it take it back: where it may call what made it.

    One that took another back, or was made by the agent itself, could be any change of its service's files.
    """
    rights = present_rights()
    namespace = record.method.partition(".")[0]
    if namespace == record.method or namespace == "change":
        owner = _OWNERS.get(record.service)
        return rights.unlimited or (owner is not None and rights.cover(owner))
    return rights.show(record.method)


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
