"""The volumes of one server: what the API's `storage` and PostgreSQL's data bundles call.

Each kind of work is imported when it is first asked for: a worker starts for one of them.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalarizr.errors import InvalidParameter, NotFound, NotSupported, Refused
from scalarizr.host.paths import HostPaths
from scalarizr.operations.progress import current
from scalarizr.settings.model import Settings
from scalarizr.storage import devices, mounting
from scalarizr.storage.catalogue import Catalogue
from scalarizr.storage.creating import Creation, Wishes
from scalarizr.storage.fstab import Fstab
from scalarizr.storage.model import as_dict
from scalarizr.storage.records import Record, key_of_token

if TYPE_CHECKING:
    from scalarizr.changes.changes import Changes
    from scalarizr.storage.giving_back import GivingBack
    from scalarizr.storage.growing import Growth
    from scalarizr.storage.snapshots import Snapshots

_UNDO_REPLACEMENT = "scalarizr.storage.undoing:give_up_replacement"


class Storage:
    """The volumes of one server.

    :param etc: the agent's configuration directory.
    :param settings: the agent's.
    :param host: where the host's trees are.
    :param changes: transactions, for fstab.
    :param log: the agent's log.
    """

    def __init__(self, etc: Path, settings: Settings, host: HostPaths, changes: Changes, log: logging.Logger) -> None:
        self._etc = etc
        self.host = host
        self.fstab = Fstab(changes, host.etc / "fstab")
        self.catalogue = Catalogue(settings, host, log, _Nested(self))
        self.records = self.catalogue.records
        self._creation = Creation(etc, self.catalogue, self.fstab)

    @cached_property
    def _giving_back(self) -> GivingBack:
        from scalarizr.storage.giving_back import GivingBack

        return GivingBack(self.catalogue, self.fstab)

    @cached_property
    def _snapshots(self) -> Snapshots:
        from scalarizr.storage.snapshots import Snapshots

        return Snapshots(self._etc, self.catalogue)

    @cached_property
    def _growth(self) -> Growth:
        from scalarizr.storage.growing import Growth

        return Growth(self._etc, self.catalogue)

    def create(
        self,
        volume: Mapping[str, Any],
        *,
        mkfs: bool = False,
        mount: bool = False,
        fstab: bool = False,
        path: str = "storage_config",
    ) -> dict[str, Any]:
        """Make sure that a volume is there: see `creating.Creation`."""
        return self._creation.create(volume, Wishes(mkfs, mount, fstab), path)

    def snapshot(
        self,
        volume: Mapping[str, Any],
        description: str | None = None,
        tags: dict[str, str] | None = None,
        path: str = "volume",
    ) -> dict[str, Any]:
        """Take a snapshot: see `snapshots.Snapshots`."""
        taken: dict[str, Any] = self._snapshots.take(volume, description, tags, path)
        return taken

    def detach(self, volume: Mapping[str, Any], *, force: bool = False, path: str = "volume") -> dict[str, Any]:
        """Detach a volume: see `giving_back.GivingBack`."""
        return self._giving_back.detach(volume, force=force, path=path)

    def destroy(self, volume: Mapping[str, Any], *, force: bool = False, path: str = "volume") -> None:
        """Destroy a volume: see `giving_back.GivingBack`."""
        self._giving_back.destroy(volume, force=force, path=path)

    def grow(self, volume: Mapping[str, Any], growth: dict[str, Any], path: str = "volume") -> dict[str, Any]:
        """Grow a volume: see `growing.Growth`."""
        return self._growth.grow(volume, growth, path)

    def destroy_snapshot(self, snapshot: Mapping[str, Any], path: str = "snapshot") -> None:
        """Delete a snapshot."""
        self._snapshots.destroy(snapshot, path)

    def replace_raid_disk(
        self, volume: Mapping[str, Any], index: int, disk: dict[str, Any], path: str = "volume"
    ) -> dict[str, Any]:
        """Put another disk in the place of one of an array's.

        :param volume: the array.
        :param index: which one, from 0, in the order of its `disks`.
        :param disk: the dict of the new one.
        :return: the array's dict.
        :raises NotSupported: it is no array.
        """
        kind = self.catalogue.type_of(volume.get("type"), path)
        replace = getattr(kind, "replace_disk", None)
        if replace is None:
            raise NotSupported(f"A volume of type {kind.name} has no disks to replace. Nothing was changed.")
        with self.catalogue.held(volume, path) as named:
            found = self.catalogue.present(named)
            disks = len(getattr(found, "disks", None) or ())
            if not 0 <= index < disks:
                raise InvalidParameter("index", str(index), f"0 to {disks - 1}: which of its disks")
            attempt = uuid.uuid4().hex
            record = self.records.put(named.record or self.catalogue.unrecorded(named), attempt=attempt)
            current().before(_UNDO_REPLACEMENT, etc=str(self._etc), key=record.key, attempt=attempt)
            result = as_dict(replace(found, index, disk))
            record = self.records.find(record.key) or record
            self.records.put(record, data=result)
        return result

    def mounted_at(self, place: Path) -> dict[str, Any]:
        """Give the volume that holds a directory.

        :return: its dict; of type `base` where this agent did not make it.
        :raises NotFound: what holds it is no block device.
        """
        mount = mounting.mount_that_holds(self.host, place)
        device = mounting.device_of(self.host, mount) if mount is not None else None
        if mount is None or device is None:
            raise NotFound(f"{place} is on no block device of its own. Nothing was changed.", {"path": str(place)})
        for record in reversed(self.records.all()):
            if record.kind == "volume" and record.state == "present" and record.id is not None:
                kind = self.catalogue.type_of(record.type, "volume")
                if not kind.memory_only and os.path.realpath(record.data.get("mpoint") or "") == mount.mpoint:
                    named = self.catalogue.named({"type": record.type, "id": record.id}, "volume")
                    found = kind.find(named.volume)
                    if found is not None and found.device is not None and same_device(found.device, device):
                        return as_dict(found)
        return {"type": "base", "device": str(device), "mpoint": mount.mpoint}

    def nested_give_back(self, record: Record) -> None:
        """Destroy a part of a volume that was given up."""
        _Nested(self).destroy({"type": record.type, "id": record.id}, True)


def same_device(one: str | Path, other: str | Path) -> bool:
    """Tell whether two names are the same block device."""
    return devices.device_number(Path(one)) == devices.device_number(Path(other))


class _Nested:
    """The volumes that a volume is made of (`context.Nested`)."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def make(self, volume: dict[str, Any], key: str) -> dict[str, Any]:
        storage = self._storage
        key = key_of_token(f"part {key}")
        wipe = bool(volume.get("wipe"))
        made = storage._creation.create(volume, Wishes(), "disks", key)
        record = storage.records.of_id("volume", made["id"])
        whole = storage._creation.being_made()
        if record is not None and (record.private.get("part_of") != whole or not whole):
            # A copy of a part holds what that held.
            if volume.get("snap") is None or not record.ours:
                self._require_empty(Path(made["device"]), wipe=wipe)
            # From here on it holds what it is a part of.
            parent = storage.records.find(whole) if whole else None
            notes = {"part_of": whole, "found_blank_by": parent.attempt if parent is not None else ""}
            storage.records.put(record, formatted=True, private={**record.private, **notes})
        return made

    def _require_empty(self, device: Path, *, wipe: bool) -> None:
        if devices.is_system_disk(self._storage.host, device, self._storage.catalogue.context.state):
            raise Refused(f"{device} carries this system. Nothing on it was changed.", {"device": str(device)})
        holds = devices.contents(device)
        if holds.empty:
            return
        if not wipe:
            raise Refused(
                f"{device} is not used: it holds {', '.join(holds.found)}. Nothing on it was changed; `wipe: true` "
                "in its dict uses a recycled disk all the same.",
                {"device": str(device), "found": list(holds.found)},
            )
        devices.wipe(self._storage.host, device)

    def attach(self, volume: dict[str, Any]) -> dict[str, Any]:
        return self._storage._creation.create(volume, Wishes(), "disks")

    def detach(self, volume: dict[str, Any], force: bool) -> dict[str, Any]:
        return self._storage._giving_back.detach(volume, force=force, path="disks")

    def destroy(self, volume: dict[str, Any], force: bool) -> None:
        self._storage._giving_back.destroy(volume, force=force, path="disks")

    def snapshot(self, volume: dict[str, Any], description: str, tags: dict[str, str]) -> dict[str, Any]:
        taken: dict[str, Any] = self._storage._snapshots.take(volume, description, tags, "disks")
        return taken

    def destroy_snapshot(self, snapshot: dict[str, Any]) -> None:
        self._storage._snapshots.destroy(snapshot, "disks")

    def grow(self, volume: dict[str, Any], growth: dict[str, Any]) -> dict[str, Any]:
        catalogue = self._storage.catalogue
        with catalogue.held(volume, "disks") as named:
            found = catalogue.present(named)
            named.kind.check_growth(found, growth)
            result = as_dict(named.kind.grow(found, growth))
            # What the type itself put into the record stays there.
            record = self._storage.records.find(named.key)
            if record is not None:
                self._storage.records.put(record, data=result)
        return result
