"""Who holds the lock that a dump waits for."""

from typing import Any

from scalarizr.errors import ScalarizrError
from scalarizr.postgresql.connection import Server, literal

# The holder's statement is not asked for: it may hold what is secret. A prepared transaction holds locks as process 0.
_HOLDERS = """
SELECT coalesce(json_agg(DISTINCT h.who), '[]') FROM pg_stat_activity AS w
CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS b (pid)
LEFT JOIN pg_stat_activity AS s ON s.pid = b.pid
CROSS JOIN LATERAL (SELECT json_build_object(
    'pid', b.pid, 'role', s.usename, 'database', s.datname, 'application', s.application_name,
    'address', host(s.client_addr), 'state', s.state, 'seconds', round(extract(epoch FROM now() - s.xact_start))
)::text) AS h (who)
WHERE w.application_name = {label} AND w.wait_event_type = 'Lock';
"""


def lock_holders(server: Server, label: str) -> str:
    """Say who holds the lock that a dump waits for; empty where it waits for none, or where nobody can tell.

    :param label: the dump's `application_name`.
    """
    import msgspec

    try:
        found = server.ask(_HOLDERS.format(label=literal(label)), timeout=10)
    except ScalarizrError:
        return ""
    return "; ".join(_described(msgspec.json.decode(one)) for one in found or [])


def _described(holder: dict[str, Any]) -> str:
    if not holder["pid"]:
        return "a prepared transaction (pg_prepared_xacts shows it)"
    facts = [
        f"role {holder['role']!r}" if holder["role"] else "",
        f"database {holder['database']!r}" if holder["database"] else "",
        f"application {holder['application']!r}" if holder["application"] else "",
        f"from {holder['address']}" if holder["address"] else "",
        holder["state"] or "",
        f"its transaction {int(holder['seconds'])} s old" if holder["seconds"] is not None else "",
    ]
    return f"process {holder['pid']} ({', '.join(fact for fact in facts if fact)})"
