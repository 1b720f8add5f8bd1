"""`csvol`: CloudStack's data disks."""

from typing import Any

import msgspec

from scalarizr.errors import InvalidParameter, NotFound, OutsideFailure, Refused
from scalarizr.rpc.types import shown
from scalarizr.storage.cloudstack.cloud import Cloud, CloudSnapshot, CloudVolume, Offering, checked_id, whole_gigabytes
from scalarizr.storage.cloudstack.devices import device_of, links_of
from scalarizr.storage.context import Context, Still
from scalarizr.storage.device_links import await_device, await_size, unseen
from scalarizr.storage.model import GIGABYTE, Size, Volume, size_in_bytes
from scalarizr.storage.provider import OfRequest, unless_so, until_accepted
from scalarizr.storage.steps import wait_until
from scalarizr.storage.volume_type import VolumeType, growth_to_size

_KEY = "scalarizr-key"
_BACKED_UP_WITHIN = 4 * 3600.0
# From then on what is written to the volume is not in the snapshot.
_TAKEN = ("CreatedOnPrimary", "BackingUp", "BackedUp")
_STATUSES = {"BackedUp": "completed", "Error": "error"}


class CloudStackVolume(Volume, kw_only=True, frozen=True):
    """A data disk; its `id` is its UUID.

    :param disk_offering_id: the one whose size can be chosen, where none is given and there is one such.
    :param zone_id: this server's where none is given.
    """

    disk_offering_id: str | None = None
    zone_id: str | None = None


class CloudStackVolumes(VolumeType):
    """CloudStack's data disks."""

    name = "csvol"
    config = CloudStackVolume
    deletes_foreign = True

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._of_request = OfRequest(lambda: Cloud(context.settings.cloudstack))

    def close(self) -> None:
        """Close the connections to the cloud."""
        self._of_request.close()

    @property
    def _cloud(self) -> Cloud:
        return self._of_request.get()

    def check(self, volume: CloudStackVolume, path: str) -> None:
        if _KEY in (volume.tags or {}):
            raise InvalidParameter(f"{path}.tags.{_KEY}", None, "a name that is not the agent's own")
        size = _gigabytes(volume.size, f"{path}.size")
        zone = self._cloud.zone()
        if volume.zone_id not in (None, zone):
            raise InvalidParameter(
                f"{path}.zone_id", shown(volume.zone_id), f"{zone}, where this server is: others cannot attach"
            )
        if volume.snap is None:
            self._offering(volume, size, path)
            return
        snapshot = self._snapshot_of(volume.snap, f"{path}.snap")
        if size is not None and size < whole_gigabytes(snapshot.size):
            raise InvalidParameter(
                f"{path}.size",
                shown(volume.size),
                f"{whole_gigabytes(snapshot.size)} GB or more, which the snapshot has",
            )

    def find(self, volume: CloudStackVolume) -> CloudStackVolume | None:
        found = self._cloud.volume(checked_id(volume.id, "id", "the id of a volume"))
        return None if found is None else self._as_volume(found, volume)

    def find_made(self, volume: CloudStackVolume, key: str) -> CloudStackVolume | None:
        # By the name, which a volume has from its first instant; tags come a call later.
        found = self._cloud.volume_named(_name_of(key))
        return None if found is None else self._as_volume(self._completed(found, volume, key), volume)

    def give_up(self, volume: CloudStackVolume, key: str) -> None:
        def delete() -> None:
            found = self._cloud.volume_named(_name_of(key))
            if found is not None:
                made = msgspec.structs.replace(volume, id=found.id)
                self.detach(made, force=True)
                self.delete(made, force=True)

        until_accepted(delete)

    def make(self, volume: CloudStackVolume, key: str) -> tuple[CloudStackVolume, bool]:
        wish: dict[str, Any] = {"zoneid": volume.zone_id or self._cloud.zone()}
        if volume.snap is not None:
            snapshot = self._snapshot_of(volume.snap, "snap")
            self._await_snapshot(snapshot.id)
            wish["snapshotid"] = snapshot.id
        else:
            size = _gigabytes(volume.size, "size")
            offering = self._offering(volume, size, "storage_config")
            wish["diskofferingid"] = offering.id
            if offering.size is None:
                wish["size"] = size
        made = self._cloud.make_volume(_name_of(key), wish)
        return self._as_volume(self._completed(made, volume, key), volume), True

    def attach(self, volume: CloudStackVolume) -> CloudStackVolume:
        found = self._there(volume)
        if found.server != self._cloud.server:
            if found.server is not None:
                raise Refused(
                    f"The volume {found.id} is attached to the server {found.server}. Nothing was changed; detach it "
                    "there first.",
                    {"id": found.id, "attached_to": found.server},
                )
            unless_so(lambda: self._cloud.attach_volume(found.id), lambda: self._is_here(volume))
            found = self._there(volume)
        directory = self.context.settings.storage.by_id_dir
        places = [str(directory / link) for link in links_of(found.id)]
        await_device(
            lambda: self._device(found),
            f"volume {found.id}",
            f"{' or '.join(places)}, or, where disks have no serial number, the one disk of {found.size} bytes in "
            f"place {found.position}",
        )
        return self._as_volume(found, volume)

    def detach(self, volume: CloudStackVolume, force: bool) -> None:
        found = self._cloud.volume(volume.id or "")
        if found is None or found.server != self._cloud.server:
            return
        if found.root:
            raise Refused(f"This server runs from the volume {found.id}: it is never detached. Nothing was changed.")
        if not force and self._device(found) is None:
            raise unseen(f"volume {found.id}")
        unless_so(lambda: self._cloud.detach_volume(found.id), lambda: not self._is_here(volume))

    def delete(self, volume: CloudStackVolume, force: bool) -> None:
        found = self._cloud.volume(volume.id or "")
        if found is None:
            return
        if found.server is not None:
            raise Refused(
                f"The volume {found.id} is attached to the server {found.server}. It was not deleted; detach it there "
                "first.",
                {"id": found.id, "attached_to": found.server},
            )
        self._cloud.delete_volume(found.id)

    def snapshot(
        self, volume: CloudStackVolume, key: str, description: str, tags: dict[str, str], still: Still
    ) -> dict[str, Any]:
        identity, name = self._there(volume).id, _name_of(key)
        doing, left = f"take a snapshot of the volume {identity}", "There is no snapshot of it."

        def taken() -> CloudSnapshot | None:
            done = self._cloud.look_at(begun, doing, left)
            found = self._cloud.snapshot_named(name)
            return found if found is not None and (done or found.state in _TAKEN) else None

        limit = self.context.settings.storage.freeze_limit
        with still():
            begun = self._cloud.begin_snapshot(identity, name, limit / 4)
            found = wait_until(taken, doing, limit=limit, pause=0.1, longest_pause=0.5)
        self._cloud.tag("Snapshot", found.id, {**tags, _KEY: key})
        return {**_as_snapshot(self._await_snapshot(found.id), description), "tags": tags}

    def find_snapshot(self, snapshot: dict[str, Any]) -> dict[str, Any] | None:
        found = self._cloud.snapshot(_snapshot_id(snapshot, "snapshot"))
        return None if found is None else _as_snapshot(found, str(snapshot.get("description") or ""))

    def delete_snapshot(self, snapshot: dict[str, Any]) -> None:
        self._cloud.delete_snapshot(_snapshot_id(snapshot, "snapshot"))

    def give_up_snapshot(self, key: str, volume: Any) -> None:
        found = self._cloud.snapshot_named(_name_of(key))
        if found is not None:
            self._cloud.delete_snapshot(found.id)

    def check_growth(self, volume: CloudStackVolume, growth: dict[str, Any]) -> None:
        size = _gigabytes(growth_to_size(growth, ("size",), self.name), "growth.size")
        if size is None or size <= float(volume.size or 0):
            raise InvalidParameter("growth.size", shown(growth.get("size")), f"more than the {volume.size} GB it has")

    def grow(self, volume: CloudStackVolume, growth: dict[str, Any]) -> CloudStackVolume:
        size = _gigabytes(growth["size"], "growth.size") or 0
        found = self._there(volume)
        if found.size < size * GIGABYTE:
            wanted = size * GIGABYTE
            unless_so(lambda: self._cloud.resize_volume(found.id, size), lambda: self._there(volume).size >= wanted)
        if volume.device is not None:
            await_size(self.context.host, volume.device, size * GIGABYTE)
        return self._as_volume(self._there(volume), volume)

    def _offering(self, volume: CloudStackVolume, size: int | None, path: str) -> Offering:
        """Choose the disk offering that a volume is made of."""
        offerings = self._cloud.offerings()
        wanted = volume.disk_offering_id
        fitting = [one for one in offerings if (one.size is None if wanted is None else one.id == wanted)]
        if len(fitting) != 1:
            known = ", ".join(f"{one.id} ({one.name})" for one in offerings) or "none at all"
            raise InvalidParameter(
                f"{path}.disk_offering_id", None if wanted is None else shown(wanted), f"a disk offering: {known}"
            )
        offering = fitting[0]
        if offering.size is None and size is None:
            raise InvalidParameter(f"{path}.size", None, f"a size in GB, which {offering.name} leaves to you")
        if offering.size is not None and size not in (None, offering.size):
            raise InvalidParameter(f"{path}.size", shown(volume.size), f"{offering.size} GB, which {offering.name} has")
        return offering

    def _completed(self, found: CloudVolume, volume: CloudStackVolume, key: str) -> CloudVolume:
        """Do what CloudStack does only with a volume that is made already."""
        wanted = {**(volume.tags or {}), _KEY: key}
        missing = {name: value for name, value in wanted.items() if name not in found.tags}
        self._cloud.tag("Volume", found.id, missing)
        size = _gigabytes(volume.size, "size")
        if volume.snap is None or size is None or size * GIGABYTE <= found.size:
            return found
        # Made from a snapshot it is as large as that.
        self._cloud.resize_volume(found.id, size)
        return self._cloud.volume(found.id) or found

    def _is_here(self, volume: CloudStackVolume) -> bool:
        return self._there(volume).server == self._cloud.server

    def _there(self, volume: CloudStackVolume) -> CloudVolume:
        found = self._cloud.volume(volume.id or "")
        if found is None:
            raise NotFound(f"There is no volume {volume.id}. Nothing was changed.", {"id": volume.id})
        return found

    def _device(self, found: CloudVolume) -> str | None:
        by_id = self.context.settings.storage.by_id_dir
        return device_of(self.context.host, by_id, found.id, found.position, found.size)

    def _as_volume(self, found: CloudVolume, volume: CloudStackVolume) -> CloudStackVolume:
        tags = {**(volume.tags or {}), **{name: value for name, value in found.tags.items() if name != _KEY}}
        return msgspec.structs.replace(
            volume,
            id=found.id,
            device=self._device(found) if found.server == self._cloud.server else None,
            size=whole_gigabytes(found.size),
            disk_offering_id=found.offering or volume.disk_offering_id,
            zone_id=found.zone or volume.zone_id,
            tags=tags or None,
        )

    def _snapshot_of(self, snap: dict[str, Any], path: str) -> CloudSnapshot:
        if snap.get("type", self.name) != self.name:
            raise InvalidParameter(f"{path}.type", shown(snap.get("type")), f"{self.name}, as the volume")
        identity = _snapshot_id(snap, path)
        found = self._cloud.snapshot(identity)
        if found is None:
            raise NotFound(f"There is no snapshot {identity}. Nothing was made.", {"id": identity})
        return found

    def _await_snapshot(self, identity: str) -> CloudSnapshot:
        """Wait until all of a snapshot is where it can be used."""

        def look() -> CloudSnapshot | None:
            found = self._cloud.snapshot(identity)
            if found is None or found.state == "Error":
                raise OutsideFailure(f"CloudStack could not keep the snapshot {identity}.")
            return found if found.state == "BackedUp" else None

        return wait_until(look, f"waiting for the snapshot {identity} to be backed up", limit=_BACKED_UP_WITHIN)


def _gigabytes(size: Size | None, path: str) -> int | None:
    return None if size is None else size_in_bytes(size, path, unit=GIGABYTE) // GIGABYTE


def _name_of(key: str) -> str:
    return f"scalarizr-{key}"[:255]


def _snapshot_id(snapshot: dict[str, Any], path: str) -> str:
    return checked_id(snapshot.get("id"), f"{path}.id", "the id of a snapshot, which storage.snapshot gave")


def _as_snapshot(snapshot: CloudSnapshot, description: str) -> dict[str, Any]:
    return {
        "type": CloudStackVolumes.name,
        "id": snapshot.id,
        "description": description,
        "tags": {name: value for name, value in snapshot.tags.items() if name != _KEY},
        "status": _STATUSES.get(snapshot.state, "pending"),
        "size": whole_gigabytes(snapshot.size) or None,
    }
