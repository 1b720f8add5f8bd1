"""`cinder`: OpenStack's volumes."""

import re
from typing import Any

import msgspec

from scalarizr.errors import InvalidParameter, NotFound, NotSupported, OutsideFailure, Refused, TimedOut
from scalarizr.rpc.types import shown
from scalarizr.storage.context import Context, Still
from scalarizr.storage.device_links import await_device, await_size, linked_device, unseen
from scalarizr.storage.model import GIGABYTE, Size, Volume, size_in_bytes
from scalarizr.storage.openstack.cloud import Cloud, CloudSnapshot, CloudVolume, failed
from scalarizr.storage.provider import OfRequest, unless_so, until_accepted
from scalarizr.storage.steps import step, wait_until
from scalarizr.storage.volume_type import VolumeType, growth_to_size

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}", re.ASCII)
_KEY = "scalarizr-key"
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


class CinderVolumes(VolumeType):
    """OpenStack's volumes."""

    name = "cinder"
    config = CinderVolume
    deletes_foreign = True

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._of_request = OfRequest(lambda: Cloud(context.settings.openstack))

    def close(self) -> None:
        """Close the connections to the cloud."""
        self._of_request.close()

    @property
    def _cloud(self) -> Cloud:
        return self._of_request.get()

    def check(self, volume: CinderVolume, path: str) -> None:
        for name in ("name", "volume_type", "avail_zone"):
            value = getattr(volume, name)
            if value is not None and not (0 < len(value) <= 255 and value.isprintable()):
                raise InvalidParameter(f"{path}.{name}", shown(value), "a printable text of at most 255 characters")
        if _KEY in (volume.tags or {}):
            raise InvalidParameter(f"{path}.tags.{_KEY}", None, "a name that is not the agent's own")
        size = _gigabytes(volume.size, f"{path}.size")
        if volume.snap is None:
            if size is None:
                raise InvalidParameter(f"{path}.size", None, "a size in GB, since it is not made from a snapshot")
            return
        snapshot = self._snapshot_of(volume.snap, f"{path}.snap")
        if size is not None and size < snapshot.size:
            raise InvalidParameter(
                f"{path}.size", shown(volume.size), f"{snapshot.size} GB or more, which the snapshot has"
            )

    def find(self, volume: CinderVolume) -> CinderVolume | None:
        if volume.id is None or not _UUID.fullmatch(volume.id):
            return None
        found = self._cloud.volume(volume.id)
        if found is None or found.status == "deleting":
            return None
        return self._as_volume(found, volume)

    def find_made(self, volume: CinderVolume, key: str) -> CinderVolume | None:
        found = self._usable(volume, key)
        return None if found is None else self._as_volume(self._settled(found.id, _COPIED_WITHIN), volume)

    def give_up(self, volume: CinderVolume, key: str) -> None:
        def delete() -> None:
            found = self._made(volume, key)
            if found is not None:
                made = msgspec.structs.replace(volume, id=found.id)
                self.detach(made, force=True)
                self.delete(made, force=True)

        until_accepted(delete)

    def make(self, volume: CinderVolume, key: str) -> tuple[CinderVolume, bool]:
        size = _gigabytes(volume.size, "size")
        wish: dict[str, Any] = {
            "name": volume.name or _name_of(key),
            "metadata": {**(volume.tags or {}), _KEY: key},
            "volume_type": volume.volume_type,
            "availability_zone": volume.avail_zone or self.context.settings.openstack.avail_zone,
        }
        if volume.snap is not None:
            snapshot = self._snapshot_of(volume.snap, "snap")
            wish["snapshot_id"] = snapshot.id
            size = size or snapshot.size
            self._await_snapshot(snapshot.id)
        wish = {name: value for name, value in {**wish, "size": size}.items() if value is not None}
        made = self._cloud.make_volume(lambda: self._usable(volume, key), wish)
        try:
            made = self._settled(made.id, _COPIED_WITHIN)
        except OutsideFailure:
            # One that could not be made is there all the same, and counts against the quota.
            self.delete(msgspec.structs.replace(volume, id=made.id), force=True)
            raise
        return self._as_volume(made, volume), True

    def attach(self, volume: CinderVolume) -> CinderVolume:
        found = self._settled(volume.id or "")
        here = self._cloud.server
        if here not in found.servers:
            if found.servers:
                raise Refused(
                    f"The volume {found.id} is attached to the server {', '.join(found.servers)}. Nothing was changed; "
                    "detach it there first.",
                    {"id": found.id, "attached_to": list(found.servers)},
                )
            unless_so(lambda: self._cloud.attach_volume(found.id), lambda: self._is_here(found.id))
            found = self._settled(found.id)
            if here not in found.servers:
                raise OutsideFailure(
                    f"Nova began to attach the volume {found.id} and gave it up: it is {found.status}. The reason is "
                    "in the log of the compute host."
                )
        links, directory = _links(found.id), self.context.settings.storage.by_id_dir
        await_device(
            lambda: linked_device(directory, links),
            f"volume {found.id}",
            " or ".join(str(directory / link) for link in links),
        )
        return self._as_volume(found, volume)

    def detach(self, volume: CinderVolume, force: bool) -> None:
        found = self._cloud.volume(volume.id or "")
        if found is None or self._cloud.server not in found.servers:
            return
        if not force and self._as_volume(found, volume).device is None:
            raise unseen(f"volume {found.id}")
        self._settled(found.id)
        unless_so(lambda: self._cloud.detach_volume(found.id), lambda: not self._is_here(found.id))
        now = self._settled(found.id)
        if self._cloud.server in now.servers:
            raise OutsideFailure(
                f"Nova began to detach the volume {found.id} and gave it up: this server did not let go of it. It is "
                "still attached; look whether something holds its device, and call again."
            )

    def delete(self, volume: CinderVolume, force: bool) -> None:
        found = self._cloud.volume(volume.id or "")
        if found is None:
            return
        if found.servers:
            raise Refused(
                f"The volume {found.id} is attached to the server {', '.join(found.servers)}. It was not deleted; "
                "detach it there first.",
                {"id": found.id, "attached_to": list(found.servers)},
            )
        if found.status != "deleting":
            self._settled(found.id, errors=())
            self._cloud.delete_volume(found.id)
        wait_until(lambda: self._gone(found.id), f"deleting the volume {found.id}", limit=_SETTLED_WITHIN)

    def snapshot(
        self, volume: CinderVolume, key: str, description: str, tags: dict[str, str], still: Still
    ) -> dict[str, Any]:
        identity, name = volume.id or "", _name_of(key)
        wish = {"volume_id": identity, "name": name, "description": description, "metadata": {**tags, _KEY: key}}
        self._settled(identity)

        def taken() -> CloudSnapshot | None:
            found = self._cloud.snapshot(made.id)
            if found is None or found.status in ("error", "deleting"):
                raise failed(f"the snapshot {made.id}", found.status if found is not None else "deleted")
            return found if found.status == "available" else None

        limit = self.context.settings.storage.freeze_limit
        with still():
            # Only one that is whole is known to hold what the volume held at an instant in here.
            made = self._cloud.make_snapshot(lambda: self._cloud.snapshot_with(name, _KEY, key), wish, limit / 4)
            found = wait_until(taken, f"taking the snapshot {made.id}", limit=limit, pause=0.1, longest_pause=0.5)
        return _as_snapshot(found)

    def find_snapshot(self, snapshot: dict[str, Any]) -> dict[str, Any] | None:
        found = self._cloud.snapshot(_snapshot_id(snapshot, "snapshot"))
        return None if found is None else _as_snapshot(found)

    def delete_snapshot(self, snapshot: dict[str, Any]) -> None:
        self._delete_snapshot(_snapshot_id(snapshot, "snapshot"))

    def give_up_snapshot(self, key: str, volume: Any) -> None:
        found = self._cloud.snapshot_with(_name_of(key), _KEY, key)
        if found is not None:
            self._delete_snapshot(found.id)

    def check_growth(self, volume: CinderVolume, growth: dict[str, Any]) -> None:
        size = _gigabytes(growth_to_size(growth, ("size",), self.name), "growth.size")
        if size is None or size <= float(volume.size or 0):
            raise InvalidParameter("growth.size", shown(growth.get("size")), f"more than the {volume.size} GB it has")
        if volume.device is not None and not self._cloud.extends_in_use():
            raise NotSupported(
                f"This cloud's Cinder cannot grow the volume {volume.id} while it is attached (it has no microversion "
                "3.42). Nothing was changed; storage.detach it, grow it, and storage.create attaches it again."
            )

    def grow(self, volume: CinderVolume, growth: dict[str, Any]) -> CinderVolume:
        size = _gigabytes(growth["size"], "growth.size") or 0
        identity = volume.id or ""
        found = self._settled(identity)
        if found.size < size:
            if found.servers and not self._cloud.extends_in_use():
                return self._grow_detached(volume, size)
            self._extend(identity, size)
        if volume.device is not None:
            await_size(self.context.host, volume.device, size * GIGABYTE)
        return self._as_volume(self._settled(identity), volume)

    def _grow_detached(self, volume: CinderVolume, size: int) -> CinderVolume:
        """Grow a volume that was detached when `check_growth` saw it, and is attached for its file system's sake."""
        self.detach(volume, False)
        try:
            self._extend(volume.id or "", size)
        finally:
            step(f"attaching {volume.id} again")
            volume = self.attach(volume)
        return volume

    def _extend(self, identity: str, size: int) -> None:
        unless_so(lambda: self._cloud.extend_volume(identity, size), lambda: self._settled(identity).size >= size)
        now = self._settled(identity)
        if now.size < size:
            raise OutsideFailure(
                f"Cinder began to grow the volume {identity} and gave it up: it has {now.size} GB as before. Ask the "
                "cloud's operator for its message."
            )

    def _is_here(self, identity: str) -> bool:
        return self._cloud.server in self._settled(identity).servers

    def _made(self, volume: CinderVolume, key: str) -> CloudVolume | None:
        return self._cloud.volume_with(volume.name or _name_of(key), _KEY, key)

    def _usable(self, volume: CinderVolume, key: str) -> CloudVolume | None:
        """Give what was made under a key, unless it came to nothing, and is deleted first then."""
        found = self._made(volume, key)
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
            found = self._cloud.volume(identity)
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
        found = self._cloud.volume(identity)
        if found is not None and found.status == "error_deleting":
            raise failed(f"the volume {identity}", found.status)
        return True if found is None else None

    def _delete_snapshot(self, identity: str) -> None:
        def look() -> bool | None:
            found = self._cloud.snapshot(identity)
            if found is not None and found.status == "error_deleting":
                raise failed(f"the snapshot {identity}", found.status)
            return True if found is None else None

        self._cloud.delete_snapshot(identity)
        wait_until(look, f"deleting the snapshot {identity}", limit=_SETTLED_WITHIN)

    def _as_volume(self, found: CloudVolume, volume: CinderVolume) -> CinderVolume:
        device = None
        if self._cloud.server in found.servers:
            device = linked_device(self.context.settings.storage.by_id_dir, _links(found.id))
        return msgspec.structs.replace(
            volume,
            id=found.id,
            name=found.name,
            device=device,
            size=found.size,
            volume_type=found.kind or volume.volume_type,
            avail_zone=found.zone or volume.avail_zone,
            tags={name: value for name, value in found.metadata.items() if name != _KEY} or None,
        )

    def _snapshot_of(self, snap: dict[str, Any], path: str) -> CloudSnapshot:
        if snap.get("type", self.name) != self.name:
            raise InvalidParameter(f"{path}.type", shown(snap.get("type")), f"{self.name}, as the volume")
        identity = _snapshot_id(snap, path)
        found = self._cloud.snapshot(identity)
        if found is None:
            raise NotFound(f"There is no snapshot {identity}. Nothing was made.", {"id": identity})
        return found

    def _await_snapshot(self, identity: str) -> None:
        def look() -> bool | None:
            found = self._cloud.snapshot(identity)
            if found is None or found.status not in ("creating", "available", "backing-up"):
                raise failed(f"the snapshot {identity}", found.status if found is not None else "deleted")
            return True if found.status == "available" else None

        wait_until(look, f"waiting for the snapshot {identity}", limit=_COPIED_WITHIN)


def _gigabytes(size: Size | None, path: str) -> int | None:
    return None if size is None else size_in_bytes(size, path, unit=GIGABYTE) // GIGABYTE


def _name_of(key: str) -> str:
    return f"scalarizr-{key}"[:255]


def _links(identity: str) -> list[str]:
    """Give the names of udev's links: of virtio-blk, and of QEMU's SCSI disks with either length of serial number."""
    short = identity[:_SERIAL]
    scsi = "scsi-0QEMU_QEMU_HARDDISK_"
    return [f"virtio-{short}", f"{scsi}{identity}", f"scsi-SQEMU_QEMU_HARDDISK_{identity}", f"{scsi}{short}"]


def _snapshot_id(snapshot: dict[str, Any], path: str) -> str:
    identity = snapshot.get("id")
    if not isinstance(identity, str) or not _UUID.fullmatch(identity):
        raise InvalidParameter(f"{path}.id", shown(identity), "the id of a snapshot, which storage.snapshot gave")
    return identity


def _as_snapshot(snapshot: CloudSnapshot) -> dict[str, Any]:
    return {
        "type": CinderVolumes.name,
        "id": snapshot.id,
        "description": snapshot.description,
        "tags": {name: value for name, value in snapshot.metadata.items() if name != _KEY},
        "status": _STATUSES.get(snapshot.status, "pending"),
        "size": snapshot.size,
    }
