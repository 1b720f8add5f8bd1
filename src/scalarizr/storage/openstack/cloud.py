"""Volumes, snapshots and this server, as an OpenStack cloud has them."""

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from scalarizr.errors import NotFound, OutsideFailure
from scalarizr.settings.model import Openstack
from scalarizr.storage.openstack.access import connect
from scalarizr.storage.openstack.errors import passes, translated
from scalarizr.storage.provider import PATIENCE, answered, instance_metadata, not_known

T = TypeVar("T")
_UNCHANGED = "Nothing was changed."
_METADATA = "/openstack/latest/meta_data.json"
# From here on Cinder extends a volume that is in use, and tells Nova.
_EXTENDS_IN_USE = "3.42"


class CloudVolume(msgspec.Struct, frozen=True):
    """A volume.

    :param tags: its metadata.
    :param holders: the UUIDs of the servers that it is attached to.
    """

    id: str
    name: str
    gigabytes: int
    status: str
    kind: str | None
    zone: str | None
    tags: dict[str, str]
    holders: tuple[str, ...]


class CloudSnapshot(msgspec.Struct, frozen=True):
    """A snapshot; `size` is that of the volume, in GB, `tags` its metadata."""

    id: str
    name: str
    size: int
    status: str
    description: str
    tags: dict[str, str]


class Cloud:
    """An OpenStack cloud, for one call.

    :param settings: `[openstack]`.
    :raises ScalarizrError: from every method: what the cloud, the network or the credentials refused, in words.
    """

    def __init__(self, settings: Openstack) -> None:
        self._settings = settings
        self._connection: Any = None
        self._server: str | None = None

    @property
    def here(self) -> str:
        """This server's UUID."""
        if self._server is None:
            url = self._settings.metadata_url
            self._server = self._settings.instance_id or _uuid_in(instance_metadata(url, _METADATA))
            if self._server is None:
                raise not_known("which server this is", "openstack", "instance_id", url)
        return self._server

    def volume(self, identity: str) -> CloudVolume | None:
        """Give a volume; None where there is none of that id."""
        try:
            return _volume(self._ask(f"look at the volume {identity}", lambda c: c.block_storage.get_volume(identity)))
        except NotFound:
            return None

    def volume_with(self, name: str, key: str, value: str) -> CloudVolume | None:
        """Give the volume of that name that has that metadata."""
        for found in self._ask("list volumes", lambda c: list(c.block_storage.volumes(details=True, name=name))):
            if (found.metadata or {}).get(key) == value:
                return _volume(found)
        return None

    def make_volume(self, look: Callable[[], CloudVolume | None], wish: Mapping[str, Any]) -> CloudVolume:
        """Make a volume; gives it while it is being made.

        :param look: gives what an earlier try made: Cinder makes another one each time that it is asked.
        """
        return self._ask(
            f"make the volume {wish['name']}",
            lambda c: look() or _volume(c.block_storage.create_volume(**wish)),
            "No volume was made.",
        )

    def delete_volume(self, identity: str) -> None:
        """Ask that a volume be deleted; none of that id is as well."""
        self._ask(
            f"delete the volume {identity}", lambda c: c.block_storage.delete_volume(identity), "It is still there."
        )

    def extend_volume(self, identity: str, size: int) -> None:
        """Ask that a volume be made larger.

        :param size: GB.
        """
        self._ask(
            f"grow the volume {identity} to {size} GB",
            lambda c: c.block_storage.extend_volume(identity, size),
            "It is as large as before.",
        )

    def extends_in_use(self) -> bool:
        """Tell whether a volume can be made larger while it is attached."""
        from openstack.utils import supports_microversion

        return bool(
            self._ask("say which version it has", lambda c: supports_microversion(c.block_storage, _EXTENDS_IN_USE))
        )

    def attach_volume(self, identity: str) -> None:
        """Ask that a volume be attached to this server."""
        server = self.here
        self._ask(
            f"attach the volume {identity} to the server {server}",
            lambda c: c.compute.create_volume_attachment(server, identity),
            "The volume is as it was.",
        )

    def detach_volume(self, identity: str) -> None:
        """Ask that a volume be detached from this server."""
        from openstack.compute.v2.server import Server

        server = self.here
        self._ask(
            f"detach the volume {identity} from the server {server}",
            # Given a mere id, the SDK would first look whether it is a server's.
            lambda c: c.compute.delete_volume_attachment(Server(id=server), identity),
            "It is still attached.",
        )

    def snapshot(self, identity: str) -> CloudSnapshot | None:
        """Give a snapshot; None where there is none of that id."""
        doing = f"look at the snapshot {identity}"
        try:
            return _snapshot(self._ask(doing, lambda c: c.block_storage.get_snapshot(identity)))
        except NotFound:
            return None

    def snapshot_with(self, name: str, key: str, value: str) -> CloudSnapshot | None:
        """Give the snapshot of that name that has that metadata."""
        for found in self._ask("list snapshots", lambda c: list(c.block_storage.snapshots(details=True, name=name))):
            if (found.metadata or {}).get(key) == value:
                return _snapshot(found)
        return None

    def make_snapshot(
        self, look: Callable[[], CloudSnapshot | None], wish: Mapping[str, Any], patience: float
    ) -> CloudSnapshot:
        """Take a snapshot of a volume, attached or not; gives it while it is being made.

        :param look: gives what an earlier try made.
        :param patience: seconds to ask again in where the cloud has too much to do.
        """
        return self._ask(
            f"take a snapshot of the volume {wish['volume_id']}",
            lambda c: look() or _snapshot(c.block_storage.create_snapshot(is_forced=True, **wish)),
            "No snapshot was taken.",
            patience,
        )

    def delete_snapshot(self, identity: str) -> None:
        """Ask that a snapshot be deleted; none of that id is as well."""
        self._ask(
            f"delete the snapshot {identity}", lambda c: c.block_storage.delete_snapshot(identity), "It is still there."
        )

    def close(self) -> None:
        """Close the connections."""
        if self._connection is not None:
            self._connection.close()
            # That leaves the connections that are kept open.
            self._connection.session.session.close()
            self._connection = None

    def _ask(self, doing: str, call: Callable[[Any], T], left: str = _UNCHANGED, patience: float = PATIENCE) -> T:
        def ask() -> T:
            if self._connection is None:
                self._connection = connect()
            return call(self._connection)

        return answered(ask, passes, lambda failure: translated(failure, doing, left), patience)


def failed(what: str, status: str) -> OutsideFailure:
    """Give the error for what the cloud gave up."""
    return OutsideFailure(f"OpenStack says that {what} is in the state {status}, which does not end by itself.")


def _uuid_in(text: str | None) -> str | None:
    try:
        found = json.loads(text or "")
    except ValueError:
        return None
    uuid = found.get("uuid") if isinstance(found, dict) else None
    return uuid if isinstance(uuid, str) and uuid else None


def _volume(found: Any) -> CloudVolume:
    return CloudVolume(
        id=found.id,
        name=found.name or "",
        gigabytes=int(found.size),
        status=found.status,
        kind=found.volume_type,
        zone=found.availability_zone,
        tags=dict(found.metadata or {}),
        holders=tuple(one["server_id"] for one in found.attachments or () if one.get("server_id")),
    )


def _snapshot(found: Any) -> CloudSnapshot:
    return CloudSnapshot(
        id=found.id,
        name=found.name or "",
        size=int(found.size),
        status=found.status,
        description=found.description or "",
        tags=dict(found.metadata or {}),
    )
