"""`csvol`: CloudStack's data disks."""

from typing import Any

import msgspec

from scalarizr.errors import InvalidParameter, OutsideFailure, Refused
from scalarizr.rpc.types import shown
from scalarizr.storage.cloud_volumes import KEY_TAG, CloudVolumes, gigabytes, name_of, plain_tags
from scalarizr.storage.cloudstack.cloud import (
    UUID,
    Cloud,
    CloudSnapshot,
    CloudVolume,
    Offering,
    checked_id,
    whole_gigabytes,
)
from scalarizr.storage.cloudstack.devices import device_of, links_of
from scalarizr.storage.context import Still
from scalarizr.storage.model import Volume
from scalarizr.storage.provider import unless_so
from scalarizr.storage.steps import wait_until

_BACKED_UP_WITHIN = 4 * 3600.0
_STATUSES = {"BackedUp": "completed", "Error": "error"}
# From then on what is written to the volume is not in the snapshot.
_TAKEN = ("CreatedOnPrimary", "BackingUp", "BackedUp")


class CloudStackVolume(Volume, kw_only=True, frozen=True):
    """A data disk; its `id` is its UUID.

    :param disk_offering_id: the one whose size can be chosen, where none is given and there is one such.
    :param zone_id: this server's where none is given.
    """

    disk_offering_id: str | None = None
    zone_id: str | None = None


class CloudStackVolumes(CloudVolumes[Cloud, CloudVolume, CloudSnapshot]):
    """CloudStack's data disks."""

    name = "csvol"
    config = CloudStackVolume
    snapshot_ids = UUID
    statuses = _STATUSES

    def connect(self) -> Cloud:
        return Cloud(self.context.settings.cloudstack)

    def check(self, volume: CloudStackVolume, path: str) -> None:
        zone = self.cloud.zone()
        if volume.zone_id not in (None, zone):
            raise InvalidParameter(
                f"{path}.zone_id", shown(volume.zone_id), f"{zone}, where this server is: others cannot attach"
            )
        super().check(volume, path)

    def check_choices(self, volume: CloudStackVolume, size: int | None, path: str) -> None:
        self._offering(volume, size, path)

    def look(self, volume: CloudStackVolume) -> CloudVolume | None:
        return self.cloud.volume(checked_id(volume.id, "id", "the id of a volume"))

    def look_for(self, volume: CloudStackVolume, key: str) -> CloudVolume | None:
        # By the name, which a volume has from its first instant; tags come a call later.
        return self.cloud.volume_named(name_of(key))

    def make(self, volume: CloudStackVolume, key: str) -> tuple[CloudStackVolume, bool]:
        wish: dict[str, Any] = {"zoneid": volume.zone_id or self.cloud.zone()}
        if volume.snap is not None:
            snapshot = self.snapshot_of(volume.snap, "snap")
            self._await_snapshot(snapshot.id)
            wish["snapshotid"] = snapshot.id
        else:
            size = gigabytes(volume.size, "size")
            offering = self._offering(volume, size, "storage_config")
            wish["diskofferingid"] = offering.id
            if offering.size is None:
                wish["size"] = size
        made = self.cloud.make_volume(name_of(key), wish)
        return self.as_volume(self.whole(made, volume, key), volume), True

    def whole(self, found: CloudVolume, volume: CloudStackVolume, key: str) -> CloudVolume:
        # What CloudStack does only with a volume that is made already.
        wanted = {**(volume.tags or {}), KEY_TAG: key}
        missing = {name: value for name, value in wanted.items() if name not in found.tags}
        self.cloud.tag("Volume", found.id, missing)
        size = gigabytes(volume.size, "size")
        if volume.snap is None or size is None or size <= found.gigabytes:
            return found
        # Made from a snapshot it is as large as that.
        self.cloud.resize_volume(found.id, size)
        return self.cloud.volume(found.id) or found

    def attach_here(self, found: CloudVolume) -> None:
        unless_so(lambda: self.cloud.attach_volume(found.id), lambda: self._is_here(found.id))

    def refuse_detaching(self, found: CloudVolume) -> None:
        if found.root:
            raise Refused(f"This server runs from the volume {found.id}: it is never detached. Nothing was changed.")

    def detach_here(self, found: CloudVolume) -> None:
        unless_so(lambda: self.cloud.detach_volume(found.id), lambda: not self._is_here(found.id))

    def delete_found(self, found: CloudVolume) -> None:
        self.cloud.delete_volume(found.id)

    def device(self, found: CloudVolume) -> str | None:
        by_id = self.context.settings.storage.by_id_dir
        return device_of(self.context.host, by_id, found.id, found.position, found.size)

    def where(self, found: CloudVolume) -> str:
        places = [str(self.context.settings.storage.by_id_dir / link) for link in links_of(found.id)]
        return (
            f"{' or '.join(places)}, or, where disks have no serial number, the one disk of {found.size} bytes in "
            f"place {found.position}"
        )

    def snapshot(
        self, volume: CloudStackVolume, key: str, description: str, tags: dict[str, str], still: Still
    ) -> dict[str, Any]:
        identity, name = self.there(volume).id, name_of(key)
        doing, left = f"take a snapshot of the volume {identity}", "There is no snapshot of it."

        def begin(patience: float) -> dict[str, Any]:
            return self.cloud.begin_snapshot(identity, name, patience)

        def taken(begun: dict[str, Any]) -> CloudSnapshot | None:
            done = self.cloud.look_at(begun, doing, left)
            found = self.cloud.snapshot_named(name)
            return found if found is not None and (done or found.status in _TAKEN) else None

        found = self.taken_within(still, begin, taken, identity)
        self.cloud.tag("Snapshot", found.id, {**tags, KEY_TAG: key})
        kept = self.as_snapshot(self._await_snapshot(found.id), {"description": description})
        return {**kept, "tags": tags}

    def snapshot_made(self, key: str) -> CloudSnapshot | None:
        return self.cloud.snapshot_named(name_of(key))

    def enlarge(self, found: CloudVolume, volume: CloudStackVolume, size: int) -> CloudStackVolume:
        unless_so(lambda: self.cloud.resize_volume(found.id, size), lambda: self.there(volume).gigabytes >= size)
        return volume

    def _offering(self, volume: CloudStackVolume, size: int | None, path: str) -> Offering:
        """Choose the disk offering that a volume is made of."""
        offerings = self.cloud.offerings()
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

    def as_snapshot(self, found: CloudSnapshot, known: dict[str, Any]) -> dict[str, Any]:
        # CloudStack keeps no description.
        return {**super().as_snapshot(found, known), "description": str(known.get("description") or "")}

    def _is_here(self, identity: str) -> bool:
        found = self.cloud.volume(identity)
        return found is not None and self.cloud.here in found.holders

    def as_volume(self, found: CloudVolume, volume: CloudStackVolume) -> CloudStackVolume:
        return msgspec.structs.replace(
            volume,
            id=found.id,
            device=self.device_here(found),
            size=whole_gigabytes(found.size),
            disk_offering_id=found.offering or volume.disk_offering_id,
            zone_id=found.zone or volume.zone_id,
            tags={**(volume.tags or {}), **plain_tags(found.tags)} or None,
        )

    def _await_snapshot(self, identity: str) -> CloudSnapshot:
        """Wait until all of a snapshot is where it can be used."""

        def look() -> CloudSnapshot | None:
            found = self.cloud.snapshot(identity)
            if found is None or found.status == "Error":
                raise OutsideFailure(f"CloudStack could not keep the snapshot {identity}.")
            return found if found.status == "BackedUp" else None

        return wait_until(look, f"waiting for the snapshot {identity} to be backed up", limit=_BACKED_UP_WITHIN)
