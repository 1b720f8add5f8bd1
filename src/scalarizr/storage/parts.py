"""The volumes that another is made of, as its type sees them: their dicts, their making, their records."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scalarizr.errors import InvalidParameter, NotFound
from scalarizr.rpc.types import shown
from scalarizr.storage import block_copy, devices
from scalarizr.storage.context import Context
from scalarizr.storage.model import parse
from scalarizr.storage.records import key_of_token, new_key
from scalarizr.storage.registry import find_type

_MOST = 64


def as_dicts(disks: Sequence[Any] | None, path: str) -> list[dict[str, Any]]:
    """Give the dicts of volumes of which some came as the path of a device.

    :raises InvalidParameter: one is neither.
    """
    found = []
    for index, disk in enumerate(disks or ()):
        if isinstance(disk, str):
            found.append({"type": "base", "device": disk})
        elif isinstance(disk, Mapping):
            found.append(dict(disk))
        else:
            raise InvalidParameter(f"{path}[{index}]", shown(disk), "a volume's dict, or the path of a device")
    if len(found) > _MOST:
        raise InvalidParameter(path, str(len(found)), f"at most {_MOST} volumes")
    return found


def check_parts(context: Context, disks: Sequence[dict[str, Any]], path: str) -> None:
    """Refuse, before the first is made, what is no volume or cannot be made, and what is named twice.

    :raises InvalidParameter: with which one.
    """
    seen: set[str] = set()
    for index, disk in enumerate(disks):
        place = f"{path}[{index}]"
        kind = find_type(disk.get("type"), place)
        volume = parse(kind.config, disk, place)
        if kind.memory_only:
            raise InvalidParameter(f"{place}.type", kind.name, "a type of volume that is a block device")
        if volume.mpoint is not None:
            raise InvalidParameter(f"{place}.mpoint", shown(volume.mpoint), "no mount point: it is a part of another")
        if volume.id is None and not kind.lets_go:
            kind(context).check(volume, place)
        names = [f"id {volume.id}"] if volume.id is not None else []
        if volume.id is None and volume.device is not None:
            names.append(f"device {Path(volume.device).resolve()}")
        for name in names:
            if name in seen:
                raise InvalidParameter(place, name, "another volume than those before it")
            seen.add(name)


def noted(disks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the notes of volumes that are about to be made, for the record of what they are to be a part of."""
    return [{"key": new_key(), "disk": disk, "made": None} for disk in disks]


def make_noted(context: Context, key: str, name: str) -> list[dict[str, Any]]:
    """Make the volumes that a finished volume is to be made of from now on, as noted in its record.

    :param key: of that record.
    :param name: of the list of notes among its private ones. Each is completed as soon as its volume is there and was
        found empty: what is not complete was perhaps never ours to use.
    """
    made = []
    for index in range(len(_notes(context, key, name))):
        notes = _notes(context, key, name)
        volume = context.nested.make(notes[index]["disk"], notes[index]["key"])
        record = context.records.of_id("volume", volume["id"])
        if record is not None:
            # Not undone by itself any more.
            context.records.put(record, parent=key, attempt="")
        notes[index]["made"] = volume
        whole = context.records.find(key)
        assert whole is not None
        context.records.put(whole, private={**whole.private, name: notes})
        made.append(volume)
    return made


def _notes(context: Context, key: str, name: str) -> list[dict[str, Any]]:
    record = context.records.find(key)
    return [dict(note) for note in (record.private.get(name) or ())] if record is not None else []


def give_back_unused(context: Context, note: dict[str, Any]) -> None:
    """Delete what was made under a note that is not complete. What was there before is left alone."""
    record = context.records.find(key_of_token(f"part {note['key']}"))
    if record is not None and record.ours and record.id is not None and record.state != "destroyed":
        destroy_part(context, {"type": record.type, "id": record.id})


def destroy_part(context: Context, disk: dict[str, Any]) -> None:
    """Delete a part that this agent made, and let go any other; what is gone already stays so."""
    record = context.records.of_id("volume", str(disk.get("id")))
    if find_type(disk.get("type"), "disks").lets_go:
        # Its name may be another device's by now, which is not touched: after a boot, or where a disk was taken out.
        if record is not None:
            notes = {name: note for name, note in record.private.items() if name not in ("part_of", "found_blank_by")}
            context.records.put(record, state="detached", private=notes)
        return
    try:
        if record is not None and record.ours:
            context.nested.destroy(disk, True)
        else:
            context.nested.detach(disk, True)
    except NotFound:
        return


def make_blank_again(context: Context, key: str) -> None:
    """Make zeros again of the ends of disks that were there before, and were to be a part of what is given up.

    Only of those that the very call that is given up has found blank, and on which nothing is found any more but
    remains without a signature: those of labels and superblocks that it wrote itself.
    """
    whole = context.records.find(key)
    if whole is None or whole.state != "making" or not whole.attempt:
        return
    for record in context.records.all():
        device = record.data.get("device")
        if record.ours or not device or record.private.get("part_of") != key:
            continue
        if record.private.get("found_blank_by") != whole.attempt or not Path(device).exists():
            continue
        holds = devices.contents(Path(device))
        if not holds.empty and all(words.startswith("data that is not zeros") for words in holds.found):
            # Exclusively: the kernel refuses it where somebody has taken the device meanwhile.
            block_copy.clear_ends(Path(device))
