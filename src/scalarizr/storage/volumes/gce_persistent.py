"""`gce_persistent`: Google's zonal persistent disks."""

import hashlib
import re
from typing import Any

import msgspec

from scalarizr.errors import AlreadyExists, InvalidParameter, NotFound, Refused
from scalarizr.rpc.types import shown
from scalarizr.storage.context import Context, Still
from scalarizr.storage.device_links import await_device, await_size, linked_device, unseen
from scalarizr.storage.gce.compute import Compute, Disk, Snapshot, failed
from scalarizr.storage.model import GIGABYTE, Size, Volume, size_in_bytes
from scalarizr.storage.provider import OfRequest, until_accepted
from scalarizr.storage.steps import wait_until
from scalarizr.storage.volume_type import VolumeType, growth_to_size

_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_ZONE = re.compile(r"[a-z][a-z0-9-]{0,62}", re.ASCII)
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}", re.ASCII)
# What of a key fits into a label, and into a name behind `scalarizr-`.
_KEY_TEXT = re.compile(r"[a-z0-9-]{0,51}[a-z0-9]", re.ASCII)
_KEY_LABEL = "scalarizr-key"
# One of Google's 64 is ours.
_MOST_LABELS = 63
_MADE_WITHIN = 600.0
_READY_WITHIN = 4 * 3600.0
_TAKEN = ("UPLOADING", "READY")
_STATUSES = {"READY": "completed", "FAILED": "error"}


class PersistentDisk(Volume, kw_only=True, frozen=True):
    """A persistent disk; its `id` is its name, which is unique in its zone.

    :param name: of a disk that is to be made; made up where none is given.
    :param zone: this server's where none is given.
    :param volume_type: `pd-standard`, `pd-balanced`, `pd-ssd` …; Google's own default where none is given.
    :param kms_key: the Cloud KMS key that encrypts it, `projects/…/cryptoKeys/…`.
    """

    name: str | None = None
    zone: str | None = None
    volume_type: str | None = None
    kms_key: str | None = None


class PersistentDisks(VolumeType):
    """Google's persistent disks."""

    name = "gce_persistent"
    config = PersistentDisk
    deletes_foreign = True

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._of_request = OfRequest(lambda: Compute(context.settings.gce))

    def close(self) -> None:
        """Close the connections to the cloud."""
        self._of_request.close()

    @property
    def _compute(self) -> Compute:
        return self._of_request.get()

    def check(self, volume: PersistentDisk, path: str) -> None:
        if volume.name is not None and not _NAME.fullmatch(volume.name):
            raise InvalidParameter(
                f"{path}.name", shown(volume.name), "1 to 63 of a-z, 0-9 and -, the first a letter, the last no dash"
            )
        if volume.volume_type is not None and not _NAME.fullmatch(volume.volume_type):
            raise InvalidParameter(f"{path}.volume_type", shown(volume.volume_type), 'a disk type, such as "pd-ssd"')
        _check_labels(volume.tags or {}, f"{path}.tags")
        size = _gigabytes(volume.size, f"{path}.size")
        if volume.zone is not None and volume.zone != self._compute.zone:
            raise InvalidParameter(
                f"{path}.zone", shown(volume.zone), f"{self._compute.zone}, where this server is: others cannot attach"
            )
        if volume.snap is None:
            if size is None:
                raise InvalidParameter(f"{path}.size", None, "a size in GB, since it is not made from a snapshot")
            return
        snapshot = self._snapshot_of(volume.snap, f"{path}.snap")
        if size is not None and size < snapshot.size:
            raise InvalidParameter(
                f"{path}.size", shown(volume.size), f"{snapshot.size} GB or more, which the snapshot has"
            )

    def find(self, volume: PersistentDisk) -> PersistentDisk | None:
        if volume.id is None or not _NAME.fullmatch(volume.id):
            return None
        disk = self._compute.disk(self._zone(volume), volume.id)
        return None if disk is None else self._as_volume(disk, volume)

    def find_made(self, volume: PersistentDisk, key: str) -> PersistentDisk | None:
        disk = self._made(volume, key)
        return None if disk is None else self._as_volume(self._ready(disk), volume)

    def give_up(self, volume: PersistentDisk, key: str) -> None:
        def delete() -> None:
            disk = self._made(volume, key)
            if disk is not None:
                made = msgspec.structs.replace(volume, id=disk.name)
                self.detach(made, force=True)
                self.delete(made, force=True)

        until_accepted(delete)

    def make(self, volume: PersistentDisk, key: str) -> tuple[PersistentDisk, bool]:
        zone, name = self._zone(volume), volume.name or _name_of(key)
        size = _gigabytes(volume.size, "size")
        wish: dict[str, Any] = {"labels": {**(volume.tags or {}), _KEY_LABEL: _label_of(key)}}
        if volume.snap is not None:
            snapshot = self._snapshot_of(volume.snap, "snap")
            self._await_snapshot(snapshot)
            wish["source_snapshot"] = snapshot.link
            size = size or snapshot.size
        wish["size_gb"] = size
        if volume.volume_type is not None:
            wish["type_"] = f"zones/{zone}/diskTypes/{volume.volume_type}"
        if volume.kms_key is not None:
            wish["disk_encryption_key"] = {"kms_key_name": volume.kms_key}
        try:
            self._compute.make_disk(zone, name, wish)
        except AlreadyExists:
            # What an earlier try of this call made, or one whose answer was lost; else it is somebody's.
            made = self.find_made(volume, key)
            if made is None:
                raise AlreadyExists(
                    f"There is a disk {name} in {zone} that this call did not make. Nothing was changed; "
                    f'take another name, or use that disk by "id": "{name}".',
                    {"id": name},
                ) from None
            return made, True
        disk = self._compute.disk(zone, name)
        if disk is None:
            raise NotFound(f"The disk {name} was made in {zone}, and was gone at once.")
        return self._as_volume(self._ready(disk), volume), True

    def attach(self, volume: PersistentDisk) -> PersistentDisk:
        disk = self._disk(volume)
        if self._compute.here not in disk.users:
            if disk.users:
                raise Refused(
                    f"The disk {disk.name} is attached to {', '.join(disk.users)}. Nothing was changed; detach it "
                    "there first.",
                    {"id": disk.name, "attached_to": list(disk.users)},
                )
            self._compute.attach_disk(disk)
            disk = self._disk(volume)
        links = self._links(disk)
        directory = self.context.settings.storage.by_id_dir
        await_device(
            lambda: linked_device(directory, links), f"disk {disk.name}", " or ".join(str(directory / x) for x in links)
        )
        return self._as_volume(disk, volume)

    def detach(self, volume: PersistentDisk, force: bool) -> None:
        disk = self._compute.disk(self._zone(volume), volume.id or "")
        if disk is None or self._compute.here not in disk.users:
            return
        if not force and self._as_volume(disk, volume).device is None:
            raise unseen(f"disk {disk.name}")
        self._compute.detach_disk(disk)

    def delete(self, volume: PersistentDisk, force: bool) -> None:
        disk = self._compute.disk(self._zone(volume), volume.id or "")
        if disk is None:
            return
        if disk.users:
            raise Refused(
                f"The disk {disk.name} is attached to {', '.join(disk.users)}. It was not deleted; detach it there "
                "first.",
                {"id": disk.name, "attached_to": list(disk.users)},
            )
        self._compute.delete_disk(disk.zone, disk.name)

    def snapshot(
        self, volume: PersistentDisk, key: str, description: str, tags: dict[str, str], still: Still
    ) -> dict[str, Any]:
        _check_labels(tags, "tags")
        disk, name = self._disk(volume), _name_of(key)
        doing, left = f"take a snapshot of the disk {disk.name}", "There is no snapshot of it."
        labels = {**tags, _KEY_LABEL: _label_of(key)}

        def taken() -> Snapshot | None:
            """Give the snapshot from when on what is written to the disk is not in it."""
            done = operation is not None and self._compute.look_at(operation, doing, left)
            found = self._compute.snapshot(name)
            return found if found is not None and (done or found.status in _TAKEN) else None

        limit = self.context.settings.storage.freeze_limit
        with still():
            operation = self._compute.begin_snapshot(disk, name, description, labels, limit / 4)
            found = wait_until(taken, doing, limit=limit, pause=0.1, longest_pause=0.5)
        return _as_snapshot(self._await_snapshot(found), disk.zone)

    def find_snapshot(self, snapshot: dict[str, Any]) -> dict[str, Any] | None:
        found = self._compute.snapshot(_snapshot_name(snapshot, "snapshot"))
        return None if found is None else _as_snapshot(found, snapshot.get("zone"))

    def delete_snapshot(self, snapshot: dict[str, Any]) -> None:
        self._compute.delete_snapshot(_snapshot_name(snapshot, "snapshot"))

    def give_up_snapshot(self, key: str, volume: Any) -> None:
        found = self._compute.snapshot(_name_of(key))
        if found is not None and found.labels.get(_KEY_LABEL) == _label_of(key):
            self._compute.delete_snapshot(found.name)

    def check_growth(self, volume: PersistentDisk, growth: dict[str, Any]) -> None:
        size = _gigabytes(growth_to_size(growth, ("size",), self.name), "growth.size")
        if size is None or size <= float(volume.size or 0):
            raise InvalidParameter("growth.size", shown(growth.get("size")), f"more than the {volume.size} GB it has")

    def grow(self, volume: PersistentDisk, growth: dict[str, Any]) -> PersistentDisk:
        size = _gigabytes(growth["size"], "growth.size") or 0
        disk = self._disk(volume)
        if disk.size < size:
            self._compute.resize_disk(disk.zone, disk.name, size)
        if volume.device is not None:
            await_size(self.context.host, volume.device, size * GIGABYTE)
        return self._as_volume(self._disk(volume), volume)

    def _disk(self, volume: PersistentDisk) -> Disk:
        disk = self._compute.disk(self._zone(volume), volume.id or "")
        if disk is None:
            raise NotFound(f"There is no disk {volume.id} in {self._zone(volume)}. Nothing was changed.")
        return disk

    def _made(self, volume: PersistentDisk, key: str) -> Disk | None:
        disk = self._compute.disk(self._zone(volume), volume.name or _name_of(key))
        return disk if disk is not None and disk.labels.get(_KEY_LABEL) == _label_of(key) else None

    def _zone(self, volume: PersistentDisk) -> str:
        if volume.zone is not None and not _ZONE.fullmatch(volume.zone):
            raise InvalidParameter("zone", shown(volume.zone), 'a zone, such as "europe-west1-b"')
        return volume.zone or self._compute.zone

    def _links(self, disk: Disk) -> list[str]:
        attached = self._compute.attached(disk)
        # Whoever else attached it may have called it otherwise.
        return [f"google-{attached.device_name if attached is not None else disk.name}"]

    def _as_volume(self, disk: Disk, volume: PersistentDisk) -> PersistentDisk:
        device = None
        if self._compute.here in disk.users:
            device = linked_device(self.context.settings.storage.by_id_dir, self._links(disk))
        return msgspec.structs.replace(
            volume,
            id=disk.name,
            name=disk.name,
            device=device,
            size=disk.size,
            zone=disk.zone,
            volume_type=disk.kind or volume.volume_type,
            tags={name: value for name, value in disk.labels.items() if name != _KEY_LABEL} or None,
        )

    def _ready(self, disk: Disk) -> Disk:
        """Wait until a disk is whole."""

        def look() -> Disk | None:
            now = self._compute.disk(disk.zone, disk.name)
            if now is None:
                raise NotFound(f"The disk {disk.name} was made in {disk.zone}, and is gone.")
            if now.status == "FAILED":
                raise failed(f"the disk {disk.name}", now.status)
            return now if now.status == "READY" else None

        return wait_until(look, f"making the disk {disk.name}", limit=_MADE_WITHIN)

    def _snapshot_of(self, snap: dict[str, Any], path: str) -> Snapshot:
        if snap.get("type", self.name) != self.name:
            raise InvalidParameter(f"{path}.type", shown(snap.get("type")), f"{self.name}, as the volume")
        name = _snapshot_name(snap, path)
        found = self._compute.snapshot(name)
        if found is None:
            raise NotFound(f"There is no snapshot {name}. Nothing was made.", {"id": name})
        return found

    def _await_snapshot(self, snapshot: Snapshot) -> Snapshot:
        """Wait until all of a snapshot is where it can be used."""

        def look() -> Snapshot | None:
            found = self._compute.snapshot(snapshot.name)
            if found is None or found.status in ("FAILED", "DELETING"):
                raise failed(f"the snapshot {snapshot.name}", found.status if found is not None else "DELETED")
            return found if found.status == "READY" else None

        return wait_until(look, f"waiting for the snapshot {snapshot.name} to be uploaded", limit=_READY_WITHIN)


def _gigabytes(size: Size | None, path: str) -> int | None:
    return None if size is None else size_in_bytes(size, path, unit=GIGABYTE) // GIGABYTE


def _name_of(key: str) -> str:
    return f"scalarizr-{_label_of(key)}"


def _label_of(key: str) -> str:
    return key if _KEY_TEXT.fullmatch(key) else hashlib.sha256(key.encode()).hexdigest()[:40]


def _check_labels(tags: dict[str, str], path: str) -> None:
    for name, value in tags.items():
        if not _LABEL.fullmatch(name) or not _LABEL_VALUE.fullmatch(value) or name == _KEY_LABEL:
            raise InvalidParameter(
                f"{path}.{name[:63]}",
                shown(value),
                "a label as Google takes it: a-z, 0-9, _ and -, at most 63, the name beginning with a letter",
            )
    if len(tags) > _MOST_LABELS:
        raise InvalidParameter(path, f"{len(tags)} tags", f"{_MOST_LABELS} at most, which Google keeps as labels")


def _snapshot_name(snapshot: dict[str, Any], path: str) -> str:
    name = snapshot.get("id")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidParameter(f"{path}.id", shown(name), "the id of a snapshot, which storage.snapshot gave")
    return name


def _as_snapshot(snapshot: Snapshot, zone: Any) -> dict[str, Any]:
    return {
        "type": PersistentDisks.name,
        "id": snapshot.name,
        "description": snapshot.description,
        "tags": {name: value for name, value in snapshot.labels.items() if name != _KEY_LABEL},
        "status": _STATUSES.get(snapshot.status, "pending"),
        "size": snapshot.size,
        "zone": zone,
    }
