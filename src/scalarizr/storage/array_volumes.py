"""An array's life: made of volumes of any type, found by its UUID, started and stopped, and taken apart.

What it is made of is recorded; which device is which of its disks is what the devices themselves say.
"""

import contextlib
import os
from pathlib import Path
from typing import Any

import msgspec

from scalarizr.errors import InvalidParameter, NotFound, OutsideFailure, Refused
from scalarizr.rpc.types import shown
from scalarizr.storage import devices, md_arrays
from scalarizr.storage.block_tree import built_on, name_of
from scalarizr.storage.md_arrays import Array
from scalarizr.storage.model import size_in_gigabytes
from scalarizr.storage.parts import as_dicts, destroy_part, make_blank_again
from scalarizr.storage.records import Record
from scalarizr.storage.steps import step, wait_until
from scalarizr.storage.volume_type import VolumeType

FEWEST = {0: 2, 1: 2, 5: 3, 10: 2}
PREFIX = "md-uuid-"
_APPEARS_WITHIN = 30.0


class ArrayVolumes(VolumeType):
    """Arrays, but for what is done with one that runs: `volumes.raid`."""

    def find(self, volume: Any) -> Any | None:
        uuid = uuid_of(volume.id)
        record = self.context.records.of_id("volume", volume.id)
        array = self.array_of(uuid)
        if array is not None and array.running:
            return self.as_volume(volume, array, record)
        if record is None or record.state == "destroyed":
            return None
        disks = self.recorded_disks(record)
        if array is None and all(disk.get("type") == "base" for disk in disks) and not self._devices_with(uuid):
            return None
        known = {name: record.data.get(name) for name in ("level", "size")}
        return msgspec.structs.replace(volume, disks=disks, device=None, status=None, failed_disks=None, **known)

    def find_made(self, volume: Any, key: str) -> Any | None:
        array = self.array_of(md_arrays.uuid_of_key(key))
        if array is None or not array.running:
            return None
        return self.as_volume(volume, array, self.context.records.find(key))

    def make(self, volume: Any, key: str) -> tuple[Any, bool]:
        uuid = md_arrays.uuid_of_key(key)
        array = self.array_of(uuid)
        if array is None or not array.running:
            if array is not None:
                md_arrays.stop(array)
            disks = as_dicts(volume.disks, "storage_config.disks")
            level = volume.level
            if volume.snap is not None:
                snap = self.checked_snapshot(volume.snap, "storage_config.snap")
                level = snap["level"]
                disks = self.disks_from(disks, snap, "storage_config")
                self._check_original(snap)
            made = [self.context.nested.make(disk, f"{key} {index}") for index, disk in enumerate(disks)]
            self._note(key, {"disks": made, "level": level})
            names = [disk["device"] for disk in made]
            step(f"making an array of level {level} of {', '.join(names)}")
            if volume.snap is not None:
                self._assemble_copy(key, uuid, names)
            else:
                self._create(key, uuid, level, names)
        array = self.array_of(uuid)
        if array is None or not array.running:
            raise OutsideFailure(f"The array {uuid} did not start. Look at the kernel's messages.")
        return self.as_volume(volume, array, self.context.records.find(key)), True

    def attach(self, volume: Any) -> Any:
        uuid = uuid_of(volume.id)
        record = self.context.records.of_id("volume", volume.id)
        array = self.array_of(uuid)
        if array is None or not array.running:
            array = self._start(uuid, record)
        return self.as_volume(volume, array, record)

    def detach(self, volume: Any, force: bool) -> None:
        array = self.array_of(uuid_of(volume.id))
        if array is not None:
            md_arrays.stop(array)
        for disk in self.recorded_disks(self.context.records.of_id("volume", volume.id)):
            if disk.get("type") != "base":
                with contextlib.suppress(NotFound):
                    self.context.nested.detach(disk, force)

    def delete(self, volume: Any, force: bool) -> None:  # noqa: ARG002  nothing is taken by force here
        uuid = uuid_of(volume.id)
        disks = self.recorded_disks(self.context.records.of_id("volume", volume.id))
        for disk in disks:
            if not self._goes_with_it(disk):
                # What stays is not a part of anything any more.
                with contextlib.suppress(NotFound):
                    self.context.nested.attach(disk)
        self._forget(uuid)
        for disk in disks:
            destroy_part(self.context, disk)

    def give_up(self, volume: Any, key: str) -> None:  # noqa: ARG002  found by the key alone
        for array in self._arrays_of_parts(key):
            md_arrays.stop(array)
        self._forget(md_arrays.uuid_of_key(key))
        make_blank_again(self.context, key)

    # What it is made of

    def array_of(self, uuid: str) -> Array | None:
        return md_arrays.find_array(self.context.host, uuid)

    def running_array(self, uuid: str) -> Array:
        array = self.array_of(uuid)
        if array is None or not array.running:
            raise NotFound(f"The array {uuid} does not run here. Nothing was changed; attach it first.")
        return array

    def _devices_with(self, uuid: str) -> list[str]:
        return md_arrays.devices_with(self.context.host, uuid)

    def _create(self, key: str, uuid: str, level: int, names: list[str]) -> None:
        record = self.context.records.find(key)
        ours = [name for name in names if md_arrays.uuid_on(name) == uuid]
        if ours and len(ours) == len(names):
            md_arrays.assemble(_array_name(key), uuid, names)
            return
        if ours and (record is None or record.formatted):
            raise Refused(
                f"{', '.join(ours)} belong to an array that held data, and others of its disks do not. Nothing was "
                "changed; look at them with mdadm --examine."
            )
        for name in ours:
            # A first try was cut off between one disk and the next.
            md_arrays.forget(name)
        for name in names:
            holds = devices.contents(Path(name))
            if not holds.empty and not (name in ours and holds.fstype is None and not holds.found[1:]):
                raise Refused(
                    f"{name} is not used: it holds {', '.join(holds.found)}. Nothing on it was changed.",
                    {"device": name, "found": list(holds.found)},
                )
        md_arrays.create(_array_name(key), uuid, level, names)

    def _assemble_copy(self, key: str, uuid: str, names: list[str]) -> None:
        """Start an array of copies of another's disks under a UUID of its own."""
        md_arrays.settle()
        for array in self._arrays_over(names):
            # udev may have begun to put the copies together as what they say they are.
            if {os.path.realpath(one.device) for one in array.members} <= {os.path.realpath(name) for name in names}:
                md_arrays.stop(array)
            else:
                raise Refused(
                    f"A copy was taken into the array {array.name} that it is a copy of. It was not made into an array "
                    f"of its own; take it out with mdadm {array.device} --fail … --remove …."
                )
        found = {md_arrays.uuid_on(name) for name in names}
        if found == {uuid}:
            md_arrays.assemble(_array_name(key), uuid, names)
        elif len(found) == 1:
            md_arrays.assemble(_array_name(key), uuid, names, renamed=True)
        else:
            raise OutsideFailure("The snapshots are not those of the disks of one array. Nothing was changed.")

    def _start(self, uuid: str, record: Record | None) -> Array:
        missing = []
        here = []
        for disk in self.recorded_disks(record):
            try:
                here.append(self.context.nested.attach(disk)["device"])
            except NotFound:
                missing.append(str(disk.get("id")))
        md_arrays.settle()
        array = self.array_of(uuid)
        if array is not None and array.running:
            return array
        if array is not None:
            md_arrays.stop(array)
        names = [name for name in here if md_arrays.uuid_on(name) == uuid]
        if len(names) < len(here) or missing:
            # Names of devices change from boot to boot.
            names = self._devices_with(uuid)
        if not names:
            raise NotFound(f"None of the disks of the array {uuid} is here. Nothing was changed.")
        expected = int(md_arrays.superblock(names[0]).get("MD_DEVICES", "0"))
        step(f"starting the array of {', '.join(names)}")
        md_arrays.assemble(
            _array_name(record.key if record is not None else uuid[:8]),
            uuid,
            names,
            degraded=len(names) < expected and record is not None and record.data.get("level") != 0,
        )
        return wait_until(lambda: self._started(uuid), f"waiting for the array {uuid}", limit=_APPEARS_WITHIN)

    def _started(self, uuid: str) -> Array | None:
        array = self.array_of(uuid)
        return array if array is not None and array.running else None

    def _forget(self, uuid: str) -> None:
        """Stop an array, and take its superblock off all its disks that are here."""
        for _time in range(3):
            array = self.array_of(uuid)
            if array is not None:
                md_arrays.stop(array)
            names = self._devices_with(uuid)
            if not names:
                return
            for name in names:
                with contextlib.suppress(OutsideFailure):  # udev has just taken it up again
                    md_arrays.forget(name)
        if self.array_of(uuid) is not None or self._devices_with(uuid):
            raise OutsideFailure(f"The superblocks of the array {uuid} could not be taken off its disks.")

    def _arrays_over(self, names: list[str]) -> list[Array]:
        host = self.context.host
        holders = {
            name_of(host, number) for name in names for number in built_on(host, devices.device_number(Path(name)))
        }
        return [one for one in md_arrays.arrays(host) if one.name in holders]

    def _arrays_of_parts(self, key: str) -> list[Array]:
        """Give the arrays that consist of nothing but parts of a volume that is being made."""
        names = [
            record.data["device"]
            for record in self.context.records.all()
            if record.parent == key and record.data.get("device") and Path(record.data["device"]).exists()
        ]
        real = {os.path.realpath(name) for name in names}
        return [
            one
            for one in self._arrays_over(names)
            if {os.path.realpath(member.device) for member in one.members} <= real
        ]

    def _check_original(self, snap: dict[str, Any]) -> None:
        array = self.array_of(snap["array"])
        if array is not None and (array.missing or not array.running):
            raise Refused(
                "The array that the snapshot was taken of is here and lacks a disk: a copy could be taken for that "
                "one. Nothing was made; mend it first (storage.replace_raid_disk), or use another server."
            )

    def checked_snapshot(self, snap: dict[str, Any], path: str) -> dict[str, Any]:
        """Check a snapshot's dict, which may come from another server.

        :raises InvalidParameter: it is none of this type.
        """
        if snap.get("type") != self.name:
            raise InvalidParameter(f"{path}.type", shown(snap.get("type")), f"{self.name}: a snapshot of this type")
        if type(snap.get("level")) is not int or snap["level"] not in FEWEST:
            raise InvalidParameter(f"{path}.level", shown(snap.get("level")), "0, 1, 5 or 10")
        if not isinstance(snap.get("array"), str) or not md_arrays.is_uuid(snap["array"]):
            raise InvalidParameter(f"{path}.array", shown(snap.get("array")), "the UUID of an array")
        disks = snap.get("disks")
        if not isinstance(disks, list) or not all(isinstance(one, dict) for one in disks):
            raise InvalidParameter(f"{path}.disks", shown(disks), "a list of snapshots")
        return snap

    def disks_from(self, disks: list[dict[str, Any]], snap: dict[str, Any], path: str) -> list[dict[str, Any]]:
        """Give the dicts of the disks of a volume that is made from a snapshot."""
        if disks and len(disks) != len(snap["disks"]):
            expected = f"as many as the snapshot has: {len(snap['disks'])}"
            raise InvalidParameter(f"{path}.disks", shown(len(disks)), expected)
        wishes = disks or [{"type": one.get("type")} for one in snap["disks"]]
        return [{**wish, "snap": one} for wish, one in zip(wishes, snap["disks"], strict=True)]

    def _goes_with_it(self, disk: dict[str, Any]) -> bool:
        record = self.context.records.of_id("volume", str(disk.get("id")))
        return record is not None and record.ours

    def _note(self, key: str, data: dict[str, Any]) -> None:
        record = self.context.records.find(key)
        if record is not None:
            self.context.records.put(record, data={**record.data, **data})

    def recorded_disks(self, record: Record | None) -> list[dict[str, Any]]:
        data = record.data.get("disks") if record is not None else None
        return [dict(disk) for disk in data or () if isinstance(disk, dict) and disk.get("id")]

    def as_volume(self, volume: Any, array: Array, record: Record | None) -> Any:
        disks = self.recorded_disks(record) or volume.disks
        return msgspec.structs.replace(
            volume,
            id=f"{PREFIX}{array.uuid}",
            device=array.device,
            disks=disks,
            level=array.level,
            size=size_in_gigabytes(devices.device_size(Path(array.device))),
            status=status_of(array),
            failed_disks=failed_disks(array),
        )


def failed_disks(array: Array) -> list[int]:
    """Give which of an array's disks do not work, from 0."""
    if not array.missing:
        return []
    working = {one.place for one in array.members if one.working}
    return [place for place in range(array.disks) if place not in working]


def status_of(array: Array) -> str:
    """Say in a word how an array is."""
    if not array.running or array.state == "broken":
        return "failed"
    words = {"recover": "recovering", "resync": "resyncing", "reshape": "reshaping", "check": "checking"}
    return words.get(array.action) or ("degraded" if array.missing else "clean")


def listed(places: list[int]) -> str:
    """Write disks one behind the other."""
    return ", ".join(str(place) for place in places)


def _array_name(key: str) -> str:
    return f"scalarizr-{key[:12]}"


def uuid_of(identity: object) -> str:
    """Give the UUID that is in an id.

    :raises InvalidParameter: it is no id of ours.
    """
    text = identity if isinstance(identity, str) else ""
    uuid = text.removeprefix(PREFIX)
    if not text.startswith(PREFIX) or not md_arrays.is_uuid(uuid):
        raise InvalidParameter(
            "volume.id", shown(identity), f"an id that begins with {PREFIX}, as storage.create gave it"
        )
    return uuid


def without(private: dict[str, Any], name: str) -> dict[str, Any]:
    """Give a record's private notes without one."""
    return {key: value for key, value in private.items() if key != name}
