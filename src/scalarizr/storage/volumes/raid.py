"""`raid`: an MD array of volumes of any type: snapshotted, grown, and mended disk by disk while it is used."""

import contextlib
import time
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from scalarizr.errors import Busy, InvalidParameter, NotFound, NotSupported, OutsideFailure, Refused, ScalarizrError
from scalarizr.rpc.types import shown
from scalarizr.storage import devices, filesystems, md_arrays
from scalarizr.storage.array_volumes import FEWEST, ArrayVolumes, failed_disks, listed, status_of, uuid_of, without
from scalarizr.storage.context import Still
from scalarizr.storage.md_arrays import Array
from scalarizr.storage.model import Volume, size_in_bytes
from scalarizr.storage.parts import as_dicts, check_parts, destroy_part, give_back_unused, make_noted, noted
from scalarizr.storage.records import Record
from scalarizr.storage.steps import step

# md(4), "safe_delay": so long after the last write an array notes on its disks that it is clean.
_QUIET_WITHIN = 1.0


class RaidVolume(Volume, kw_only=True, frozen=True):
    """An array.

    :param disks: the volumes that it is made of: dicts of any type, or paths of devices.
    :param level: 0, 1, 5 or 10.
    :param status: clean, degraded, recovering, resyncing, reshaping, checking, failed. Told, never believed.
    :param failed_disks: which of its disks do not work, from 0. Told, never believed.
    """

    disks: list[Any] | None = None
    level: int | None = None
    status: str | None = None
    failed_disks: list[int] | None = None


class RaidVolumes(ArrayVolumes):
    """Arrays."""

    name: ClassVar[str] = "raid"
    config: ClassVar[type[Volume]] = RaidVolume

    def check(self, volume: Any, path: str) -> None:
        level, disks = volume.level, as_dicts(volume.disks, f"{path}.disks")
        if volume.snap is not None:
            snap = self.checked_snapshot(volume.snap, f"{path}.snap")
            if level not in (None, snap["level"]):
                raise InvalidParameter(
                    f"{path}.level", shown(level), f"{snap['level']}, which the snapshot's array had"
                )
            level = snap["level"]
            disks = self.disks_from(disks, snap, path)
        if level not in FEWEST:
            raise InvalidParameter(f"{path}.level", shown(level) if level is not None else None, "0, 1, 5 or 10")
        if len(disks) < FEWEST[level]:
            expected = f"at least {FEWEST[level]} volumes for RAID {level}"
            raise InvalidParameter(f"{path}.disks", shown(len(disks)), expected)
        if volume.size is not None:
            expected = "no size: it follows from its disks and its level"
            raise InvalidParameter(f"{path}.size", shown(volume.size), expected)
        md_arrays.require_md(self.context.host, level)
        check_parts(self.context, disks, f"{path}.disks")

    # Snapshots

    def snapshot(self, volume: Any, key: str, description: str, tags: dict[str, str], still: Still) -> dict[str, Any]:
        array = self.array_of(uuid_of(volume.id))
        if array is not None and array.running:
            if array.missing:
                raise Refused(
                    f"The array {volume.id} is degraded: disk {listed(failed_disks(array))} does not work, and a "
                    "snapshot of the others would be one without redundancy. Nothing was changed; replace it first "
                    "(storage.replace_raid_disk).",
                    {"failed_disks": list(failed_disks(array))},
                )
            if array.action in ("reshape", "recover"):
                raise Busy(f"The array {volume.id} is {status_of(array)}. Nothing was changed; try again later.")
        with still():
            if array is not None and array.running:
                self._wait_until_quiet(array)
            taken = [self.context.nested.snapshot(disk, description, tags) for disk in volume.disks]
        states = {str(one.get("status", "completed")) for one in taken}
        return {
            "type": self.name,
            "id": f"raid-snap-{key}",
            "description": description,
            "tags": tags,
            "status": "completed" if states <= {"completed"} else sorted(states - {"completed"})[0],
            "size": volume.size,
            "level": volume.level,
            "array": uuid_of(volume.id),
            "disks": taken,
        }

    def find_snapshot(self, snapshot: dict[str, Any]) -> dict[str, Any] | None:
        record = self.context.records.of_id("snapshot", str(snapshot.get("id")))
        return snapshot if record is not None and record.state == "present" else None

    def delete_snapshot(self, snapshot: dict[str, Any]) -> None:
        for one in snapshot.get("disks") or ():
            with contextlib.suppress(NotFound):
                self.context.nested.destroy_snapshot(one)

    # Growing

    def check_growth(self, volume: Any, growth: dict[str, Any]) -> None:
        known = ("disks", "disks_count", "add_disks")
        for name, value in growth.items():
            if name not in known:
                expected = f"one of the keys that {self.name} grows by: {', '.join(known)}"
                raise InvalidParameter(f"growth.{name}", shown(value), expected)
        if not growth.get("disks") and growth.get("disks_count") is None:
            raise InvalidParameter(
                "growth", shown(growth), "an object with disks (a growth of each), disks_count, or both"
            )
        if growth.get("disks") is not None and not isinstance(growth["disks"], dict):
            raise InvalidParameter("growth.disks", shown(growth["disks"]), "an object: the growth of each disk")
        if volume.level == 0:
            raise NotSupported(
                "An array of level 0 does not grow. Nothing was changed; make a larger one from a snapshot of it."
            )
        count = growth.get("disks_count")
        has = len(volume.disks or ())
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or not has <= count <= 64):
            raise InvalidParameter("growth.disks_count", shown(count), f"a number of disks, more than the {has} it has")
        if count == has and not growth.get("disks") and not _file_system_lags(volume):
            raise InvalidParameter("growth.disks_count", shown(count), f"more than the {has} disks that it has")
        check_parts(self.context, self._new_disks(volume, growth), "growth.add_disks")
        array = self.array_of(uuid_of(volume.id))
        if array is not None and array.running:
            self._require_whole(array, volume.id)

    def grow(self, volume: Any, growth: dict[str, Any]) -> Any:
        self.check_growth(volume, growth)
        uuid = uuid_of(volume.id)
        array = self.running_array(uuid)
        record = self.context.records.of_id("volume", volume.id)
        if growth.get("disks"):
            disks = []
            for index, disk in enumerate(volume.disks):
                step(f"growing disk {index} of {volume.id}")
                disks.append(self._grown(disk, growth["disks"]))
            volume = msgspec.structs.replace(volume, disks=disks)
            if record is not None:
                record = self.context.records.put(record, data={**record.data, "disks": disks})
            md_arrays.use_all_of_the_disks(array)
        added = self._new_disks(volume, growth)
        if added:
            assert record is not None
            count = len(volume.disks) + len(added)
            record = self.context.records.put(record, private={**record.private, "adding": noted(added)})
            made = make_noted(self.context, record.key, "adding")
            for disk in made:
                md_arrays.add(array, disk["device"])
            step(f"spreading {volume.id} over {count} disks")
            md_arrays.use_more_disks(array, count)
            record = self.context.records.find(record.key) or record
            data = {**record.data, "disks": [*volume.disks, *made]}
            record = self.context.records.put(record, private=without(record.private, "adding"), data=data)
            md_arrays.wait_until_synchronised(
                self.context.host,
                uuid,
                f"reshaping {volume.id}",
                lambda array: array.disks == count and not array.missing,
            )
        return self.as_volume(volume, self.running_array(uuid), record)

    def shrink_back(self, volume: Any, grown: Any) -> None:
        record = self.context.records.of_id("volume", volume.id)
        notes = record.private.get("adding") if record is not None else None
        array = self.array_of(uuid_of(volume.id))
        if record is None or not notes or array is None:
            return
        made = [note["made"] for note in notes if note["made"] is not None]
        before = self.recorded_disks(record)
        if array.disks > len(before):
            # It is being spread over them already, and goes on.
            data = {**record.data, "disks": [*before, *made]}
            self.context.records.put(record, private=without(record.private, "adding"), data=data)
            return
        for disk in made:
            self._take_out(array, disk)
        for note in notes:
            give_back_unused(self.context, note)
        self.context.records.put(record, private=without(record.private, "adding"))

    def _take_out(self, array: Array, disk: dict[str, Any]) -> None:
        """Take a disk that was added out of an array again, and give it back."""
        device = self.context.nested.attach(disk)["device"]
        md_arrays.take_out(array, device)
        if md_arrays.uuid_on(device) == array.uuid:
            md_arrays.forget(device)
        destroy_part(self.context, disk)

    # Replacing a disk

    def replace_disk(self, volume: Any, index: int, disk: dict[str, Any]) -> Any:
        """Put another disk in the place of one, which is given back. The array is used meanwhile, and stays whole.

        A disk that works is copied, and leaves only when the copy is complete.

        :param volume: the array, as `find` gave it.
        :param index: which disk, from 0.
        :param disk: the dict of the new one, or the path of a device.
        :return: the array as it is then.
        :raises NotSupported: its level has no redundancy.
        :raises Busy: it is being synchronised.
        """
        if volume.level == 0:
            raise NotSupported("An array of level 0 has no redundancy: no disk can be replaced. Nothing was changed.")
        disk = as_dicts([disk], "disk")[0]
        check_parts(self.context, [disk], "disk")
        uuid = uuid_of(volume.id)
        array = self.running_array(uuid)
        record = self.context.records.of_id("volume", volume.id)
        if record is None:
            raise NotFound(f"This agent has no record of {volume.id}. Nothing was changed.")
        if not 0 <= index < array.disks:
            raise InvalidParameter("index", shown(index), f"0 to {array.disks - 1}")
        if array.action not in ("idle", "check"):
            raise Busy(f"The array {volume.id} is {status_of(array)}. Nothing was changed; try again when it is not.")
        if failed_disks(array) not in ([], [index]):
            raise Refused(
                f"Disk {listed(failed_disks(array))} of {volume.id} does not work, and is to be replaced first. "
                "Nothing was changed.",
                {"failed_disks": list(failed_disks(array))},
            )
        notes = [{**note, "index": index} for note in noted([disk])]
        record = self.context.records.put(record, private={**record.private, "replacing": notes})
        (new,) = make_noted(self.context, record.key, "replacing")
        old = array.member_at(index)
        step(f"replacing disk {index} of {volume.id} by {new['device']}")
        md_arrays.add(array, new["device"])
        if old is not None and old.working:
            md_arrays.replace(array, old.device, new["device"])

        def in_its_place(array: Array) -> bool:
            member = array.member_of(new["device"])
            return member is not None and member.working and member.place == index

        words = f"copying disk {index} of {volume.id}"
        array = md_arrays.wait_until_synchronised(self.context.host, uuid, words, in_its_place)
        if not in_its_place(array):
            raise OutsideFailure(
                f"{new['device']} did not become disk {index} of {volume.id}: the kernel's messages say why. The array "
                "is as it was."
            )
        record = self.context.records.find(record.key) or record
        self._finish_replacement(record, array, new)
        return self.as_volume(volume, self.running_array(uuid), self.context.records.find(record.key))

    def give_up_replacement(self, volume: Any) -> None:
        """End a replacement that was cut off: complete it where the new disk is in its place, else take that out."""
        record = self.context.records.of_id("volume", volume.id)
        notes = record.private.get("replacing") if record is not None else None
        if record is None or not notes:
            return
        note = notes[0]
        if note["made"] is not None:
            array = self.running_array(uuid_of(volume.id))
            new = self.context.nested.attach(note["made"])
            member = array.member_of(new["device"])
            old = array.member_at(note["index"])
            if member is not None and (old is None or not old.working or old.device == member.device):
                # It has taken the place, or is about to: the old one is of no use any more.
                self._finish_replacement(record, array, new)
                return
            self._take_out(array, new)
            if old is not None:
                md_arrays.keep(self.context.host, array, old)
        give_back_unused(self.context, note)
        self.context.records.put(record, private=without(record.private, "replacing"))

    def _finish_replacement(self, record: Record, array: Array, new: dict[str, Any]) -> None:
        index = record.private["replacing"][0]["index"]
        disks = self.recorded_disks(record)
        old, disks[index] = disks[index], new
        leavers = [one for one in array.members if "faulty" in one.states]
        for member in leavers:
            md_arrays.take_out(array, member.device)
        # From here on a repetition finds the new one in its place.
        self.context.records.put(
            record, private=without(record.private, "replacing"), data={**record.data, "disks": disks}
        )
        for member in leavers:
            if md_arrays.uuid_on(member.device) == array.uuid:
                with contextlib.suppress(OutsideFailure):  # one that is broken cannot be written to
                    md_arrays.forget(member.device)
        step(f"giving back {old.get('id')}")
        destroy_part(self.context, old)

    # What several of these need

    def _new_disks(self, volume: Any, growth: dict[str, Any]) -> list[dict[str, Any]]:
        """Give the dicts of the disks that a growth adds: those that are named, else more of the first one's kind."""
        has = len(volume.disks or ())
        count = growth.get("disks_count") or has
        named = growth.get("add_disks")
        if named is not None and not isinstance(named, list):
            raise InvalidParameter("growth.add_disks", shown(named), "a list of volumes")
        added = as_dicts(named, "growth.add_disks")
        if added and len(added) != count - has:
            raise InvalidParameter("growth.add_disks", shown(len(added)), f"as many as are added: {count - has}")
        if added or count <= has:
            return added
        first = dict(volume.disks[0])
        if first.get("type") == "base":
            raise InvalidParameter("growth.add_disks", None, f"the {count - has} disks that are added")
        own = ("id", "device", "snap", "client_token", "file", "name")
        like = {name: value for name, value in first.items() if name not in own and value is not None}
        like.update({name: value for name, value in (growth.get("disks") or {}).items() if name != "disks"})
        return [dict(like) for _one in range(count - has)]

    def _grown(self, disk: dict[str, Any], growth: dict[str, Any]) -> dict[str, Any]:
        size = growth.get("size")
        if set(growth) == {"size"} and isinstance(size, int | float) and disk.get("device"):
            with contextlib.suppress(ScalarizrError):
                if devices.device_size(Path(disk["device"])) >= size_in_bytes(size, "growth.disks.size"):
                    return disk
        return {**disk, **self.context.nested.grow(disk, growth)}

    def _require_whole(self, array: Array, identity: str) -> None:
        if array.missing:
            raise Refused(
                f"The array {identity} is degraded: disk {listed(failed_disks(array))} does not work. Nothing was "
                "changed; replace it first (storage.replace_raid_disk).",
                {"failed_disks": list(failed_disks(array))},
            )
        if array.action not in ("idle", "check"):
            raise Busy(f"The array {identity} is {status_of(array)}. Nothing was changed; try again when it is not.")

    def _wait_until_quiet(self, array: Array) -> None:
        deadline = time.monotonic() + _QUIET_WITHIN
        while not md_arrays.is_quiet(self.context.host, array) and time.monotonic() < deadline:
            time.sleep(0.02)


def _file_system_lags(volume: Any) -> bool:
    """Tell whether the file system did not grow with its array: an earlier growth was cut off before."""
    if volume.device is None:
        return False
    device = Path(volume.device)
    fstype = devices.contents(device).fstype
    return fstype is not None and filesystems.filesystem_size(device, fstype) < devices.device_size(device)
