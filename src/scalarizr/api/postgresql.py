"""The `postgresql` namespace."""

from scalarizr.api.parts import Parts


class PostgreSQLAPI:
    """PostgreSQL: passwords, replication, data bundles and backups.

    :param parts: the agent's shared mechanisms.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
