"""How replication stands, as the server tells it: a primary with its replicas, or a standby with its delay."""

import re
from typing import Any

from scalarizr.errors import OutsideFailure, TimedOut
from scalarizr.postgresql.connection import Server

# A hung server has to be answered for within 5 s.
_LIMIT = 3.0
# Columns of pg_stat_wal_receiver differ from version to version, and one holds a connection string: named one by one
# here, through JSON, which gives null for what is not there.
_STATUS = """
WITH here AS MATERIALIZED (
    SELECT pg_is_in_recovery() AS standby,
           CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END AS written,
           CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() END AS replayed
)
SELECT json_build_object(
    'standby', standby,
    'paused', CASE WHEN standby THEN pg_is_wal_replay_paused() END,
    'received_lsn', CASE WHEN standby THEN written END,
    'replayed_lsn', replayed,
    'replay_lag_bytes', CASE WHEN standby THEN pg_wal_lsn_diff(written, replayed) END,
    'xlog_delay', CASE WHEN NOT standby THEN NULL WHEN replayed >= written THEN 0
        ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END,
    'primary', CASE WHEN standby THEN current_setting('primary_conninfo', true) END,
    'receiver', (SELECT json_build_object('status', r->'status', 'sender_host', r->'sender_host',
            'sender_port', r->'sender_port', 'slot_name', r->'slot_name')
        FROM (SELECT to_json(w) FROM pg_stat_wal_receiver AS w) AS receivers (r)),
    'replicas', (SELECT coalesce(json_agg(json_build_object(
            'application_name', s.application_name,
            'client_addr', host(s.client_addr),
            'state', s.state,
            'sync_state', s.sync_state,
            'replay_lag_bytes', CASE WHEN s.replay_lsn IS NOT NULL
                THEN greatest(pg_wal_lsn_diff(written, s.replay_lsn), 0) END,
            'replay_lag', extract(epoch FROM s.replay_lag)) ORDER BY s.application_name, s.pid), '[]')
        FROM pg_stat_replication AS s))
FROM here;
"""
# Servers before 12 know no MATERIALIZED, and do it of themselves.
_OLD_STATUS = _STATUS.replace("AS MATERIALIZED (", "AS (")
_OF_A_STANDBY = ("xlog_delay", "replay_lag_bytes", "received_lsn", "replayed_lsn", "paused", "replicas")
_OF_THE_RECEIVER = ("sender_host", "sender_port", "slot_name")
_PLACE = re.compile(r"\b(?:host|hostaddr|port)=[\w.:/-]+")


def replication_status(server: Server) -> dict[str, Any]:
    """Tell how replication stands.

    :param server: of the cluster.
    :return: `{"master": {"status": "up", "replicas": […]}}` of a primary, `{"slave": {"status": "up", …}}` of a
        standby; of one that does not receive, or cannot be asked, `{"status": "down", "error": text}` in its place.
    """
    cluster = server.cluster
    try:
        old = int(cluster.version.partition(".")[0]) < 12
        told = server.ask(_OLD_STATUS if old else _STATUS, timeout=_LIMIT)
    except (OutsideFailure, TimedOut) as failure:
        return {"slave" if cluster.is_standby() else "master": {"status": "down", "error": failure.message}}
    if not told["standby"]:
        return {"master": {"status": "up", "replicas": told["replicas"]}}
    return {"slave": _standby(told)}


def _standby(told: dict[str, Any]) -> dict[str, Any]:
    receiver = told["receiver"]
    described = {name: told[name] for name in _OF_A_STANDBY}
    if receiver is not None:
        return {"status": "up", **described, **{name: receiver[name] for name in _OF_THE_RECEIVER}}
    follows = ""
    if told["primary"] is not None:  # before 12 it stands in recovery.conf
        # The host and port alone: what else stands there may be secret.
        follows = f" ({' '.join(_PLACE.findall(told['primary'])) or 'primary_conninfo names none'})"
    return {
        "status": "down",
        "error": f"No WAL receiver runs: this standby gets nothing from its primary{follows}. The primary does not "
        "run, cannot be reached, or refuses (pg_hba.conf, a slot or WAL that is gone); the standby's log says which.",
        **described,
    }
