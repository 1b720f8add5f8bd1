"""`gce_persistent`: Google's zonal persistent disks."""

import hashlib
import re
from typing import Any

import msgspec

from scalarizr.errors import AlreadyExists, InvalidParameter, NotFound
from scalarizr.rpc.types import shown
from scalarizr.storage.cloud_volumes import KEY_TAG, CloudVolumes, gigabytes, plain_tags
from scalarizr.storage.context import Still
from scalarizr.storage.device_links import linked_device
from scalarizr.storage.gce.compute import Compute, Disk, Snapshot, failed
from scalarizr.storage.model import Volume
from scalarizr.storage.steps import wait_until

_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_ZONE = re.compile(r"[a-z][a-z0-9-]{0,62}", re.ASCII)
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}", re.ASCII)
# What of a key fits into a label, and into a name behind `scalarizr-`.
_KEY_TEXT = re.compile(r"[a-z0-9-]{0,51}[a-z0-9]", re.ASCII)
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


class PersistentDisks(CloudVolumes[Compute, Disk, Snapshot]):
    """Google's persistent disks."""

    name = "gce_persistent"
    config = PersistentDisk
    what = "disk"
    holder = ""
    snapshot_ids = _NAME
    statuses = _STATUSES

    def connect(self) -> Compute:
        return Compute(self.context.settings.gce)

    def check(self, volume: PersistentDisk, path: str) -> None:
        if volume.name is not None and not _NAME.fullmatch(volume.name):
            raise InvalidParameter(
                f"{path}.name", shown(volume.name), "1 to 63 of a-z, 0-9 and -, the first a letter, the last no dash"
            )
        if volume.volume_type is not None and not _NAME.fullmatch(volume.volume_type):
            raise InvalidParameter(f"{path}.volume_type", shown(volume.volume_type), 'a disk type, such as "pd-ssd"')
        _check_labels(volume.tags or {}, f"{path}.tags")
        if volume.zone is not None and volume.zone != self.cloud.zone:
            raise InvalidParameter(
                f"{path}.zone", shown(volume.zone), f"{self.cloud.zone}, where this server is: others cannot attach"
            )
        super().check(volume, path)

    def look(self, volume: PersistentDisk) -> Disk | None:
        named = volume.id is not None and _NAME.fullmatch(volume.id)
        return self.cloud.disk(self._zone(volume), volume.id or "") if named else None

    def look_for(self, volume: PersistentDisk, key: str) -> Disk | None:
        disk = self.cloud.disk(self._zone(volume), volume.name or _name_of(key))
        return disk if disk is not None and disk.tags.get(KEY_TAG) == _label_of(key) else None

    def make(self, volume: PersistentDisk, key: str) -> tuple[PersistentDisk, bool]:
        zone, name = self._zone(volume), volume.name or _name_of(key)
        size = gigabytes(volume.size, "size")
        wish: dict[str, Any] = {"labels": {**(volume.tags or {}), KEY_TAG: _label_of(key)}}
        if volume.snap is not None:
            snapshot = self.snapshot_of(volume.snap, "snap")
            self._await_snapshot(snapshot)
            wish["source_snapshot"] = snapshot.link
            size = size or snapshot.size
        wish["size_gb"] = size
        if volume.volume_type is not None:
            wish["type_"] = f"zones/{zone}/diskTypes/{volume.volume_type}"
        if volume.kms_key is not None:
            wish["disk_encryption_key"] = {"kms_key_name": volume.kms_key}
        try:
            self.cloud.make_disk(zone, name, wish)
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
        disk = self.cloud.disk(zone, name)
        if disk is None:
            raise NotFound(f"The disk {name} was made in {zone}, and was gone at once.")
        return self.as_volume(self.whole(disk, volume, key), volume), True

    def whole(self, found: Disk, volume: PersistentDisk, key: str) -> Disk:
        def look() -> Disk | None:
            now = self.cloud.disk(found.zone, found.name)
            if now is None:
                raise NotFound(f"The disk {found.name} was made in {found.zone}, and is gone.")
            if now.status == "FAILED":
                raise failed(f"the disk {found.name}", now.status)
            return now if now.status == "READY" else None

        return wait_until(look, f"making the disk {found.name}", limit=_MADE_WITHIN)

    def there(self, volume: PersistentDisk) -> Disk:
        disk = self.look(volume)
        if disk is None:
            raise NotFound(f"There is no disk {volume.id} in {self._zone(volume)}. Nothing was changed.")
        return disk

    def attach_here(self, found: Disk) -> None:
        self.cloud.attach_disk(found)

    def detach_here(self, found: Disk) -> None:
        self.cloud.detach_disk(found)

    def delete_found(self, found: Disk) -> None:
        self.cloud.delete_disk(found.zone, found.name)

    def device(self, found: Disk) -> str | None:
        return linked_device(self.context.settings.storage.by_id_dir, [self._link(found)])

    def where(self, found: Disk) -> str:
        return str(self.context.settings.storage.by_id_dir / self._link(found))

    def snapshot(
        self, volume: PersistentDisk, key: str, description: str, tags: dict[str, str], still: Still
    ) -> dict[str, Any]:
        _check_labels(tags, "tags")
        disk, name = self.there(volume), _name_of(key)
        doing, left = f"take a snapshot of the disk {disk.name}", "There is no snapshot of it."
        labels = {**tags, KEY_TAG: _label_of(key)}

        def begin(patience: float) -> Any:
            return self.cloud.begin_snapshot(disk, name, description, labels, patience)

        def taken(operation: Any) -> Snapshot | None:
            done = operation is not None and self.cloud.look_at(operation, doing, left)
            found = self.cloud.snapshot(name)
            return found if found is not None and (done or found.status in _TAKEN) else None

        found = self.taken_within(still, begin, taken, disk.name)
        return self.as_snapshot(self._await_snapshot(found), {"zone": disk.zone})

    def snapshot_made(self, key: str) -> Snapshot | None:
        found = self.cloud.snapshot(_name_of(key))
        return found if found is not None and found.tags.get(KEY_TAG) == _label_of(key) else None

    def enlarge(self, found: Disk, volume: PersistentDisk, size: int) -> PersistentDisk:
        self.cloud.resize_disk(found.zone, found.name, size)
        return volume

    def as_snapshot(self, found: Snapshot, known: dict[str, Any]) -> dict[str, Any]:
        return {**super().as_snapshot(found, known), "zone": known.get("zone")}

    def as_volume(self, found: Disk, volume: PersistentDisk) -> PersistentDisk:
        return msgspec.structs.replace(
            volume,
            id=found.name,
            name=found.name,
            device=self.device_here(found),
            size=found.gigabytes,
            zone=found.zone,
            volume_type=found.kind or volume.volume_type,
            tags=plain_tags(found.tags) or None,
        )

    def _zone(self, volume: PersistentDisk) -> str:
        if volume.zone is not None and not _ZONE.fullmatch(volume.zone):
            raise InvalidParameter("zone", shown(volume.zone), 'a zone, such as "europe-west1-b"')
        return volume.zone or self.cloud.zone

    def _link(self, disk: Disk) -> str:
        attached = self.cloud.attached(disk)
        # Whoever else attached it may have called it otherwise.
        return f"google-{attached.device_name if attached is not None else disk.name}"

    def _await_snapshot(self, snapshot: Snapshot) -> Snapshot:
        """Wait until all of a snapshot is where it can be used."""

        def look() -> Snapshot | None:
            found = self.cloud.snapshot(snapshot.name)
            if found is None or found.status in ("FAILED", "DELETING"):
                raise failed(f"the snapshot {snapshot.name}", found.status if found is not None else "DELETED")
            return found if found.status == "READY" else None

        return wait_until(look, f"waiting for the snapshot {snapshot.name} to be uploaded", limit=_READY_WITHIN)


def _name_of(key: str) -> str:
    return f"scalarizr-{_label_of(key)}"


def _label_of(key: str) -> str:
    return key if _KEY_TEXT.fullmatch(key) else hashlib.sha256(key.encode()).hexdigest()[:40]


def _check_labels(tags: dict[str, str], path: str) -> None:
    for name, value in tags.items():
        if not _LABEL.fullmatch(name) or not _LABEL_VALUE.fullmatch(value) or name == KEY_TAG:
            raise InvalidParameter(
                f"{path}.{name[:63]}",
                shown(value),
                "a label as Google takes it: a-z, 0-9, _ and -, at most 63, the name beginning with a letter",
            )
    if len(tags) > _MOST_LABELS:
        raise InvalidParameter(path, f"{len(tags)} tags", f"{_MOST_LABELS} at most, which Google keeps as labels")
