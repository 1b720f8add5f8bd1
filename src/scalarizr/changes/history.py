"""Looking back at applied changes, and taking one back."""

from pathlib import Path

import msgspec

from scalarizr.changes.journal import Record
from scalarizr.changes.live_file import read_state
from scalarizr.changes.transaction import Changes
from scalarizr.errors import NotFound, Refused


def find(changes: Changes, change_id: str) -> Record:
    """Give one change.

    :raises NotFound: there is none of that id, or it is no longer kept.
    """
    for record in changes.journal.history():
        if record.id == change_id:
            return record
    raise NotFound(
        f"There is no change {change_id[:60]} in the history, which keeps the last ones.", {"id": change_id[:60]}
    )


def revert(changes: Changes, change_id: str) -> Record:
    """Put the files back as they were before a change, through a transaction like any other.

    :return: the change that does it.
    :raises NotFound: there is no such change.
    :raises Refused: it was not applied, or what it wrote was touched since: by a later change, which is named, or by a
        person.
    """
    record = find(changes, change_id)
    with changes.transaction(record.service, "change.revert") as transaction:
        record = find(changes, change_id)
        if record.status != "applied":
            raise Refused(
                f"The change {record.id} is {record.status}: there is nothing to take back.", {"id": record.id}
            )
        paths = {file.path for file in record.files}
        for later in changes.journal.history():
            if later.id == record.id:
                break
            touched = paths & {file.path for file in later.files}
            if later.status == "applied" and touched:
                raise Refused(
                    f"The later change {later.id} touched {', '.join(sorted(touched))}: take that one back first. "
                    "Nothing was changed.",
                    {"id": later.id},
                )
        for file in record.files:
            if read_state(Path(file.path)).content != file.new.content:
                raise Refused(
                    f"{file.path} was edited since the change {record.id}. Nothing was changed; edit it by hand.",
                    {"file": file.path},
                )
            transaction.restore(Path(file.path), file.old, secret=file.secret)
        done = transaction.apply()
        if done is None:
            raise Refused(f"The change {record.id} left nothing to take back.", {"id": record.id})
        changes.journal.update(msgspec.structs.replace(record, status="reverted"))
        # A change that was taken back and the one that took it back leave the files to the changes before them.
        changes.journal.update(msgspec.structs.replace(done, status="reverted"))
    return done
