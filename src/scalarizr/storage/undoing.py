"""What puts things back where a call did not end well: named in an operation's notes, called by its worker, or by
another one after a kill. Each may be called again and again, and leaves alone what a later call took over."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from scalarizr.operations.progress import current
from scalarizr.storage import devices, mounting
from scalarizr.storage.catalogue import completed
from scalarizr.storage.model import Volume, as_dict
from scalarizr.storage.opening import open_storage
from scalarizr.storage.records import Record
from scalarizr.storage.storage import Storage
from scalarizr.storage.volume_type import VolumeType


def give_up_creation(etc: str, key: str, attempt: str) -> None:
    """Take back what one call of `storage.create` did.

    :param etc: the agent's configuration directory.
    :param key: the volume's record.
    :param attempt: the call.
    """
    storage = open_storage(Path(etc))
    with _own(storage, key, attempt) as record:
        if record is None:
            return
        kind, volume = _recorded(storage, record)
        found = kind.find(volume) if record.id is not None else kind.find_made(volume, key)
        if record.in_fstab is not None:
            device = Path(found.device) if found is not None and found.device else None
            uuid = devices.contents(device).uuid if device else None
            storage.fstab.remove("storage.create", kind.fstab_sources(found or volume, uuid), record.in_fstab)
        if record.mounted is not None:
            _unmount(storage, kind, found, record.mounted)
        if record.state != "making":
            if record.attached and found is not None:
                # Where it is attached and its device has not appeared, nobody uses it.
                kind.detach(found, found.device is None)
            storage.records.put(record, attempt="", attached=False, mounted=None, in_fstab=None)
            return
        _give_up(storage, kind, record, volume)


def _give_up(storage: Storage, kind: VolumeType, record: Record, volume: Any) -> None:
    """Delete a volume that was being made, and what it was to be made of."""
    found = kind.find(volume) if record.id is not None else kind.find_made(volume, record.key)
    if found is not None and found.device is not None:
        holders = devices.holders(storage.host, Path(found.device))
        if holders:
            # Made for something that has taken it up since, such as an array that grows onto it: its data is there now.
            current().log(f"{found.id} is {', '.join(holders)}, and stays")
            storage.records.put(record, state="present", attempt="", id=found.id, ours=True, data=as_dict(found))
            return
    kind.give_up(found or volume, record.key)
    _give_up_parts(storage, record.key)
    storage.records.forget(record)


def _unmount(storage: Storage, kind: VolumeType, found: Any, mpoint: str) -> None:
    if kind.memory_only:
        mounted = mpoint in mounting.memory_mount_points(storage.host)
    else:
        mounted = (
            found is not None
            and bool(found.device)
            and mpoint in mounting.mount_points(storage.host, Path(found.device))
        )
    if mounted:
        mounting.unmount(storage.host, Path(mpoint), force=True)
    mounting.remove_made_directory(Path(mpoint))


def _give_up_parts(storage: Storage, key: str) -> None:
    """Give back the volumes that the one given up was to be made of."""
    for part in storage.records.all():
        if part.parent == key and part.state != "destroyed":
            kind, volume = _recorded(storage, part)
            if part.state == "making":
                _give_up(storage, kind, part, volume)
            elif part.ours:
                storage.nested_give_back(part)
                # Nobody was told of it, and a repetition of the call makes it anew under the same key.
                storage.records.forget(part)
            else:
                # It was there before, and stays; so does what others did with it.
                storage.records.put(part, parent="")


def give_up_snapshot(etc: str, key: str, attempt: str) -> None:
    """Delete what one call of `storage.snapshot` made."""
    storage = open_storage(Path(etc))
    with _own(storage, key, attempt) as record:
        if record is None:
            return
        for part in storage.records.all():
            if part.parent == key and part.state != "destroyed":
                _delete_snapshot(storage, part)
        _delete_snapshot(storage, record)


def _delete_snapshot(storage: Storage, record: Record) -> None:
    kind = storage.catalogue.type_of(record.type, "snapshot")
    if record.state == "present":
        kind.delete_snapshot(record.data)
    else:
        volume = record.private.get("volume")
        kind.give_up_snapshot(record.key, _as_volume(kind, volume) if volume else None)
    storage.records.forget(record)


def give_up_replacement(etc: str, key: str, attempt: str) -> None:
    """End one call of `storage.replace_raid_disk`: with the new disk where it is in its place, else without."""
    storage = open_storage(Path(etc))
    with _own(storage, key, attempt) as record:
        if record is None:
            return
        kind, volume = _recorded(storage, record)
        found = kind.find(volume)
        if found is not None:
            kind.give_up_replacement(found)


def give_up_growth(
    etc: str, key: str, attempt: str, volume: dict[str, Any], mpoint: str | None, options: str, attached: bool
) -> None:
    """Make a volume as it was before one call of `storage.grow`, as far as its file system did not grow yet.

    :param volume: its dict as it was.
    :param mpoint: where it was mounted before it was taken down for this.
    :param options: how.
    :param attached: it was attached for this.
    """
    storage = open_storage(Path(etc))
    with _own(storage, key, attempt) as record:
        if record is None:
            return
        kind = storage.catalogue.type_of(record.type, "volume")
        before = _as_volume(kind, volume)
        now = kind.find(before)
        if now is None:
            return
        if now.device is not None:
            device = Path(now.device)
            fstype = devices.contents(device).fstype
            kind.shrink_back(before, now)
            if mpoint is not None and mpoint not in mounting.mount_points(storage.host, device):
                mounting.mount(device, Path(mpoint), fstype or "auto", options)
            if attached and not mounting.mount_points(storage.host, device):
                kind.detach(now, False)
        else:
            kind.shrink_back(before, now)
        known = kind.find(before)
        data = {**record.data, "size": known.size} if known is not None and known.size is not None else record.data
        storage.records.put(record, attempt="", data=data)


@contextlib.contextmanager
def _own(storage: Storage, key: str, attempt: str) -> Iterator[Record | None]:
    with storage.records.held(key, f"the volume {key}"):
        record = storage.records.find(key)
        yield record if record is not None and record.attempt == attempt else None


def _recorded(storage: Storage, record: Record) -> tuple[VolumeType, Any]:
    kind = storage.catalogue.type_of(record.type, "volume")
    volume = _as_volume(kind, record.data)
    return kind, msgspec.structs.replace(volume, id=record.id, device=None)


def _as_volume(kind: VolumeType, data: dict[str, Any]) -> Volume:
    bare = msgspec.convert({"type": kind.name, "id": data.get("id")}, kind.config)
    return completed(kind, bare, data) if data else bare
