"""What `lvm` and `eph` have in common: logical volumes in groups of volumes of any type; what is ours is told by tags.

A group is ours where it carries our tag and this agent has a record of it. Only such a one is ever extended or removed.
"""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from scalarizr.errors import AlreadyExists, InvalidParameter, Refused
from scalarizr.rpc.types import shown
from scalarizr.storage import block_copy, lvm_lookup, lvm_programs
from scalarizr.storage.lvm_programs import Group, Logical
from scalarizr.storage.model import Size, check_size, size_in_bytes, size_in_gigabytes
from scalarizr.storage.parts import check_parts, destroy_part, make_blank_again
from scalarizr.storage.records import Record
from scalarizr.storage.steps import step, wait_until
from scalarizr.storage.volume_type import VolumeType

SNAPSHOT_TAG = "scalarizr.snapshot."
_VOLUME_TAG = "scalarizr.volume."
_GROUP_TAG = "scalarizr.group."
# What has it was not made to its end: nobody was ever told of it.
_UNFINISHED = "scalarizr.unfinished"
_APPEARS_WITHIN = 30.0


class LogicalVolumes(VolumeType):
    """Logical volumes.

    :cvar default_size: of a volume for which none is given; None: one has to be.
    :cvar parts_key: the key under which a dict names what its group is made of.
    """

    default_size: ClassVar[Size | None] = None
    parts_key: ClassVar[str]

    @abstractmethod
    def disks_of(self, volume: Any, path: str = "storage_config") -> list[dict[str, Any]]:
        """Give the dicts of the volumes that its group is made of."""

    @abstractmethod
    def with_disks(self, volume: Any, disks: list[dict[str, Any]]) -> Any:
        """Give it with other dicts of those."""

    @abstractmethod
    def size_of_snapshot(self, snap: dict[str, Any]) -> int:
        """Give how many bytes a volume made from a snapshot needs at least."""

    @abstractmethod
    def group_of_snapshot(self, snap: dict[str, Any]) -> str | None:
        """Give the name of the group that a volume made from a snapshot goes into, where the caller names none."""

    @abstractmethod
    def fill(self, volume: Any, made: Logical) -> None:
        """Fill a new volume with what its snapshot holds."""

    def check(self, volume: Any, path: str) -> None:
        if volume.vg is not None:
            lvm_programs.check_name(volume.vg, f"{path}.vg")
        if volume.name is not None:
            lvm_programs.check_name(volume.name, f"{path}.name")
        disks = self.disks_of(volume, path)
        lvm_programs.require_lvm(self.context.host)
        check_parts(self.context, disks, f"{path}.{self.parts_key}")
        snapshot_size = getattr(volume, "snapshot_size", None)
        if snapshot_size is not None:
            check_size(snapshot_size, f"{path}.snapshot_size")
            size_in_bytes(snapshot_size, f"{path}.snapshot_size", {"LV": 1 << 30})
        group = lvm_lookup.group_named(volume.vg or (self.group_of_snapshot(volume.snap) if volume.snap else None))
        existing = (
            lvm_lookup.logical_named(group, volume.name) if group is not None and volume.name is not None else None
        )
        if group is None and not disks:
            raise InvalidParameter(
                f"{path}.{self.parts_key}", None, "the volumes to make a group of, or the name of one that exists in vg"
            )
        if existing is not None:
            self._check_existing(volume, existing, path)
        elif volume.size is None and volume.snap is None and self.default_size is None:
            raise InvalidParameter(f"{path}.size", None, 'a size in GB, or a percentage such as "80%VG"')
        elif volume.size is not None:
            size = size_in_bytes(volume.size, f"{path}.size", {"VG": 1 << 40})
            if group is not None:
                self.extents_of(volume.size, group, f"{path}.size", group.free)
            elif volume.snap is not None and not isinstance(volume.size, str):
                self._check_holds_snapshot(volume, size, path)

    def find(self, volume: Any) -> Any | None:
        uuid = lvm_lookup.uuid_of(volume.id, "lv-")
        record = self.context.records.of_id("volume", volume.id)
        found = next((one for one in lvm_lookup.visible() if one.uuid == uuid and not one.origin_uuid), None)
        if found is not None:
            return self.as_volume(volume, found, record)
        if record is None or record.state == "destroyed" or self._parts_are_here(record):
            return None
        # What its group is made of is detached, and it with that.
        return msgspec.structs.replace(self._recorded(volume, record), device=None)

    def find_made(self, volume: Any, key: str) -> Any | None:
        made = lvm_lookup.tagged(_VOLUME_TAG + key)
        if made is None or _UNFINISHED in made.tags:
            return None
        return self.as_volume(volume, made, self.context.records.find(key))

    def make(self, volume: Any, key: str) -> tuple[Any, bool]:
        made = lvm_lookup.tagged(_VOLUME_TAG + key)
        if made is None:
            if volume.vg is not None and volume.name is not None and volume.snap is None:
                existing = lvm_lookup.logical_named(lvm_lookup.group_named(volume.vg), volume.name)
                if existing is not None:
                    self._check_existing(volume, existing, "storage_config")
                    return self.as_volume(volume, existing, None), False
            group, volume = self._group(volume, key)
            made = self._make_logical(volume, group, key)
        if _UNFINISHED in made.tags:
            lvm_programs.activate(made)
            if volume.snap is not None:
                self.fill(volume, made)
            else:
                # The space is new to this volume: what lay there before is nobody's any more.
                block_copy.clear_ends(Path(made.path))
            lvm_programs.remove_tag(made, _UNFINISHED)
        self._note_group(key, made.group_uuid)
        return self.as_volume(volume, made, self.context.records.find(key)), True

    def attach(self, volume: Any) -> Any:
        uuid = lvm_lookup.uuid_of(volume.id, "lv-")
        found = next((one for one in lvm_lookup.visible() if one.uuid == uuid), None)
        record = self.context.records.of_id("volume", volume.id)
        if found is None:
            for disk in self._all_disks(record):
                self.context.nested.attach(disk)
            found = wait_until(
                lambda: next((one for one in lvm_lookup.visible() if one.uuid == uuid), None),
                f"waiting for the logical volume {volume.id}",
                limit=_APPEARS_WITHIN,
            )
        lvm_programs.activate(found)
        active = next(one for one in lvm_lookup.visible() if one.uuid == uuid)
        return self.as_volume(volume, active, record)

    def detach(self, volume: Any, force: bool) -> None:
        found = self.visible_one(volume)
        if found is None:
            return
        lvm_programs.deactivate(found)
        group = next((one for one in lvm_programs.groups() if one.uuid == found.group_uuid), None)
        record = self.context.records.of_id("volume", volume.id)
        if group is None or not self.is_ours(group) or self._others_in(group, found):
            return
        disks = self._all_disks(record)
        if all(disk.get("type") == "base" for disk in disks):
            return
        lvm_programs.deactivate_group(group.name)
        for disk in disks:
            if disk.get("type") != "base":
                self.context.nested.detach(disk, force)

    def delete(self, volume: Any, force: bool) -> None:
        record = self.context.records.of_id("volume", volume.id)
        found = self.visible_one(volume)
        if found is None and record is not None and record.state != "destroyed":
            if self._parts_are_here(record):
                return
            for disk in self._all_disks(record):
                self.context.nested.attach(disk)
            found = wait_until(lambda: self.visible_one(volume), f"waiting for {volume.id}", limit=_APPEARS_WITHIN)
        if found is None:
            return
        snapshots = lvm_lookup.snapshots_of(found)
        if snapshots and not force:
            raise Refused(
                f"{found.full_name} has snapshots ({', '.join(one.name for one in snapshots)}), which would "
                "go with it. It is detached, and no data was lost; delete them with storage.destroy_snapshot first, or "
                "use `force`.",
                {"snapshots": [one.name for one in snapshots]},
            )
        disks = self._all_disks(record)
        for snapshot in snapshots:
            lvm_programs.remove_logical(snapshot)
        lvm_programs.deactivate(found)
        lvm_programs.remove_logical(found)
        if self._remove_empty_group(found.group_uuid):
            for disk in disks:
                destroy_part(self.context, disk)

    def give_up(self, volume: Any, key: str) -> None:  # noqa: ARG002  found by the key alone
        made = lvm_lookup.tagged(_VOLUME_TAG + key)
        if made is not None:
            for snapshot in lvm_lookup.snapshots_of(made):
                lvm_programs.remove_logical(snapshot)
            lvm_programs.deactivate(made)
            lvm_programs.remove_logical(made)
        tag = _GROUP_TAG + key
        for group in lvm_programs.groups():
            if tag in group.tags and not group.volumes:
                lvm_programs.remove_group(group.name, lvm_lookup.devices_in(group.uuid))
        self._remove_labels(key)
        make_blank_again(self.context, key)

    def _remove_labels(self, key: str) -> None:
        """Take LVM's labels off disks that held nothing before they were to be a part of this, and are in no group."""
        ours = {
            lvm_lookup.number_of(record.data.get("device"))
            for record in self.context.records.all()
            if record.private.get("part_of") == key
        } - {None}
        for label in lvm_programs.physical_volumes():
            if not label.group_uuid and lvm_lookup.number_of(label.device) in ours:
                lvm_programs.remove_label(label.device)

    # What is made of what

    def _group(self, volume: Any, key: str) -> tuple[Group, Any]:
        """Give the group that a new volume goes into, made where it is not there."""
        name = volume.vg or (self.group_of_snapshot(volume.snap) if volume.snap else None) or f"scalarizr-{key[:12]}"
        group = lvm_lookup.group_named(name)
        disks = self.disks_of(volume)
        if group is not None and _GROUP_TAG + key not in group.tags:
            self._check_members(group, disks)
            known = self._disks_of_group(group.uuid)
            return group, msgspec.structs.replace(self.with_disks(volume, known) if known else volume, vg=name)
        made = [self.context.nested.make(disk, f"{key} {index}") for index, disk in enumerate(disks)]
        if group is None:
            for disk in made:
                lvm_lookup.require_unused(disk["device"])
            step(f"making the group {name} of {', '.join(disk['device'] for disk in made)}")
            lvm_programs.create_group(name, [Path(disk["device"]) for disk in made], _GROUP_TAG + key)
            group = lvm_lookup.group_named(name)
            assert group is not None
        volume = msgspec.structs.replace(self.with_disks(volume, made), vg=name)
        record = self.context.records.find(key)
        if record is not None:
            data = {**record.data, "vg": name, self.parts_key: made}
            self.context.records.put(record, data=data)
        self._note_group(key, group.uuid)
        return group, volume

    def _check_members(self, group: Group, disks: Sequence[dict[str, Any]]) -> None:
        members = {lvm_lookup.number_of(device) for device in lvm_lookup.devices_in(group.uuid)}
        for disk in disks:
            device = self.context.nested.attach(disk).get("device")
            if lvm_lookup.number_of(device) not in members:
                raise Refused(
                    f"The group {group.name} is there already, and {device} does not belong to it. "
                    "Nothing was changed; name another group, or none of its disks.",
                    {"vg": group.name, "device": device},
                )

    def _make_logical(self, volume: Any, group: Group, key: str) -> Logical:
        name = volume.name or f"volume-{key[:12]}"
        if lvm_lookup.logical_named(group, name) is not None:
            raise AlreadyExists(
                f"There is a logical volume {group.name}/{name}. Nothing was changed; choose another name."
            )
        if volume.snap is not None and (volume.size is None or isinstance(volume.size, str)):
            needed = -(-self.size_of_snapshot(volume.snap) // group.extent)
            extents = (
                needed if volume.size is None else self.extents_of(volume.size, group, "storage_config.size", None)
            )
            extents = max(extents, needed)
        else:
            extents = self.extents_of(volume.size or self.default_size, group, "storage_config.size", None)
            if volume.snap is not None:
                self._check_holds_snapshot(volume, extents * group.extent, "storage_config")
        if extents > group.free:
            raise InvalidParameter(
                "storage_config.size", shown(volume.size or self.default_size), lvm_lookup.at_most(group, group.free)
            )
        step(f"making the logical volume {group.name}/{name}")
        lvm_programs.create_logical(group.name, name, extents, [_VOLUME_TAG + key, _UNFINISHED])
        made = lvm_lookup.tagged(_VOLUME_TAG + key)
        assert made is not None
        return made

    def _check_holds_snapshot(self, volume: Any, size: int, path: str) -> None:
        needed = self.size_of_snapshot(volume.snap)
        if size < needed:
            raise InvalidParameter(
                f"{path}.size", shown(volume.size), f"at least the {size_in_gigabytes(needed)} GB of the snapshot"
            )

    def _check_existing(self, volume: Any, existing: Logical, path: str) -> None:
        if any(tag.startswith(_VOLUME_TAG) for tag in existing.tags):
            raise AlreadyExists(
                f"This agent made the logical volume {existing.full_name}. Nothing was changed; name it by its id, "
                f"lv-{existing.uuid}.",
                {"id": f"lv-{existing.uuid}"},
            )
        if existing.origin_uuid or volume.snap is not None:
            raise AlreadyExists(
                f"There is a logical volume {existing.full_name}. Nothing was changed; choose another name."
            )
        if volume.size is not None and not isinstance(volume.size, str):
            size = size_in_bytes(volume.size, f"{path}.size", unit=1)
            if size > existing.size:
                raise InvalidParameter(
                    f"{path}.size",
                    shown(volume.size),
                    f"at most the {size_in_gigabytes(existing.size)} GB that {existing.full_name} has: storage.grow",
                )

    def extents_of(self, size: Size | None, group: Group, path: str, room: int | None) -> int:
        """Give a size in extents.

        :param room: how many there may be; None: it is not known yet.
        """
        assert size is not None
        whole = group.extents * group.extent
        extents = -(-size_in_bytes(size, path, {"VG": whole}, group.extent) // group.extent)
        if extents < 1:
            raise InvalidParameter(path, shown(size), f"at least {group.extent} bytes, an extent of {group.name}")
        if room is not None and extents > room:
            raise InvalidParameter(path, shown(size), lvm_lookup.at_most(group, room))
        return extents

    def as_volume(self, volume: Any, found: Logical | None, record: Record | None) -> Any:
        assert found is not None
        disks = self.recorded_disks(record)
        volume = self.with_disks(volume, disks) if disks else volume
        return msgspec.structs.replace(
            volume,
            id=f"lv-{found.uuid}",
            vg=found.group,
            name=found.name,
            size=size_in_gigabytes(found.size),
            device=found.path if found.active else None,
        )

    def _recorded(self, volume: Any, record: Record) -> Any:
        known = {name: record.data.get(name) for name in ("vg", "name", "size")}
        return msgspec.structs.replace(self.with_disks(volume, self.recorded_disks(record)), **known)

    def recorded_disks(self, record: Record | None) -> list[dict[str, Any]]:
        """Give what its group is made of, as recorded: a caller's word for it is not taken."""
        if record is None:
            return []
        data = record.data.get(self.parts_key)
        return [dict(disk) for disk in data or () if isinstance(disk, dict) and disk.get("id")]

    def _parts_are_here(self, record: Record) -> bool:
        """Tell whether nothing of what its group is made of could still be attached: then a group not seen is gone."""
        return all(disk.get("type") == "base" for disk in self.recorded_disks(record))

    def visible_one(self, volume: Any) -> Logical | None:
        uuid = lvm_lookup.uuid_of(volume.id, "lv-")
        return next((one for one in lvm_lookup.visible() if one.uuid == uuid and not one.origin_uuid), None)

    # Groups

    def _note_group(self, key: str, uuid: str) -> None:
        record = self.context.records.find(key)
        if record is not None and record.private.get("vg_uuid") != uuid:
            self.context.records.put(record, private={**record.private, "vg_uuid": uuid})

    def _in_group(self, uuid: str) -> list[Record]:
        return [
            record
            for record in self.context.records.all()
            if record.kind == "volume" and record.private.get("vg_uuid") == uuid
        ]

    def is_ours(self, group: Group) -> bool:
        """Tell whether this agent made a group: it carries our tag, and we have a record of it."""
        tagged = any(tag.startswith(_GROUP_TAG) for tag in group.tags)
        return tagged and bool(self._in_group(group.uuid))

    def _disks_of_group(self, uuid: str) -> list[dict[str, Any]]:
        """Give what a group of ours is made of: as every volume that is or was in it has recorded it."""
        known: dict[str, dict[str, Any]] = {}
        for record in self._in_group(uuid):
            known.update({disk["id"]: disk for disk in self.recorded_disks(record)})
        return list(known.values())

    def _all_disks(self, record: Record | None) -> list[dict[str, Any]]:
        """Give what a volume's group is made of; another volume in it may have added disks."""
        uuid = record.private.get("vg_uuid") if record is not None else None
        return (self._disks_of_group(uuid) if uuid else []) or self.recorded_disks(record)

    def _others_in(self, group: Group, volume: Logical) -> bool:
        return any(
            one.group_uuid == group.uuid and volume.uuid not in (one.uuid, one.origin_uuid)
            for one in lvm_lookup.visible()
        )

    def _remove_empty_group(self, uuid: str) -> bool:
        """Remove a group if it is ours and nothing is left in it.

        :return: whether it was.
        """
        group = next((one for one in lvm_programs.groups() if one.uuid == uuid), None)
        if group is None or group.volumes or not self.is_ours(group):
            return False
        step(f"removing the group {group.name}")
        lvm_programs.remove_group(group.name, lvm_lookup.devices_in(uuid))
        return True

    def fstab_sources(self, volume: Any, uuid: str | None) -> list[str]:
        found = next((one for one in lvm_lookup.visible() if f"lv-{one.uuid}" == volume.id), None)
        names = [found.path, found.mapper_path] if found is not None else []
        return [*super().fstab_sources(volume, uuid), *names]
