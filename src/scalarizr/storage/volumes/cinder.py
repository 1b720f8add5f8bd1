"""`cinder`: OpenStack's volumes."""

import re
from typing import Any

import msgspec

from scalarizr.errors import InvalidParameter, NotFound, NotSupported, OutsideFailure, TimedOut
from scalarizr.rpc.types import shown
from scalarizr.storage.cloud_volumes import KEY_TAG, CloudVolumes, gigabytes, name_of, plain_tags
from scalarizr.storage.context import Still
from scalarizr.storage.device_links import linked_device
from scalarizr.storage.model import Volume
from scalarizr.storage.openstack.cloud import Cloud, CloudSnapshot, CloudVolume, failed
from scalarizr.storage.provider import unless_so
from scalarizr.storage.steps import step, wait_until

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}", re.ASCII)
# Of a volume's id virtio-blk shows so much: its serial number has 20 characters.
_SERIAL = 20
_SETTLED_WITHIN = 600.0
_COPIED_WITHIN = 4 * 3600.0
_STATUSES = {"available": "completed", "error": "error", "error_deleting": "error"}


class CinderVolume(Volume, kw_only=True, frozen=True):
    """A Cinder volume; its `id` is its UUID.

    :param name: need not be unique; made up where none is given.
    :param volume_type: the cloud's default where none is given.
    :param avail_zone: that of `[openstack] avail_zone`, else the cloud's default, where none is given.
    """

    name: str | None = None
    volume_type: str | None = None
    avail_zone: str | None = None


class CinderVolumes(CloudVolumes[Cloud, CloudVolume, CloudSnapshot]):
    """OpenStack's volumes."""

    name = "cinder"
    config = CinderVolume
    snapshot_ids = _UUID
    statuses = _STATUSES

    def connect(self) -> Cloud:
        return Cloud(self.context.settings.openstack)

    def check(self, volume: CinderVolume, path: str) -> None:
        for name in ("name", "volume_type", "avail_zone"):
            value = getattr(volume, name)
            if value is not None and not (0 < len(value) <= 255 and value.isprintable()):
                raise InvalidParameter(f"{path}.{name}", shown(value), "a printable text of at most 255 characters")
        super().check(volume, path)

    def look(self, volume: CinderVolume) -> CloudVolume | None:
        return self.cloud.volume(volume.id) if volume.id is not None and _UUID.fullmatch(volume.id) else None

    def look_for(self, volume: CinderVolume, key: str) -> CloudVolume | None:
        return self.cloud.volume_with(volume.name or name_of(key), KEY_TAG, key)

    def find(self, volume: CinderVolume) -> CinderVolume | None:
        found = self.look(volume)
        return None if found is None or found.status == "deleting" else self.as_volume(found, volume)

    def find_made(self, volume: CinderVolume, key: str) -> CinderVolume | None:
        found = self._usable(volume, key)
        return None if found is None else self.as_volume(self._settled(found.id, _COPIED_WITHIN), volume)

    def make(self, volume: CinderVolume, key: str) -> tuple[CinderVolume, bool]:
        size = gigabytes(volume.size, "size")
        wish: dict[str, Any] = {
            "name": volume.name or name_of(key),
            "metadata": {**(volume.tags or {}), KEY_TAG: key},
            "volume_type": volume.volume_type,
            "availability_zone": volume.avail_zone or self.context.settings.openstack.avail_zone,
        }
        if volume.snap is not None:
            snapshot = self.snapshot_of(volume.snap, "snap")
            wish["snapshot_id"] = snapshot.id
            size = size or snapshot.size
            self._await_snapshot(snapshot.id)
        wish = {name: value for name, value in {**wish, "size": size}.items() if value is not None}
        made = self.cloud.make_volume(lambda: self._usable(volume, key), wish)
        try:
            made = self._settled(made.id, _COPIED_WITHIN)
        except OutsideFailure:
            # One that could not be made is there all the same, and counts against the quota.
            self.delete(msgspec.structs.replace(volume, id=made.id), force=True)
            raise
        return self.as_volume(made, volume), True

    def there(self, volume: CinderVolume) -> CloudVolume:
        return self._settled(volume.id or "")

    def attach_here(self, found: CloudVolume) -> None:
        unless_so(lambda: self.cloud.attach_volume(found.id), lambda: self._is_here(found.id))
        now = self._settled(found.id)
        if self.cloud.here not in now.holders:
            raise OutsideFailure(
                f"Nova began to attach the volume {now.id} and gave it up: it is {now.status}. The reason is in the "
                "log of the compute host."
            )

    def detach_here(self, found: CloudVolume) -> None:
        self._settled(found.id)
        unless_so(lambda: self.cloud.detach_volume(found.id), lambda: not self._is_here(found.id))
        if self._is_here(found.id):
            raise OutsideFailure(
                f"Nova began to detach the volume {found.id} and gave it up: this server did not let go of it. It is "
                "still attached; look whether something holds its device, and call again."
            )

    def delete_found(self, found: CloudVolume) -> None:
        if found.status != "deleting":
            self._settled(found.id, errors=())
            self.cloud.delete_volume(found.id)
        wait_until(lambda: self._gone(found.id), f"deleting the volume {found.id}", limit=_SETTLED_WITHIN)

    def device(self, found: CloudVolume) -> str | None:
        return linked_device(self.context.settings.storage.by_id_dir, _links(found.id))

    def where(self, found: CloudVolume) -> str:
        return " or ".join(str(self.context.settings.storage.by_id_dir / link) for link in _links(found.id))

    def snapshot(
        self, volume: CinderVolume, key: str, description: str, tags: dict[str, str], still: Still
    ) -> dict[str, Any]:
        identity, name = volume.id or "", name_of(key)
        wish = {"volume_id": identity, "name": name, "description": description, "metadata": {**tags, KEY_TAG: key}}
        self._settled(identity)

        def begin(patience: float) -> CloudSnapshot:
            return self.cloud.make_snapshot(lambda: self.snapshot_made(key), wish, patience)

        def taken(made: CloudSnapshot) -> CloudSnapshot | None:
            # Only one that is whole is known to hold what the volume held at an instant in here.
            found = self.cloud.snapshot(made.id)
            if found is None or found.status in ("error", "deleting"):
                raise failed(f"the snapshot {made.id}", found.status if found is not None else "deleted")
            return found if found.status == "available" else None

        return self.as_snapshot(self.taken_within(still, begin, taken, identity), {})

    def snapshot_made(self, key: str) -> CloudSnapshot | None:
        return self.cloud.snapshot_with(name_of(key), KEY_TAG, key)

    def drop_snapshot(self, identity: str) -> None:
        def look() -> bool | None:
            found = self.cloud.snapshot(identity)
            if found is not None and found.status == "error_deleting":
                raise failed(f"the snapshot {identity}", found.status)
            return True if found is None else None

        self.cloud.delete_snapshot(identity)
        wait_until(look, f"deleting the snapshot {identity}", limit=_SETTLED_WITHIN)

    def check_growth(self, volume: CinderVolume, growth: dict[str, Any]) -> None:
        super().check_growth(volume, growth)
        if volume.device is not None and not self.cloud.extends_in_use():
            raise NotSupported(
                f"This cloud's Cinder cannot grow the volume {volume.id} while it is attached (it has no microversion "
                "3.42). Nothing was changed; storage.detach it, grow it, and storage.create attaches it again."
            )

    def enlarge(self, found: CloudVolume, volume: CinderVolume, size: int) -> CinderVolume:
        if not found.holders or self.cloud.extends_in_use():
            self._extend(found.id, size)
            return volume
        # It was detached when `check_growth` saw it, and is attached for its file system's sake.
        self.detach(volume, False)
        try:
            self._extend(found.id, size)
        finally:
            step(f"attaching {found.id} again")
            volume = self.attach(volume)
        return volume

    def _extend(self, identity: str, size: int) -> None:
        unless_so(lambda: self.cloud.extend_volume(identity, size), lambda: self._settled(identity).gigabytes >= size)
        now = self._settled(identity)
        if now.gigabytes < size:
            raise OutsideFailure(
                f"Cinder began to grow the volume {identity} and gave it up: it has {now.gigabytes} GB as before. Ask "
                "the cloud's operator for its message."
            )

    def _is_here(self, identity: str) -> bool:
        return self.cloud.here in self._settled(identity).holders

    def _usable(self, volume: CinderVolume, key: str) -> CloudVolume | None:
        """Give what was made under a key, unless it came to nothing, and is deleted first then."""
        found = self.look_for(volume, key)
        if found is not None and found.status == "error":
            self.delete(msgspec.structs.replace(volume, id=found.id), force=True)
            return None
        return found if found is not None and found.status != "deleting" else None

    def _settled(
        self, identity: str, limit: float = _SETTLED_WITHIN, errors: tuple[str, ...] = ("error", "error_extending")
    ) -> CloudVolume:
        """Wait until nothing is being done with a volume.

        :param errors: states that are no end.
        :raises NotFound: it is gone.
        """

        status = ""

        def look() -> CloudVolume | None:
            nonlocal status
            found = self.cloud.volume(identity)
            if found is None:
                raise NotFound(f"There is no volume {identity}. Nothing was changed.", {"id": identity})
            status = found.status
            if found.status in errors:
                raise failed(f"the volume {identity}", found.status)
            return found if found.status in ("available", "in-use") or found.status.startswith("error") else None

        try:
            return wait_until(look, f"waiting for OpenStack's volume {identity}", limit=limit)
        except TimedOut as error:
            error.say_further(f"It is {status}; ask the cloud's operator to look at it.")
            raise

    def _gone(self, identity: str) -> bool | None:
        found = self.cloud.volume(identity)
        if found is not None and found.status == "error_deleting":
            raise failed(f"the volume {identity}", found.status)
        return True if found is None else None

    def as_volume(self, found: CloudVolume, volume: CinderVolume) -> CinderVolume:
        return msgspec.structs.replace(
            volume,
            id=found.id,
            name=found.name,
            device=self.device_here(found),
            size=found.gigabytes,
            volume_type=found.kind or volume.volume_type,
            avail_zone=found.zone or volume.avail_zone,
            tags=plain_tags(found.tags) or None,
        )

    def _await_snapshot(self, identity: str) -> None:
        def look() -> bool | None:
            found = self.cloud.snapshot(identity)
            if found is None or found.status not in ("creating", "available", "backing-up"):
                raise failed(f"the snapshot {identity}", found.status if found is not None else "deleted")
            return True if found.status == "available" else None

        wait_until(look, f"waiting for the snapshot {identity}", limit=_COPIED_WITHIN)


def _links(identity: str) -> list[str]:
    """Give the names of udev's links: of virtio-blk, and of QEMU's SCSI disks with either length of serial number."""
    short = identity[:_SERIAL]
    scsi = "scsi-0QEMU_QEMU_HARDDISK_"
    return [f"virtio-{short}", f"{scsi}{identity}", f"scsi-SQEMU_QEMU_HARDDISK_{identity}", f"{scsi}{short}"]
