"""Making a backup: every database and what they share, several at a time, streamed to the object store.

No temporary copy, no memory that grows with a database: what a dump writes is compressed, counted and sent as it comes.
The manifest is written last; whatever happens before leaves nothing that is a backup.
"""

from __future__ import annotations

import builtins
import contextlib
import logging
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from scalarizr.errors import ScalarizrError
from scalarizr.host.files import make_private_directory
from scalarizr.host.locks import locked
from scalarizr.objectstore.opening import open_store
from scalarizr.objectstore.store import Store
from scalarizr.operations.progress import Running, current
from scalarizr.platform_access import current_platform_access
from scalarizr.postgresql import backup_catalogue as catalogue
from scalarizr.postgresql.backup_catalogue import Manifest
from scalarizr.postgresql.backup_parts import PartsMaking
from scalarizr.postgresql.connection import Server
from scalarizr.postgresql.dump import Compression, Database, list_databases
from scalarizr.settings.model import Backup

UNDO = "scalarizr.postgresql.backup_catalogue:remove_remains"
_FACTS = """
SELECT json_build_object('server_version', current_setting('server_version'),
    'system_identifier', (SELECT system_identifier::text FROM pg_control_system()));
"""


class Backups:
    """The backups of one cluster.

    :param server: of the cluster; None where only the store is looked at.
    :param settings: of `[backup]`.
    :param region: of S3, by the settings.
    :param state: the agent's directory for what must survive.
    :param log: the agent's log.
    """

    def __init__(
        self, settings: Backup, region: str | None, state: Path, log: logging.Logger, server: Server | None = None
    ) -> None:
        self._settings = settings
        self._region = region
        self._lock_directory = state / "postgresql"
        self._log = log
        self._server = server
        self._host = socket.gethostname()

    def store(self) -> Store:
        """Open the settings' store with the credentials of the request."""
        return open_store(
            self._settings.store,
            self._settings.endpoint_url,
            current_platform_access(),
            region=self._region,
            patience=self._settings.store_timeout,
        )

    def list(self) -> builtins.list[dict[str, Any]]:
        """Give every backup of the store, newest first."""
        return [found.described() for found in catalogue.list_backups(self.store())]

    def verify(self, manifest: str) -> dict[str, Any]:
        """Read a backup whole and compare its checksums."""
        store, running = self.store(), current()
        identity = catalogue.identity_of(manifest, store)
        return catalogue.verify_backup(
            store, identity, lambda done, total, path: running.progress(done, total, "bytes", f"reading {path}")
        )

    def delete(self, manifest: str) -> None:
        """Delete a backup."""
        store = self.store()
        identity = catalogue.identity_of(manifest, store)
        with self._alone():
            catalogue.delete_backup(store, identity)
        self._log.info("postgresql: the backup %s was deleted", identity)

    def create(self) -> dict[str, Any]:
        """Make a backup, then let go of those that `[backup] keep` does not keep.

        :raises OutsideFailure: a dump or the store failed; nothing is left that is a backup.
        """
        assert self._server is not None
        compression = Compression.parse(self._settings.compression)
        store, running = self.store(), current()
        with self._alone():
            facts = self._server.ask(_FACTS)
            databases = list_databases(self._server)
            token = catalogue.server_token(self._server.cluster, self._host)
            for gone in catalogue.sweep(store, token):
                running.log(f"Removed what the unfinished backup {gone} had left.")
            identity = catalogue.new_identity(token, os.urandom(3))
            note = running.before(
                UNDO,
                store=self._settings.store,
                endpoint_url=self._settings.endpoint_url,
                region=self._region,
                identity=identity,
            )
            making = PartsMaking(self._server, store, compression, identity, self._settings, running)
            try:
                manifest = self._make(making, databases, facts, compression)
                with running.uninterrupted():
                    self._write(store, manifest)
                    running.done_with(note)
                    # It is there: to cancel it is too late, and what remains is to let go of old ones.
                    running.end()
            except BaseException as failure:
                self._remove(identity, failure, running, note)
                raise
            self._log.info("postgresql: the backup %s was made, %d parts", identity, len(manifest.parts))
            self._retire(store, token, manifest, running)
        return catalogue.created(manifest)

    def _make(
        self, making: PartsMaking, databases: builtins.list[Database], facts: dict[str, Any], compression: Compression
    ) -> Manifest:
        started = _now()
        parts, skipped = making.run(databases)
        return Manifest(
            id=making.identity,
            started_at=started,
            finished_at=_now(),
            host=self._host,
            server_version=facts["server_version"],
            system_identifier=facts["system_identifier"],
            compression="none" if compression.level is None else f"zstd:{compression.level}",
            parts=sorted(parts, key=lambda part: (part.database is not None, part.path)),
            skipped=sorted(skipped, key=lambda one: one.database),
        )

    def _write(self, store: Store, manifest: Manifest) -> None:
        store.delete(catalogue.marker_path(manifest.id))
        path = catalogue.manifest_path(manifest.id)
        store.put_bytes(path, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")

    def _remove(self, identity: str, failure: BaseException, running: Running, note: int) -> None:
        try:
            catalogue.remove_remains(
                self._settings.store, self._settings.endpoint_url, self._region, identity, self._settings.store_timeout
            )
        except ScalarizrError as error:
            # The note stays: whoever undoes the operation tries again, and so does the next backup.
            self._log.warning("postgresql: what is left of %s could not be removed: %s", identity, error.message)
            if isinstance(failure, ScalarizrError):
                failure.say_further(
                    f"What it left in postgresql/{identity} is no backup, and is removed before the next one is made."
                )
        else:
            with contextlib.suppress(ScalarizrError):
                running.done_with(note)

    def _retire(self, store: Store, token: str, made: Manifest, running: Running) -> None:
        if self._settings.keep is None:
            return
        try:
            left_out = [one.database for one in made.skipped]
            for gone in catalogue.retire(store, token, self._settings.keep, made.id, left_out):
                running.log(f"Deleted the backup {gone}: [backup] keep is {self._settings.keep}.")
        except ScalarizrError as error:
            # The new backup is there, which is what was asked for; the next one will delete the old ones.
            running.log(f"The old backups could not be deleted: {error.message}")
            self._log.warning("postgresql: old backups could not be deleted: %s", error.message)

    def _alone(self) -> contextlib.AbstractContextManager[int]:
        make_private_directory(self._lock_directory)
        return locked(self._lock_directory / "backup.lock", what="the PostgreSQL backups")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
