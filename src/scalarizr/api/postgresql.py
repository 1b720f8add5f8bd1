"""The `postgresql` namespace: the local PostgreSQL cluster."""

from typing import TYPE_CHECKING, Any, TypedDict, cast

from scalarizr.api.parts import Parts
from scalarizr.postgresql.cluster import find_cluster
from scalarizr.postgresql.connection import Server
from scalarizr.postgresql.program import PostgresqlProgram
from scalarizr.postgresql.replication import replication_status
from scalarizr.rpc.method import command, operation, query
from scalarizr.secret import Secret

if TYPE_CHECKING:
    from scalarizr.postgresql.backup import Backups
    from scalarizr.storage.storage import Storage

_RESOURCE = "postgresql"


class DataBundle(TypedDict):
    """What became of a data bundle."""

    snapshot: dict[str, Any]
    used_size: float
    wal_start: str
    wal_stop: str | None


class PostgreSQLAPI:
    """PostgreSQL: its passwords, its replication, its data, the service itself.

    :param parts: the agent's shared mechanisms.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._settings = parts.settings.postgresql
        self._log = parts.log

    def _server(self) -> Server:
        # Looked for anew with each call: a cluster may be made, upgraded or moved while the agent runs.
        return Server(find_cluster(self._settings, self._parts.host), self._settings.os_user)

    def _program(self) -> PostgresqlProgram:
        server = self._server()
        return PostgresqlProgram(server.cluster, server, self._settings.manager)

    def _storage(self) -> "Storage":
        from scalarizr.storage.opening import storage_of

        parts = self._parts
        return storage_of(parts.etc, parts.settings, parts.host, parts.changes, parts.log)

    # Roles and replication

    @command(resource=_RESOURCE)
    def reset_password(self, new_password: Secret | None = None) -> str:
        """Set the password of the agent's role (setting `[postgresql] master_role`), which is made where it is missing.

        The role is created as a superuser that may log in. The server is sent a SCRAM-SHA-256 verifier, never the
        password, so that no log and no statistics view of it can hold it. A login over TCP proves the new password;
        where `pg_hba.conf` allows none, the agent's log warns of it. `pg_hba.conf` is not touched.

        :param new_password: 1 to 1,024 characters; 20 letters and digits are made where it is not given.
        :return: the password.
        :raises Refused: the server is a standby, or read-only.
        :raises OutsideFailure: it cannot be asked, or refuses; with its own words.
        """
        from scalarizr.postgresql.roles import reset_password

        return reset_password(self._server(), self._settings.master_role, new_password, self._log).reveal()

    @query
    def replication_status(self) -> dict[str, Any]:
        """Tell how replication stands.

        :return: of a primary `{"master": {"status": "up", "replicas": [{application_name, client_addr, state,
            sync_state, replay_lag_bytes, replay_lag}]}}`, lags in bytes and in seconds (null: not known); of a standby
            `{"slave": {"status": "up", "xlog_delay": seconds, replay_lag_bytes, received_lsn, replayed_lsn, paused,
            sender_host, sender_port, slot_name, replicas}}`, `xlog_delay` 0 when all that was received is replayed, and
            null where nothing since the start tells. A standby that receives nothing, or a server that cannot be asked:
            `{"status": "down", "error": text}` in the same place.
        :raises NotConfigured: there is no cluster on this host.
        """
        return replication_status(self._server())

    # The volume that holds the cluster

    @operation(resource=_RESOURCE)
    def create_databundle(self, async_: bool = True) -> DataBundle:  # noqa: ARG002  the dispatcher's
        """Take a snapshot of the volume that holds the whole cluster, after a checkpoint, while the server goes on.

        A server started from it recovers as after a power cut, with every transaction that was committed before; it
        needs no archive of its log. Debian's configuration in /etc/postgresql is no part of it.

        :param async_: give the operation's id at once.
        :return: `snapshot`, which a volume's `snap` takes; `used_size`, in GB of 2**30 bytes, of the volume;
            `wal_start` and `wal_stop`, the positions in the server's log between which it lies (null: not known).
        :raises Refused: a tablespace or pg_wal lies on another file system; its path is named.
        :raises NotConfigured: what the cluster lies on is no volume that this agent knows.
        """
        # Volumes are the worker's business: the agent itself need not know of them.
        from scalarizr.postgresql.databundle import create_databundle

        return cast(DataBundle, create_databundle(self._server(), self._storage(), self._settings.volume))

    @operation(resource=_RESOURCE)
    def grow_volume(
        self,
        volume: dict[str, Any],
        growth: dict[str, Any],
        async_: bool = False,  # noqa: ARG002  the dispatcher's
    ) -> dict[str, Any]:
        """Grow the volume that holds the cluster and its file system.

        The server is stopped, and started again, only where volume or file system cannot grow while they are in use.

        :param volume: the volume, as `storage.create` gave it.
        :param growth: as `storage.grow` takes it: `size` in GB, and what its type adds.
        :param async_: give the operation's id at once.
        :return: the volume as it is then.
        :raises Refused: it is not the volume that holds the cluster.
        :raises InvalidParameter: it would not grow, or cannot be so large.
        """
        from scalarizr.postgresql.volume import grow_volume

        server = self._server()
        return grow_volume(self._storage(), self._program(), server.cluster, volume, growth, self._parts.etc)

    # The service

    @command(resource=_RESOURCE, limit=300)
    def start_service(self) -> None:
        """Start PostgreSQL; returns when it takes connections.

        :raises OutsideFailure: it does not run; with its own words.
        :raises TimedOut: it runs, and replays its log (WAL) for longer than this waits.
        """
        self._program().start()

    @command(resource=_RESOURCE, limit=600)
    def stop_service(self, reason: str | None = None) -> None:
        """Stop PostgreSQL: clients are cut off, nothing is lost; returns when it is gone.

        :param reason: goes to the log.
        """
        self._note("stop", reason)
        self._program().stop()

    @command(resource=_RESOURCE, limit=900)
    def restart_service(self, reason: str | None = None) -> None:
        """Stop and start PostgreSQL; with a configuration that is not valid it is left running.

        :param reason: goes to the log.
        :raises OutsideFailure: with PostgreSQL's own words.
        """
        self._note("restart", reason)
        self._program().restart()

    @command(resource=_RESOURCE)
    def reload_service(self, reason: str | None = None) -> None:
        """Let PostgreSQL load its configuration; no connection is touched, and a stopped one is started.

        What takes effect at a restart only waits for one.

        :param reason: goes to the log.
        :raises OutsideFailure: a file is not valid, with its lines; the old configuration stays in force.
        """
        self._note("reload", reason)
        self._program().reload()

    @query
    def get_service_status(self) -> int:
        """Tell whether PostgreSQL runs.

        :return: 0 running, 1 dead with a pid file, 3 not running (LSB).
        """
        return int(self._program().status())

    def _note(self, action: str, reason: str | None) -> None:
        self._log.info("postgresql %s reason=%r", action, (reason or "-")[:300])

    # Backups

    @operation(resource=_RESOURCE)
    def create_backup(self, async_: bool = True) -> dict[str, Any]:
        """Back up every database but `template0`, and the roles and tablespaces that they share.

        Each is a dump of its own in pg_dump's custom format, compressed and streamed to the store of `[backup] store`
        without a temporary copy. The manifest is written last: before that there is no backup. Afterwards old backups
        of this server go, where `[backup] keep` says so; the newest whole one always stays.

        :param async_: give the operation's id at once.
        :return: `{"manifest": path, "parts": [{path, database, size, sha256}], "skipped": [{database, reason}]}`, paths
            within the store, sizes in bytes as stored; the part without a database holds roles and tablespaces.
        :raises OutsideFailure: a dump or the store failed, with its own words, and with who holds the lock that a dump
            waited for in vain; nothing was kept.
        """
        del async_
        return self._backups(self._server()).create()

    @query(limit=300)
    def list_backups(self) -> list[dict[str, Any]]:
        """List the backups in the store, newest first, those of other servers in the same store too.

        :return: `[{"manifest", "complete", "problem", "host", "server_version", "started_at", "finished_at", "size",
            "databases", "skipped"}]`; `complete` tells whether every part is there with its size, `verify_backup`
            whether it is what was written.
        """
        return self._backups().list()

    @operation(resource=lambda arguments: str(arguments["manifest"]))
    def verify_backup(self, manifest: str, async_: bool = True) -> dict[str, Any]:
        """Read every part of a backup and compare its checksum.

        :param manifest: its manifest's path, as `create_backup` and `list_backups` give it.
        :param async_: give the operation's id at once.
        :return: `{"manifest", "valid": true, "size", "parts"}`.
        :raises NotFound: there is no such backup.
        :raises OutsideFailure: it is damaged; every damaged part is named.
        """
        del async_
        return self._backups().verify(manifest)

    @command(resource="postgresql-backups", limit=600)
    def delete_backup(self, manifest: str) -> None:
        """Delete a backup.

        :param manifest: its manifest's path, as `create_backup` and `list_backups` give it.
        :raises NotFound: there is no such backup.
        :raises Busy: a backup is being made.
        """
        self._backups().delete(manifest)

    def _backups(self, server: Server | None = None) -> "Backups":
        from scalarizr.postgresql.backup import Backups

        settings = self._parts.settings
        return Backups(settings.backup, settings.ec2.region, settings.paths.state, self._log, server)
