"""`eph`: a logical volume over local disks, which go with the server; its snapshots are kept in an object store."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from scalarizr.errors import InvalidParameter, NotFound, OutsideFailure
from scalarizr.objectstore.opening import open_store
from scalarizr.objectstore.store import Store
from scalarizr.operations.progress import current
from scalarizr.platform_access import current_platform_access
from scalarizr.rpc.types import shown
from scalarizr.storage import lvm_programs, volume_image
from scalarizr.storage.context import Still
from scalarizr.storage.lvm_programs import Group, Logical
from scalarizr.storage.model import Size, Volume, size_in_gigabytes
from scalarizr.storage.parts import as_dicts
from scalarizr.storage.steps import step
from scalarizr.storage.volumes.lvm import LvmVolumes

_ID = re.compile(r"eph-[0-9a-f]{32}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


class EphemeralVolume(Volume, kw_only=True, frozen=True):
    """A volume on local disks.

    :param disk: the one disk: a volume's dict, or the path of a device.
    :param disks: several.
    :param vg: the name of the group that is made of them.
    :param name: the logical volume's name.
    :param cloudfs_dir: the object store that its snapshots go to; `[backup] store` where not given.
    """

    disk: Any = None
    disks: list[Any] | None = None
    vg: str | None = None
    name: str | None = None
    cloudfs_dir: str | None = None


class EphemeralVolumes(LvmVolumes):
    """Volumes on local disks."""

    name: ClassVar[str] = "eph"
    config: ClassVar[type[Volume]] = EphemeralVolume
    # A fifth is left: a snapshot keeps there what is overwritten while it is uploaded.
    default_size: ClassVar[Size | None] = "80%VG"
    parts_key: ClassVar[str] = "disks"

    def disks_of(self, volume: Any, path: str = "storage_config") -> list[dict[str, Any]]:
        if volume.disk is not None and volume.disks:
            raise InvalidParameter(f"{path}.disk", shown(volume.disk), "either disk or disks")
        named = [volume.disk] if volume.disk is not None else volume.disks
        return as_dicts(named, f"{path}.disks")

    def with_disks(self, volume: Any, disks: list[dict[str, Any]]) -> Any:
        return msgspec.structs.replace(volume, disk=None, disks=disks)

    def check(self, volume: Any, path: str) -> None:
        if volume.snap is not None:
            self._checked_snapshot(volume.snap, f"{path}.snap")
        if volume.cloudfs_dir is not None:
            self._store(volume.cloudfs_dir)
        super().check(volume, path)

    # What a snapshot is made into

    def size_of_snapshot(self, snap: dict[str, Any]) -> int:
        return self._manifest(snap)[2].size

    def group_of_snapshot(self, snap: dict[str, Any]) -> str | None:
        return None

    def fill(self, volume: Any, made: Logical) -> None:
        store, directory, manifest = self._manifest(volume.snap)
        words = f"restoring {volume.snap['id']} from {store.url}"
        step(words)
        volume_image.restore(store, directory, manifest, Path(made.path), words)

    # Snapshots

    def snapshot(self, volume: Any, key: str, description: str, tags: dict[str, str], still: Still) -> dict[str, Any]:
        origin = self.visible_one(volume)
        if origin is None or not origin.active:
            raise NotFound(f"The volume {volume.id} is not attached here. Nothing was changed; attach it first.")
        url = volume.cloudfs_dir or self.context.settings.backup.store
        store = self._store(url)
        identity = f"eph-{key}"
        taken = self.take_native_snapshot(volume, origin, key)
        try:
            words = f"uploading {volume.id} to {store.url}"
            step(words)
            kept = volume_image.keep(store, _directory(identity), Path(taken.path), origin.size, words)
            now = next((one for one in lvm_programs.logical_volumes() if one.uuid == taken.uuid), None)
            if now is None or now.invalid:
                volume_image.remove(store, _directory(identity))
                raise OutsideFailure(
                    f"More was written to {volume.id} while it was uploaded than the group {origin.group} had free. "
                    "No snapshot was kept; write less meanwhile, or give the volume a smaller part of its group."
                )
        finally:
            with current().uninterrupted():
                lvm_programs.remove_logical(taken)
        return {
            "type": self.name,
            "id": identity,
            "description": description,
            "tags": tags,
            "status": "completed",
            "size": size_in_gigabytes(origin.size),
            "store": url,
            "manifest_sha256": kept.manifest_sha256,
            "used_size": size_in_gigabytes(kept.size),
        }

    def snapshot_extents(self, volume: Any, origin: Logical, group: Group) -> int:
        return max(min(self.most_for_snapshot(origin, group), group.free), 1)

    def find_snapshot(self, snapshot: dict[str, Any]) -> dict[str, Any] | None:
        try:
            self._manifest(snapshot)
        except NotFound:
            return None
        return {**snapshot, "status": "completed"}

    def delete_snapshot(self, snapshot: dict[str, Any]) -> None:
        snap = self._checked_snapshot(snapshot, "snapshot")
        volume_image.remove(self._store(snap["store"]), _directory(snap["id"]))

    def give_up_snapshot(self, key: str, volume: Any) -> None:
        super().give_up_snapshot(key, volume)
        url = (volume.cloudfs_dir if volume is not None else None) or self.context.settings.backup.store
        volume_image.remove(self._store(url), _directory(f"eph-{key}"))

    def _store(self, url: str) -> Store:
        settings = self.context.settings
        return open_store(url, settings.backup.endpoint_url, current_platform_access(), region=settings.ec2.region)

    def _manifest(self, snap: Mapping[str, Any]) -> tuple[Store, str, volume_image.Manifest]:
        checked = self._checked_snapshot(snap, "storage_config.snap")
        store, directory = self._store(checked["store"]), _directory(checked["id"])
        return store, directory, volume_image.read_manifest(store, directory, checked["manifest_sha256"])

    def _checked_snapshot(self, snap: Mapping[str, Any], path: str) -> Mapping[str, Any]:
        """Check a snapshot's dict: everything that is read from the store follows from it.

        :raises InvalidParameter: it is none of this type.
        """
        if snap.get("type") != self.name:
            raise InvalidParameter(f"{path}.type", shown(snap.get("type")), f"{self.name}: a snapshot of this type")
        for name, form in (("id", _ID), ("manifest_sha256", _SHA256)):
            value = snap.get(name)
            if not isinstance(value, str) or not form.fullmatch(value):
                raise InvalidParameter(f"{path}.{name}", shown(value), "what storage.snapshot gave")
        if not isinstance(snap.get("store"), str):
            raise InvalidParameter(f"{path}.store", shown(snap.get("store")), "the URL of an object store")
        return snap


def _directory(identity: str) -> str:
    return f"volumes/{identity}"
