"""What this agent made, and what became of it, for people: from the records alone."""

from pathlib import Path
from typing import Any

from scalarizr.storage.records import Record, records_of


def made(state: Path) -> list[dict[str, Any]]:
    """List the volumes and snapshots that this agent made or used, newest first.

    :param state: the agent's state directory.
    """
    return [_listed(record) for record in reversed(records_of(state).all())]


def _listed(record: Record) -> dict[str, Any]:
    data = record.data
    return {
        "kind": record.kind,
        "type": record.type,
        "id": record.id,
        "status": record.state,
        "size": data.get("size"),
        "device": data.get("device") if record.state == "present" else None,
        "mpoint": data.get("mpoint"),
        "description": data.get("description"),
        "tags": data.get("tags"),
        "part_of": record.parent or None,
        "made_by_agent": record.ours,
        "made_at": record.made_at,
        "changed_at": record.changed_at,
    }
