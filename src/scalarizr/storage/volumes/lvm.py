"""`lvm`: a logical volume in a group of volumes of any type, with LVM's own snapshots."""

from pathlib import Path
from typing import Any, ClassVar

import msgspec

from scalarizr.errors import InvalidParameter, NotFound, OutsideFailure, Refused
from scalarizr.operations.progress import current
from scalarizr.rpc.types import shown
from scalarizr.storage import block_copy, lvm_lookup, lvm_programs
from scalarizr.storage.context import Still
from scalarizr.storage.logical_volumes import SNAPSHOT_TAG, LogicalVolumes
from scalarizr.storage.lvm_programs import Group, Logical
from scalarizr.storage.model import Size, Volume, size_in_bytes, size_in_gigabytes
from scalarizr.storage.parts import as_dicts, check_parts, destroy_part, give_back_unused, make_noted, noted
from scalarizr.storage.steps import step
from scalarizr.storage.volume_type import growth_to_size

_SNAPSHOT_SIZE = "20%LV"


class LvmVolume(Volume, kw_only=True, frozen=True):
    """A logical volume.

    :param pvs: the volumes that its group is made of: dicts of any type, or paths of devices.
    :param vg: the group's name; one that exists may be named.
    :param name: the logical volume's name; one that exists may be named.
    :param snapshot_size: the space for what a snapshot of it keeps: GB, or a percentage such as `20%LV`.
    """

    pvs: list[Any] | None = None
    vg: str | None = None
    name: str | None = None
    snapshot_size: Size | None = None


class LvmVolumes(LogicalVolumes):
    """Logical volumes."""

    name: ClassVar[str] = "lvm"
    config: ClassVar[type[Volume]] = LvmVolume
    parts_key: ClassVar[str] = "pvs"

    def disks_of(self, volume: Any, path: str = "storage_config") -> list[dict[str, Any]]:
        return as_dicts(volume.pvs, f"{path}.{self.parts_key}")

    def with_disks(self, volume: Any, disks: list[dict[str, Any]]) -> Any:
        return msgspec.structs.replace(volume, pvs=disks)

    def fill(self, volume: Any, made: Logical) -> None:
        snapshot = self._snapshot_of(volume.snap, "storage_config.snap")
        lvm_programs.activate(snapshot)
        words = f"copying the snapshot {volume.snap['id']}"
        step(words)
        block_copy.copy_device(Path(snapshot.path), Path(made.path), snapshot.origin_size, words)

    def size_of_snapshot(self, snap: dict[str, Any]) -> int:
        return self._snapshot_of(snap, "storage_config.snap").origin_size

    def group_of_snapshot(self, snap: dict[str, Any]) -> str | None:
        return self._snapshot_of(snap, "storage_config.snap").group

    # Snapshots

    def snapshot(self, volume: Any, key: str, description: str, tags: dict[str, str], still: Still) -> dict[str, Any]:
        origin = self.visible_one(volume)
        if origin is None or not origin.active:
            raise NotFound(
                f"The logical volume {volume.id} is not attached here. Nothing was changed; attach it first."
            )
        taken = self.take_native_snapshot(volume, origin, key)
        return {
            "type": self.name,
            "id": f"lvsnap-{taken.uuid}",
            "description": description,
            "tags": tags,
            "status": "completed",
            "size": size_in_gigabytes(origin.size),
            "vg": origin.group,
            "name": taken.name,
            "space": size_in_gigabytes(taken.size),
        }

    def take_native_snapshot(self, volume: Any, origin: Logical, key: str) -> Logical:
        """Take LVM's own snapshot.

        LVM itself holds the file system still while it does that, for every file system: it flushes and freezes it in
        the kernel. A second freeze around that is refused by kernels before 6.8, so that there is none.
        """
        group = next(one for one in lvm_programs.groups() if one.uuid == origin.group_uuid)
        extents = self.snapshot_extents(volume, origin, group)
        if extents > group.free:
            room = size_in_gigabytes(group.free * group.extent)
            raise Refused(
                f"The group {group.name} has {room} GB free, and a snapshot of {origin.name} takes "
                f"{size_in_gigabytes(extents * group.extent)} GB. Nothing was changed; set snapshot_size, or grow the "
                f"group by a disk (storage.grow with {self.parts_key}).",
                {"free": room},
            )
        lvm_programs.create_snapshot(origin, f"snap-{key[:12]}", extents, [SNAPSHOT_TAG + key])
        taken = lvm_lookup.tagged(SNAPSHOT_TAG + key)
        assert taken is not None
        return taken

    def snapshot_extents(self, volume: Any, origin: Logical, group: Group) -> int:
        """Give how many extents a snapshot gets."""
        wish = volume.snapshot_size or _SNAPSHOT_SIZE
        wanted = -(-size_in_bytes(wish, "volume.snapshot_size", {"LV": origin.size}) // group.extent)
        return min(max(wanted, 1), self.most_for_snapshot(origin, group))

    def most_for_snapshot(self, origin: Logical, group: Group) -> int:
        """Give how many extents the whole of a volume takes in a snapshot, its bookkeeping included."""
        return -(-(origin.size + origin.size // 100) // group.extent) + 1

    def find_snapshot(self, snapshot: dict[str, Any]) -> dict[str, Any] | None:
        uuid = lvm_lookup.uuid_of(snapshot.get("id"), "lvsnap-")
        found = next((one for one in lvm_lookup.visible() if one.uuid == uuid and one.origin_uuid), None)
        if found is None:
            return None
        return {**snapshot, "status": "invalid" if found.invalid else "completed", "used_percent": found.used}

    def delete_snapshot(self, snapshot: dict[str, Any]) -> None:
        uuid = lvm_lookup.uuid_of(snapshot.get("id"), "lvsnap-")
        found = next((one for one in lvm_lookup.visible() if one.uuid == uuid and one.origin_uuid), None)
        if found is not None:
            lvm_programs.remove_logical(found)

    def give_up_snapshot(self, key: str, volume: Any) -> None:
        taken = lvm_lookup.tagged(SNAPSHOT_TAG + key)
        if taken is not None:
            lvm_programs.remove_logical(taken)

    def _snapshot_of(self, snap: dict[str, Any], path: str) -> Logical:
        """Give the snapshot that a dict names.

        :raises InvalidParameter: it names none of this type.
        :raises NotFound: it is gone, or used up.
        """
        if snap.get("type") != self.name:
            raise InvalidParameter(f"{path}.type", shown(snap.get("type")), f"{self.name}: a snapshot of this type")
        uuid = lvm_lookup.uuid_of(snap.get("id"), "lvsnap-", f"{path}.id")
        found = next((one for one in lvm_lookup.visible() if one.uuid == uuid and one.origin_uuid), None)
        if found is None:
            raise NotFound(f"The snapshot {snap['id']} is not on this host. Nothing was changed.", {"id": snap["id"]})
        if found.invalid:
            raise NotFound(
                f"The snapshot {snap['id']} is invalid: more was written to its origin than it had space for. "
                "Nothing was changed.",
                {"id": snap["id"]},
            )
        return found

    # Growing

    def check_growth(self, volume: Any, growth: dict[str, Any]) -> None:
        size = growth_to_size(growth, ("size", self.parts_key), self.name)
        added = self._added(growth)
        found = self.visible_one(volume)
        if found is None:
            if size is not None:
                size_in_bytes(size, "growth.size", {"VG": 1 << 40})
            return
        snapshots = lvm_lookup.snapshots_of(found)
        if snapshots:
            raise Refused(
                f"{found.full_name} has snapshots ({', '.join(one.name for one in snapshots)}), and LVM "
                "grows no volume that has. Nothing was changed; delete them with storage.destroy_snapshot first.",
                {"snapshots": [one.name for one in snapshots]},
            )
        group = next(one for one in lvm_programs.groups() if one.uuid == found.group_uuid)
        if added and not self.is_ours(group):
            raise Refused(
                f"The group {group.name} was not made by this agent, which adds no disks to it. Nothing was changed."
            )
        members = {lvm_lookup.number_of(device) for device in lvm_lookup.devices_in(group.uuid)}
        for index, disk in enumerate(added):
            if lvm_lookup.number_of(disk.get("device")) in members - {None}:
                raise InvalidParameter(
                    f"growth.{self.parts_key}[{index}]",
                    shown(disk["device"]),
                    f"a disk that {group.name} does not have yet",
                )
        if size is not None:
            room = None if added else group.free + found.size // group.extent
            extents = self.extents_of(size, group, "growth.size", room)
            if not added and extents * group.extent <= found.size:
                expected = f"more than the {size_in_gigabytes(found.size)} GB that it has"
                raise InvalidParameter("growth.size", shown(size), expected)

    def grow(self, volume: Any, growth: dict[str, Any]) -> Any:
        self.check_growth(volume, growth)
        found = self.visible_one(volume)
        assert found is not None
        group = next(one for one in lvm_programs.groups() if one.uuid == found.group_uuid)
        before = group.extents
        disks = self._add_disks(volume, group, self._added(growth))
        group = next(one for one in lvm_programs.groups() if one.uuid == found.group_uuid)
        has = found.size // group.extent
        size = growth.get("size")
        if size is None:
            extents = has + group.extents - before
        else:
            extents = self.extents_of(size, group, "growth.size", group.free + has)
            if extents <= has:
                raise InvalidParameter("growth.size", shown(size), f"more than the {size_in_gigabytes(found.size)} GB")
        lvm_programs.resize_logical(found, extents)
        grown = self.visible_one(volume)
        record = self.context.records.of_id("volume", volume.id)
        result = self.as_volume(volume, grown, record)
        if disks and record is not None:
            record = self.context.records.find(record.key) or record
            data = {**record.data, self.parts_key: disks}
            record = self.context.records.put(record, private=lvm_lookup.without(record.private, "adding"), data=data)
            result = self.with_disks(result, disks)
        return result

    def shrink_back(self, volume: Any, grown: Any) -> None:
        found = self.visible_one(volume)
        if found is None:
            return
        group = next(one for one in lvm_programs.groups() if one.uuid == found.group_uuid)
        before = -(-size_in_bytes(volume.size, "volume.size") // group.extent)
        if found.size // group.extent > before and lvm_lookup.fits(Path(found.path), before * group.extent):
            lvm_programs.resize_logical(found, before)
        self._give_back_added(volume, group)

    def _added(self, growth: dict[str, Any]) -> list[dict[str, Any]]:
        if growth.get(self.parts_key) is None:
            return []
        path = f"growth.{self.parts_key}"
        if not isinstance(growth[self.parts_key], list):
            raise InvalidParameter(path, shown(growth[self.parts_key]), "a list of volumes")
        added = as_dicts(growth[self.parts_key], path)
        check_parts(self.context, added, path)
        return added

    def _add_disks(self, volume: Any, group: Group, added: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Add disks to the group. They are noted before: who undoes this finds them."""
        if not added:
            return []
        record = self.context.records.of_id("volume", volume.id)
        assert record is not None, "a group of ours has a record"
        record = self.context.records.put(record, private={**record.private, "adding": noted(added)})
        made = make_noted(self.context, record.key, "adding")
        for disk in made:
            lvm_lookup.require_unused(disk["device"])
        step(f"adding {', '.join(disk['device'] for disk in made)} to the group {group.name}")
        lvm_programs.extend_group(group.name, [Path(disk["device"]) for disk in made])
        return [*self.recorded_disks(record), *made]

    def _give_back_added(self, volume: Any, group: Group) -> None:
        record = self.context.records.of_id("volume", volume.id)
        notes = record.private.get("adding") if record is not None else None
        if record is None or not notes:
            return
        disks = self.recorded_disks(record)
        for note in notes:
            if note["made"] is None:
                give_back_unused(self.context, note)
            elif self._take_out(group, note["made"]):
                destroy_part(self.context, note["made"])
            else:
                disks.append(note["made"])
        data = {**record.data, self.parts_key: disks}
        self.context.records.put(record, private=lvm_lookup.without(record.private, "adding"), data=data)

    def _take_out(self, group: Group, disk: dict[str, Any]) -> bool:
        """Take a disk that was added out of a group again, where nothing lies on it."""
        number = lvm_lookup.number_of(self.context.nested.attach(disk)["device"])
        label = next(
            (one for one in lvm_programs.physical_volumes() if lvm_lookup.number_of(one.device) == number), None
        )
        if label is None:
            return True
        if not label.group_uuid:
            lvm_programs.remove_label(label.device)
            return True
        try:
            lvm_programs.take_out_of_group(group.name, label.device)
        except OutsideFailure as failure:
            current().log(f"{label.device} stays in the group {group.name}: {failure}")
            return False
        return True
