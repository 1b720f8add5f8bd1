"""The catalogue of a store: which backups there are, whether they are whole, which ones go.

A backup is a directory `postgresql/ID/` with a part for each database, one for what the databases share, and
`manifest.json`, written last. Without that it is no backup but remains, which the server that left them takes away.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from scalarizr.errors import InvalidParameter, NotFound, OutsideFailure
from scalarizr.objectstore.opening import open_store
from scalarizr.objectstore.store import SMALL, Entry, Store
from scalarizr.platform_access import current_platform_access
from scalarizr.postgresql.cluster import Cluster

ROOT = "postgresql"
MANIFEST = "manifest.json"
_IDENTITY = re.compile(r"[0-9]{8}T[0-9]{9}Z-(?P<server>[0-9a-f]{8})-[0-9a-f]{6}", re.ASCII)
_CLEANING_PATIENCE = 10.0


class Part(msgspec.Struct, frozen=True):
    """One object of a backup.

    :param path: within the store.
    :param database: whose dump it is; None: the roles and tablespaces.
    :param size: bytes, as stored.
    :param sha256: of them.
    :param dumped: bytes before compression.
    """

    path: str
    database: str | None
    size: int
    sha256: str
    dumped: int = 0


class Skipped(msgspec.Struct, frozen=True):
    """A database that is not in the backup, and why."""

    database: str
    reason: str


class Manifest(msgspec.Struct, frozen=True):
    """What a backup says of itself: `manifest.json`."""

    id: str
    started_at: str
    finished_at: str
    host: str
    server_version: str
    system_identifier: str
    compression: str
    parts: list[Part]
    skipped: list[Skipped] = msgspec.field(default_factory=list)
    kind: Literal["postgresql"] = "postgresql"
    format: Literal[1] = 1

    @property
    def databases(self) -> set[str]:
        """The databases that are in it."""
        return {part.database for part in self.parts if part.database is not None}


class DamagedManifest(OutsideFailure):
    """There is a manifest, and it cannot be understood."""


class Found(msgspec.Struct, frozen=True):
    """A backup in the catalogue.

    :param identity: its directory's name.
    :param manifest: what it says of itself; None: it cannot be read.
    :param problem: what is wrong with it, as far as a look at names and sizes tells; empty: nothing.
    """

    identity: str
    manifest: Manifest | None
    problem: str

    @property
    def path(self) -> str:
        return manifest_path(self.identity)

    def described(self) -> dict[str, Any]:
        """Give it as the API does."""
        told: dict[str, Any] = {"manifest": self.path, "complete": not self.problem, "problem": self.problem or None}
        if self.manifest is not None:
            told |= {
                "host": self.manifest.host,
                "server_version": self.manifest.server_version,
                "started_at": self.manifest.started_at,
                "finished_at": self.manifest.finished_at,
                "size": sum(part.size for part in self.manifest.parts),
                "databases": [part.database for part in self.manifest.parts if part.database is not None],
                "skipped": msgspec.to_builtins(self.manifest.skipped),
            }
        return told


def server_token(cluster: Cluster, host: str, machine_id: Path = Path("/etc/machine-id")) -> str:
    """Give what tells this server's backups from others' in the same store."""
    try:
        machine = machine_id.read_text().strip()
    except OSError:
        machine = ""
    return hashlib.sha256(f"{machine}\0{host}\0{cluster.data_dir}".encode()).hexdigest()[:8]


def directory_of(identity: str) -> str:
    return f"{ROOT}/{identity}"


def manifest_path(identity: str) -> str:
    return f"{directory_of(identity)}/{MANIFEST}"


def marker_path(identity: str) -> str:
    """Give the path of what lies in a backup's directory until there is a manifest."""
    return f"{directory_of(identity)}/unfinished"


def identity_of(manifest: str, store: Store) -> str:
    """Give the id of the backup that a caller means.

    :param manifest: the manifest's path as `create_backup` and `list_backups` give it, its URL, or the id alone.
    :raises InvalidParameter: it names no backup of this store.
    """
    text = manifest.removeprefix(f"{store.url}/").removeprefix(f"{ROOT}/").removesuffix(f"/{MANIFEST}")
    if _IDENTITY.fullmatch(text):
        return text
    raise InvalidParameter(
        "manifest", manifest[:200], f"a manifest's path as list_backups gives it, such as `{ROOT}/ID/{MANIFEST}`"
    )


def list_backups(store: Store, server: str | None = None) -> list[Found]:
    """Give the backups of the store, newest first.

    :param server: those of one server alone, by its token.
    """
    return [
        _look(store, identity, entries)
        for identity, entries in sorted(_directories(store, server).items(), reverse=True)
        if manifest_path(identity) in entries
    ]


def _directories(store: Store, server: str | None = None) -> dict[str, dict[str, Entry]]:
    found: dict[str, dict[str, Entry]] = {}
    for entry in store.list(ROOT):
        identity = entry.path.split("/")[1]
        match = _IDENTITY.fullmatch(identity)
        if match is not None and server in (None, match["server"]):
            found.setdefault(identity, {})[entry.path] = entry
    return found


def _look(store: Store, identity: str, entries: Mapping[str, Entry]) -> Found:
    try:
        if entries[manifest_path(identity)].size > SMALL:
            raise DamagedManifest(f"{manifest_path(identity)} is too large for a manifest.")
        manifest = read_manifest(store, identity)
    except NotFound:
        return Found(identity, None, "It was deleted meanwhile.")
    except DamagedManifest as error:
        return Found(identity, None, error.message)
    for part in manifest.parts:
        entry = entries.get(part.path)
        if entry is None:
            return Found(identity, manifest, f"{part.path} is missing.")
        if entry.size != part.size:
            return Found(identity, manifest, f"{part.path} has {entry.size} bytes in place of {part.size}.")
    return Found(identity, manifest, "")


def read_manifest(store: Store, identity: str) -> Manifest:
    """Read a backup's manifest.

    :raises NotFound: there is no such backup.
    :raises DamagedManifest: it is none.
    """
    path = manifest_path(identity)
    try:
        manifest = msgspec.json.decode(store.get_bytes(path), type=Manifest)
    except NotFound:
        raise NotFound(
            f"There is no backup {identity} in {store.url}. Nothing was changed; list_backups tells which there are.",
            {"manifest": path},
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedManifest(f"{path} in {store.url} is no manifest of a backup, or damaged: {error}.") from error
    # Whoever copied the directory from elsewhere finds its parts beside the manifest all the same.
    own = [
        msgspec.structs.replace(part, path=f"{directory_of(identity)}/{part.path.rsplit('/', 1)[-1]}")
        for part in manifest.parts
    ]
    return msgspec.structs.replace(manifest, parts=own)


def verify_backup(store: Store, identity: str, progress: Callable[[int, int, str], None]) -> dict[str, Any]:
    """Read every part and compare its size and checksum.

    :param progress: is called with bytes read, bytes of all parts, and the present part's path.
    :raises NotFound: there is no such backup.
    :raises OutsideFailure: it is damaged; every part that is, is named.
    """
    manifest = read_manifest(store, identity)
    total, before, damaged = sum(part.size for part in manifest.parts), 0, []
    for part in manifest.parts:
        digest, size = hashlib.sha256(), 0
        try:
            for piece in store.get_stream(part.path):
                digest.update(piece)
                size += len(piece)
                progress(before + min(size, part.size), total, part.path)
        except NotFound:
            damaged.append(f"{part.path} is missing")
        else:
            if size != part.size:
                damaged.append(f"{part.path} has {size} bytes in place of {part.size}")
            elif digest.hexdigest() != part.sha256:
                damaged.append(f"{part.path} has another SHA-256")
        before += part.size
    if damaged:
        raise OutsideFailure(
            f"The backup {manifest_path(identity)} in {store.url} is damaged: {'; '.join(damaged)}. Nothing was "
            "changed. Make a new one, then delete this one.",
            {"damaged": len(damaged), "parts": len(manifest.parts)},
        )
    return {
        "manifest": manifest_path(identity),
        "valid": True,
        "size": total,
        "parts": [_shown(part) for part in manifest.parts],
    }


def _shown(part: Part) -> dict[str, Any]:
    return {"path": part.path, "database": part.database, "size": part.size, "sha256": part.sha256}


def created(manifest: Manifest) -> dict[str, Any]:
    """Give a new backup as the API does."""
    return {
        "manifest": manifest_path(manifest.id),
        "parts": [_shown(part) for part in manifest.parts],
        "skipped": msgspec.to_builtins(manifest.skipped),
    }


def delete_backup(store: Store, identity: str) -> None:
    """Delete a backup: its manifest first, with which it ceases to be one.

    :raises NotFound: there is none.
    """
    if store.size(manifest_path(identity)) is None:
        read_manifest(store, identity)
    store.delete(manifest_path(identity))
    store.delete_all(directory_of(identity))


def retire(store: Store, server: str, keep: int, made: str, left_out: Iterable[str] = ()) -> list[str]:
    """Delete what a server's retention does not keep: all that is older than its newest `keep` whole backups.

    Damaged ones do not count, and the newest whole one always stays: of each database.

    :param made: the id of the one that was just made: it stays, whatever the clock did meanwhile.
    :param left_out: the databases that are not in that one.
    :return: the ids of the deleted.
    """
    whole, gone, sought = 1, [], set(left_out)
    for found in list_backups(store, server):
        if found.identity == made:
            continue
        last_of = set() if found.problem or found.manifest is None else sought & found.manifest.databases
        if whole >= max(keep, 1) and not last_of:
            delete_backup(store, found.identity)
            gone.append(found.identity)
        sought -= last_of
        whole += not found.problem
    return gone


def sweep(store: Store, server: str) -> list[str]:
    """Delete what backups of this server left that did not come to their end: directories without a manifest.

    To be called while no backup of the server is being made.

    :return: the ids of the deleted.
    """
    gone = []
    for identity, entries in _directories(store, server).items():
        if manifest_path(identity) not in entries:
            store.delete_all(directory_of(identity))
            gone.append(identity)
    return gone


def remove_remains(
    store: str, endpoint_url: str | None, region: str | None, identity: str, patience: float = _CLEANING_PATIENCE
) -> None:
    """Take away what is there of a backup that did not come to its end: an operation's undo step."""
    opened = open_store(
        store, endpoint_url, current_platform_access(), region=region, patience=min(patience, _CLEANING_PATIENCE)
    )
    with contextlib.suppress(NotFound):
        opened.delete(manifest_path(identity))
        opened.delete_all(directory_of(identity))


def new_identity(server: str, random: bytes, now: datetime | None = None) -> str:
    """Give the id of a new backup: its time, its server, and a little chance."""
    time = now or datetime.now(UTC)
    return f"{time:%Y%m%dT%H%M%S}{time.microsecond // 1000:03d}Z-{server}-{random.hex()[:6]}"
