"""Data bundles: one snapshot of the volume that holds a whole cluster, from which it starts as after a power cut."""

import os
from typing import Any

from scalarizr.errors import OutsideFailure, TimedOut
from scalarizr.operations.progress import current
from scalarizr.postgresql.connection import Server
from scalarizr.postgresql.volume import require_whole, volume_of
from scalarizr.settings.model import PostgresqlVolume
from scalarizr.storage.storage import Storage

# A checkpoint of a large shared_buffers to a slow disk; what comes behind it is then short.
_CHECKPOINT_LIMIT = 3600.0
_STEPS = 3
_TABLESPACES = """
SELECT coalesce(json_agg(pg_tablespace_location(oid)), '[]') FROM pg_tablespace
WHERE pg_tablespace_location(oid) <> '';
"""
# A standby makes a restartpoint of it.
_CHECKPOINT = "CHECKPOINT; SELECT to_json(redo_lsn::text) FROM pg_control_checkpoint();"
_WRITTEN = """
SELECT to_json((CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
    ELSE pg_current_wal_insert_lsn() END)::text);
"""


def create_databundle(server: Server, storage: Storage, named: PostgresqlVolume | None) -> dict[str, Any]:
    """Take a data bundle; the server goes on all the while.

    :param server: of the cluster.
    :param storage: the volumes of this host.
    :param named: the setting `[postgresql] volume`.
    :return: `{snapshot, used_size, wal_start, wal_stop}`: the snapshot's dict, which a volume's `snap` takes; the
        space in use on the volume, in GB of 2**30 bytes; and where in the server's log it lies: from the checkpoint
        before it to the end of what it can hold.
    :raises Refused: a tablespace or pg_wal lies elsewhere; its path is named.
    :raises NotConfigured: what the cluster lies on is no volume that this agent knows.
    """
    running = current()
    cluster = server.cluster
    require_whole(storage.host, cluster, server.ask(_TABLESPACES))
    volume = volume_of(storage, cluster, named)
    _tell(0, f"writing a checkpoint of {cluster.data_dir}")
    start = server.ask(_CHECKPOINT, timeout=_CHECKPOINT_LIMIT)
    _tell(1, f"taking a snapshot of {volume.get('id') or volume['type']}")
    room = os.statvfs(cluster.data_dir)
    snapshot = storage.snapshot(
        volume, f"PostgreSQL {cluster.version}, {cluster.data_dir}", {"postgresql": cluster.version}
    )
    try:
        stop = server.ask(_WRITTEN)
    except (OutsideFailure, TimedOut) as gone:
        # The snapshot is whole all the same.
        running.log(f"where the server's log ends is not known: {gone.message}")
        stop = None
    _tell(_STEPS, "done")
    used = (room.f_blocks - room.f_bfree) * room.f_frsize / (1 << 30)
    return {"snapshot": snapshot, "used_size": round(used, 3), "wal_start": start, "wal_stop": stop}


def _tell(done: int, words: str) -> None:
    running = current()
    running.log(words)
    running.progress(done, _STEPS, "steps", words)
    running.flush()
