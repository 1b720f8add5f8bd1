"""`storage.create`: make or find, attach, format, mount, enter in fstab. Each step is recorded before it is taken."""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from scalarizr.errors import InvalidParameter, NotFound, OutsideFailure, Refused
from scalarizr.operations.progress import current
from scalarizr.storage import devices, filesystems, mount_point, mounting
from scalarizr.storage.catalogue import Catalogue, Named
from scalarizr.storage.fstab import Fstab
from scalarizr.storage.model import as_dict
from scalarizr.storage.records import Record
from scalarizr.storage.steps import step
from scalarizr.storage.volume_type import VolumeType
from scalarizr.storage.volume_work import VolumeWork

UNDO = "scalarizr.storage.undoing:give_up_creation"
_DEFAULT_FSTYPE = "ext4"


class Wishes(msgspec.Struct, frozen=True):
    """What is to be done with a volume once it is there.

    :param mkfs: make a file system where it holds nothing.
    :param mount: mount it at its `mpoint`.
    :param fstab: enter it in fstab.
    """

    mkfs: bool = False
    mount: bool = False
    fstab: bool = False


class Creation(VolumeWork):
    """Makes volumes.

    :param etc: the agent's configuration directory, for whoever has to undo.
    :param catalogue: types and records.
    :param fstab: the host's.
    """

    def __init__(self, etc: Path, catalogue: Catalogue, fstab: Fstab) -> None:
        super().__init__(etc, catalogue)
        self._fstab = fstab
        self._inside: list[str] = []

    def create(self, data: Mapping[str, Any], wishes: Wishes, path: str, key: str | None = None) -> dict[str, Any]:
        """Make sure that a volume is there as wished.

        :param data: its dict.
        :param path: the parameter's name, for errors.
        :param key: names it where it is to be made; from its `client_token`, or random, when None.
        :return: its dict.
        :raises ScalarizrError: it cannot be; what was done is undone.
        """
        kind, volume = self._catalogue.parsed(data, path)
        self._check_wishes(kind, volume, wishes, path)
        named = self._named(kind, volume, path, key)
        with self._records.held(named.key, f"the volume {volume.id or named.key}"):
            # The call that was waited for may have recorded something since.
            return self._create(self._named(kind, volume, path, named.key), wishes, path)

    def being_made(self) -> str:
        """Give the key of the volume whose parts are being made; "" where none is."""
        return self._inside[-1] if self._inside else ""

    def _named(self, kind: VolumeType, volume: Any, path: str, key: str | None) -> Named:
        if volume.id is not None or kind.lets_go:
            return self._catalogue.of_volume(kind, kind.identified(volume, path), wishes=True)
        return Named(kind, volume, None, key or self._catalogue.wanted_key(volume))

    def _check_wishes(self, kind: VolumeType, volume: Any, wishes: Wishes, path: str) -> None:
        if (wishes.mount or wishes.fstab) and volume.mpoint is None:
            raise InvalidParameter(f"{path}.mpoint", None, "a mount point, since it is to be mounted")
        if volume.mount_options is not None:
            mount_point.check_mount_options(volume.mount_options, f"{path}.mount_options")
        if wishes.mkfs and not kind.memory_only:
            filesystems.require_program(volume.fstype or _DEFAULT_FSTYPE)
        if wishes.fstab:
            self._fstab.entries()

    def _create(self, named: Named, wishes: Wishes, path: str) -> dict[str, Any]:
        kind, volume = named.kind, named.volume
        record = named.record or self._records.find(named.key)
        known = self._existing(kind, volume, record)
        if known is None:
            volume = msgspec.structs.replace(volume, id=None, device=None)
            kind.check(volume, path)
        if volume.mpoint is not None and (wishes.mount or wishes.fstab) and not self._is_mounted(kind, volume, known):
            mount_point.check_mount_point(self._host, volume.mpoint, _device(known), f"{path}.mpoint")
        record = self._begin(kind, named.key, record, volume, known)
        if known is None:
            record, known = self._make(kind, volume, record)
        volume = _wished(known, volume)
        if not kind.memory_only:
            record, volume = self._attach(kind, volume, record)
            record, volume = self._prepare(volume, record, wishes)
        if wishes.mount:
            record = self._mount(kind, volume, record, path)
        if wishes.fstab:
            record = self._enter(kind, volume, record)
        result = as_dict(volume)
        self._records.put(record, state="present", id=volume.id, data=result)
        return result

    def _existing(self, kind: VolumeType, volume: Any, record: Record | None) -> Any | None:
        """Find what is there already; None where it is to be made."""
        if volume.id is not None:
            found = kind.find(volume)
        elif record is not None and record.id is not None:
            # An earlier call with the same token.
            found = kind.find(msgspec.structs.replace(volume, id=record.id))
            volume = msgspec.structs.replace(volume, id=record.id)
            if found is None and record.state == "making":
                return None
        else:
            return kind.find_made(volume, record.key) if record is not None else None
        if found is None and not volume.recreate_if_missing:
            raise NotFound(
                f"The volume {volume.id} is gone, and recreate_if_missing is not set. Nothing was made.",
                {"id": volume.id, "type": kind.name},
            )
        return found

    def _begin(self, kind: VolumeType, key: str, record: Record | None, volume: Any, known: Any | None) -> Record:
        """Record that this call is at work on it, and what has to be undone if it does not end well."""
        attempt = uuid.uuid4().hex
        if record is None or known is None:
            record = Record(
                key=key,
                kind="volume",
                type=kind.name,
                state="making" if known is None else "present",
                id=known.id if known is not None else None,
                parent=self._inside[-1] if self._inside else "",
            )
        if not self._inside:
            # Before the record is there: else nobody would take it away, were this killed in between.
            self._note(UNDO, key, attempt)
        return self._records.put(
            record,
            attempt=attempt,
            attached=False,
            mounted=None,
            in_fstab=None,
            data=record.data or as_dict(volume),
        )

    def _make(self, kind: VolumeType, volume: Any, record: Record) -> tuple[Record, Any]:
        step(f"making a volume of type {kind.name}")
        self._inside.append(record.key)
        try:
            made, ours = kind.make(volume, record.key)
        finally:
            self._inside.pop()
        # What the type itself put into the record stays there.
        record = self._records.find(record.key) or record
        return self._records.put(record, id=made.id, ours=ours, data=as_dict(_wished(made, volume))), made

    def _attach(self, kind: VolumeType, volume: Any, record: Record) -> tuple[Record, Any]:
        if volume.device is None:
            if record.state != "making":  # what is being made is given up as a whole
                record = self._records.put(record, attached=True)
            step(f"attaching {volume.id}")
            volume = kind.attach(volume)
        return record, volume

    def _prepare(self, volume: Any, record: Record, wishes: Wishes) -> tuple[Record, Any]:
        """See what it holds; make a file system where that is wished and it holds nothing."""
        device = Path(volume.device)
        holds = devices.contents(device)
        new = not record.formatted
        if volume.wipe and new and wishes.mkfs and not holds.empty:
            if devices.is_system_disk(self._host, device, self._catalogue.context.state):
                raise Refused(f"{device} carries this system. Nothing was changed.", {"device": str(device)})
            step(f"wiping {device}")
            devices.wipe(self._host, device)
            holds = devices.contents(device)
        fstype = holds.fstype
        if fstype is None and wishes.mkfs:
            if not holds.empty:
                raise Refused(
                    f"{device} is not formatted: it holds {', '.join(holds.found)}. Nothing on it was changed; "
                    "`wipe: true` formats a recycled disk all the same.",
                    {"device": str(device), "found": list(holds.found)},
                )
            fstype = volume.fstype or _DEFAULT_FSTYPE
            step(f"making an {fstype} file system on {device}")
            filesystems.make_filesystem(device, fstype)
        elif fstype is not None and record.state == "making" and volume.snap is not None and new:
            step(f"giving the {fstype} file system on {device} a UUID of its own")
            filesystems.give_new_identity(device, fstype)
            if filesystems.filesystem_size(device, fstype) < devices.device_size(device):
                filesystems.resize_filesystem(device, fstype, None)
        if fstype is None and wishes.mount:
            held = f"holds {', '.join(holds.found)}" if holds.found else "holds nothing"
            raise Refused(
                f"{device} cannot be mounted: it {held}. Nothing on it was changed; `mkfs: true` makes a file system.",
                {"device": str(device)},
            )
        if fstype is not None:
            if volume.fstype not in (None, fstype):
                current().log(f"{device} holds an {fstype} file system, which stays")
            if record.state == "making":
                # Recorded together with its mounting, at the latest: before that nothing of anybody's is in it.
                record = msgspec.structs.replace(record, formatted=True)
            else:
                record = self._records.put(record, formatted=True)
        return record, msgspec.structs.replace(volume, fstype=fstype or volume.fstype)

    def _mount(self, kind: VolumeType, volume: Any, record: Record, path: str) -> Record:
        if self._is_mounted(kind, volume, volume):
            return record
        device = _device(volume)
        mpoint = mount_point.check_mount_point(self._host, volume.mpoint, device, f"{path}.mpoint")
        record = self._records.put(record, mounted=str(mpoint))
        step(f"mounting {volume.id} at {mpoint}")
        options = ",".join([*kind.mount_options(volume), *([volume.mount_options] if volume.mount_options else [])])
        mounting.mount(device or "tmpfs", mpoint, volume.fstype or "tmpfs", options)
        return record

    def _is_mounted(self, kind: VolumeType, volume: Any, known: Any | None) -> bool:
        """Tell whether it is mounted where it should be."""
        if known is None:
            return False
        if kind.memory_only:
            return known.mpoint == volume.mpoint and _real(volume) in mounting.memory_mount_points(self._host)
        device = _device(known)
        return device is not None and _real(volume) in mounting.mount_points(self._host, device)

    def _enter(self, kind: VolumeType, volume: Any, record: Record) -> Record:
        device = _device(volume)
        uuid_ = devices.contents(device).uuid if device else None
        if device is not None and uuid_ is None:
            raise OutsideFailure(f"The file system on {device} has no UUID, by which fstab could name it.")
        source, extra = kind.fstab_source(volume, uuid_)
        own = [*kind.mount_options(volume), *([volume.mount_options] if volume.mount_options else []), *extra]
        known_there = any(entry.mpoint == _real(volume) for entry in self._fstab.entries())
        record = self._records.put(
            record,
            in_fstab=None if known_there else _real(volume),
            # A volume that is not attached later cannot be asked for it.
            private={**record.private, "uuid": uuid_},
        )
        step(f"entering {volume.mpoint} in fstab")
        self._fstab.add("storage.create", source, _real(volume), volume.fstype or "tmpfs", ",".join(own))
        return record


def _device(volume: Any | None) -> Path | None:
    return Path(volume.device) if volume is not None and volume.device is not None else None


def _real(volume: Any) -> str:
    return str(os.path.realpath(volume.mpoint))


def _wished(found: Any, said: Any) -> Any:
    """Give what is there, with what the caller wishes of it: where it is mounted, how, under which tags."""
    wishes = {
        name: value
        for name in ("fstype", "mpoint", "mount_options", "tags", "snap", "client_token")
        if (value := getattr(said, name)) is not None
    }
    return msgspec.structs.replace(
        found, **wishes, recreate_if_missing=said.recreate_if_missing, wipe=said.wipe, type=said.type
    )
