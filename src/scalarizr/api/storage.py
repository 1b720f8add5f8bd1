"""The `storage` namespace: volumes of every type."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from scalarizr.api.parts import Parts
from scalarizr.errors import InvalidParameter
from scalarizr.rpc.method import operation, query

if TYPE_CHECKING:
    from scalarizr.storage.storage import Storage


class ListedVolume(TypedDict):
    """A volume or snapshot of the agent's records."""

    kind: str
    type: str
    id: str | None
    status: str
    size: float | str | None
    device: str | None
    mpoint: str | None
    description: str | None
    tags: dict[str, str] | None
    part_of: str | None
    made_by_agent: bool
    made_at: float
    changed_at: float


def _resource(parameters: Mapping[str, Any]) -> str:
    """Name what a call works on, so that it is not begun a second time while it runs."""
    data = parameters.get("volume") or parameters.get("storage_config") or parameters.get("snapshot") or {}
    named = data.get("id") or data.get("client_token") or data.get("device") if isinstance(data, dict) else None
    return f"volume {named}" if isinstance(named, str) else f"new volume {uuid.uuid4().hex}"


class StorageAPI:
    """Volumes: made, grown, snapshotted and given back.

    A volume is an object: `type` (loop, base, tmpfs, ebs, lvm, raid, eph, gce_persistent, cinder, csvol), `id`,
    `device`, `size` (GB of 2**30 bytes), `fstype` (ext4, ext3, xfs, btrfs), `mpoint`, `mount_options`, `tags`, `snap`
    (a snapshot to make it from), `recreate_if_missing`, `client_token` (calls with the same one make one volume),
    `wipe`, and what its type adds. `storage_config` and `volume` are the same parameter.

    :param parts: the agent's shared mechanisms.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @operation(resource=_resource)
    def create(
        self,
        storage_config: dict[str, Any] | None = None,
        mkfs: bool = False,
        mount: bool = False,
        fstab: bool = False,
        volume: dict[str, Any] | None = None,
        async_: bool = False,  # noqa: ARG002  the dispatcher's
    ) -> dict[str, Any]:
        """Make sure that a volume is there: made if it is not, attached, formatted, mounted, entered in fstab.

        Repeated with what it returned it changes nothing. On any failure what it did is undone.

        :param storage_config: the volume; without an `id` it is made, from `snap` where that is given.
        :param mkfs: make a file system where the device holds nothing at all; one that is there already stays. Anything
            else on it is never formatted, unless `wipe` is in the volume.
        :param mount: mount it at its `mpoint`, an empty or missing directory.
        :param fstab: enter it in fstab with `nofail`, by UUID, so that it is there again after a boot.
        :param volume: the same as `storage_config`.
        :param async_: give the operation's id at once.
        :return: the whole volume, with `id`, `device`, `size` and `fstype`.
        :raises InvalidParameter: its type, a key or a value cannot be right; the known ones are named.
        :raises Refused: it holds something, which is named.
        :raises NotFound: the volume of that `id`, or the snapshot, is gone.
        """
        data, path = _one_of(storage_config, volume, "storage_config")
        return self._storage().create(data, mkfs=mkfs, mount=mount, fstab=fstab, path=path)

    @operation(resource=_resource)
    def snapshot(
        self,
        volume: dict[str, Any] | None = None,
        description: str | None = None,
        tags: dict[str, str] | None = None,
        storage_config: dict[str, Any] | None = None,
        async_: bool = False,  # noqa: ARG002  the dispatcher's
    ) -> dict[str, Any]:
        """Take a snapshot, while the volume's file system stands still for an instant.

        :param volume: a volume that `create` gave.
        :param description: for people.
        :param tags: kept with it.
        :param storage_config: the same as `volume`.
        :param async_: give the operation's id at once.
        :return: the snapshot: `{type, id, description, tags, status, size, …}`, which a volume's `snap` takes.
        :raises NotFound: the volume is gone.
        :raises NotSupported: its type has no snapshots.
        :raises Refused: its file system would stand still for too long.
        """
        data, path = _one_of(volume, storage_config, "volume")
        return self._storage().snapshot(data, description, tags, path)

    @operation(resource=_resource)
    def detach(
        self,
        volume: dict[str, Any] | None = None,
        force: bool = False,
        storage_config: dict[str, Any] | None = None,
        async_: bool = False,  # noqa: ARG002  the dispatcher's
    ) -> dict[str, Any]:
        """Unmount a volume, take it out of fstab and detach it. Its data is kept.

        :param volume: a volume that `create` gave.
        :param force: also where processes use it, or where it is mounted elsewhere.
        :param storage_config: the same as `volume`.
        :param async_: give the operation's id at once.
        :return: the volume with `device` null; `create` attaches it again.
        :raises NotFound: it is gone.
        :raises Refused: processes use it, which are named; or this system runs on it.
        """
        data, path = _one_of(volume, storage_config, "volume")
        return self._storage().detach(data, force=force, path=path)

    @operation(resource=_resource)
    def destroy(
        self,
        volume: dict[str, Any] | None = None,
        force: bool = False,
        storage_config: dict[str, Any] | None = None,
        async_: bool = False,  # noqa: ARG002  the dispatcher's
    ) -> None:
        """Detach a volume and delete it with its data. One that is gone already stays so.

        Only what this agent made is deleted, and at a cloud what the caller's credentials allow; a `base` volume is let
        go as it is.

        :param volume: a volume that `create` gave.
        :param force: also where processes use it, or where it is mounted elsewhere.
        :param storage_config: the same as `volume`.
        :param async_: give the operation's id at once.
        :raises Refused: processes use it, this system runs on it, or it is others'; nothing was deleted.
        """
        data, path = _one_of(volume, storage_config, "volume")
        self._storage().destroy(data, force=force, path=path)

    @operation(resource=_resource)
    def grow(
        self,
        growth: dict[str, Any],
        volume: dict[str, Any] | None = None,
        storage_config: dict[str, Any] | None = None,
        async_: bool = False,  # noqa: ARG002  the dispatcher's
    ) -> dict[str, Any]:
        """Grow a volume and its file system, mounted where both can.

        :param growth: `size` in GB; by type also `iops`, `throughput`, `volume_type`, or for raid `disks` and
            `disks_count`.
        :param volume: a volume that `create` gave.
        :param storage_config: the same as `volume`.
        :param async_: give the operation's id at once.
        :return: the volume as it is then.
        :raises InvalidParameter: it would not grow, or cannot be so large.
        :raises NotFound: it is gone.
        """
        data, path = _one_of(volume, storage_config, "volume")
        return self._storage().grow(data, growth, path)

    @operation(resource=_resource)
    def replace_raid_disk(
        self,
        index: int,
        disk: dict[str, Any],
        volume: dict[str, Any] | None = None,
        storage_config: dict[str, Any] | None = None,
        async_: bool = False,  # noqa: ARG002  the dispatcher's
    ) -> dict[str, Any]:
        """Put another disk in the place of one of an array's.

        The new one is added and synchronised; then the old one is removed and destroyed.

        :param index: which one, from 0, in the order of the array's `disks`.
        :param disk: the new one, a volume of any type.
        :param volume: the array.
        :param storage_config: the same as `volume`.
        :param async_: give the operation's id at once.
        :return: the array.
        :raises NotSupported: it is no array, or one whose level cannot do without a disk.
        """
        data, path = _one_of(volume, storage_config, "volume")
        return self._storage().replace_raid_disk(data, index, disk, path)

    @operation(resource=_resource)
    def destroy_snapshot(self, snapshot: dict[str, Any], async_: bool = False) -> None:  # noqa: ARG002  the dispatcher's
        """Delete a snapshot. One that is gone already stays so.

        :param snapshot: as `snapshot` gave it.
        :param async_: give the operation's id at once.
        :raises NotFound: this agent took none of that id.
        """
        self._storage().destroy_snapshot(snapshot)

    def _made(self) -> list[dict[str, Any]]:
        from scalarizr.storage.listing import made

        return made(self._parts.settings.paths.state)

    def _storage(self) -> Storage:
        # Imported by the worker that needs it: the agent's own memory stays as it is.
        from scalarizr.storage.opening import storage_of

        parts = self._parts
        return storage_of(parts.etc, parts.settings, parts.host, parts.changes, parts.log)

    @query
    def list(self) -> list[ListedVolume]:
        """List the volumes and snapshots that this agent made or used, and what became of them, newest first.

        :return: `status` is `making`, `present`, `detached` or `destroyed`; times are in Unix seconds.
        """
        return [ListedVolume(**listed) for listed in self._made()]  # type: ignore[typeddict-item]


def _one_of(first: dict[str, Any] | None, second: dict[str, Any] | None, name: str) -> tuple[dict[str, Any], str]:
    if first is not None and second is not None and first != second:
        raise InvalidParameter(name, None, "one of volume and storage_config, which are the same parameter")
    data = first if first is not None else second
    if data is None:
        raise InvalidParameter(name, None, "a volume: an object with at least a `type`")
    return data, name if first is not None else {"volume": "storage_config"}.get(name, "volume")
