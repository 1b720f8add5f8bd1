"""Taking an applied change back."""

from pathlib import Path

import msgspec

from scalarizr.changes.changes import Changes
from scalarizr.changes.journal import Record
from scalarizr.changes.live_file import read_state
from scalarizr.changes.transaction import Effect
from scalarizr.errors import OutsideFailure, Refused


def revert(changes: Changes, change_id: str, *, reload: bool) -> Record:
    """Put the files back as they were before a change, through a transaction like any other.

    :param reload: reload the service that they belong to.
    :return: the change that does it.
    :raises NotFound: there is no such change.
    :raises Refused: it was not applied, or what it wrote was touched since: by a later change, which is named, or by a
        person.
    """
    record = changes.find(change_id)
    with changes.transaction(record.service, "change.revert") as transaction:
        record = changes.find(change_id)
        if record.status not in ("applied", "waiting"):
            raise Refused(
                f"The change {record.id} is {record.status}: there is nothing to take back.", {"id": record.id}
            )
        _refuse_where_touched_later(changes, record)
        for file in record.files:
            try:
                old, new = changes.journal.state(file.old), changes.journal.state(file.new)
            except OSError as error:
                raise OutsideFailure(
                    f"What {file.path} held before the change {record.id} cannot be read any more: {error.strerror}. "
                    "Nothing was changed."
                ) from error
            if not read_state(Path(file.path)).holds_the_same(new):
                raise Refused(
                    f"{file.path} was edited since the change {record.id}. Nothing was changed; edit it by hand.",
                    {"file": file.path},
                )
            transaction.restore(Path(file.path), old, secret=file.secret)
        service = changes.service(record.service)
        done = transaction.apply(Effect(service=service, name=record.service, reload=reload), in_place_of=record)
        if done is None:
            raise Refused(f"The change {record.id} left nothing to take back.", {"id": record.id})
        changes.journal.update(msgspec.structs.replace(record, status="reverted", confirmation=None))
        # A change that was taken back and the one that took it back leave the files to the changes before them.
        changes.journal.update(msgspec.structs.replace(done, status="reverted"))
    return done


def _refuse_where_touched_later(changes: Changes, record: Record) -> None:
    paths = {file.path for file in record.files}
    for later in changes.journal.history():
        if later.id == record.id:
            return
        touched = paths & {file.path for file in later.files}
        if later.status in ("applied", "waiting") and touched:
            raise Refused(
                f"The later change {later.id} touched {', '.join(sorted(touched))}: take that one back first. "
                "Nothing was changed.",
                {"id": later.id},
            )
