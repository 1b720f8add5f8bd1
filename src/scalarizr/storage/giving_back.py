"""`storage.detach` and `storage.destroy`: unmount, leave fstab, detach, and delete what is ours."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from scalarizr.errors import InvalidParameter, Refused, ScalarizrError
from scalarizr.storage import devices, mounting
from scalarizr.storage.catalogue import Catalogue, Named
from scalarizr.storage.fstab import Fstab
from scalarizr.storage.model import as_dict
from scalarizr.storage.steps import step


class GivingBack:
    """Detaches and destroys volumes.

    :param catalogue: types and records.
    :param fstab: the host's.
    """

    def __init__(self, catalogue: Catalogue, fstab: Fstab) -> None:
        self._catalogue = catalogue
        self._records = catalogue.records
        self._host = catalogue.host
        self._fstab = fstab

    def detach(self, data: Mapping[str, Any], *, force: bool, path: str) -> dict[str, Any]:
        """Detach a volume; its data is kept.

        :return: its dict, `device` None.
        :raises NotFound: it is gone.
        :raises Refused: it is busy, which names the processes; or this system runs on it.
        """
        with self._catalogue.held(data, path) as named:
            found = self._catalogue.present(named)
            self._take_out(named, found, force=force, method="storage.detach")
            if found.device is not None:
                step(f"detaching {found.id}")
            # Also where no device is seen: a provider may hold it attached all the same.
            named.kind.detach(found, force)
            result = as_dict(msgspec.structs.replace(found, device=None))
            if not named.kind.lets_go or named.record is not None:
                record = named.record or self._catalogue.unrecorded(named)
                self._records.put(record, state="detached", data=result)
        return result

    def destroy(self, data: Mapping[str, Any], *, force: bool, path: str) -> None:
        """Detach a volume and delete it. One that is gone already stays so.

        :raises Refused: it is busy, this system runs on it, or it is not ours to delete.
        """
        with self._catalogue.held(data, path) as named:
            record = named.record
            if record is not None and record.state == "destroyed":
                return
            found = named.kind.find(named.volume)
            ours = (record is not None and record.ours) or named.kind.deletes_foreign
            if found is None and record is None and not named.kind.deletes_foreign:
                raise InvalidParameter(f"{path}.id", named.volume.id, "the id of a volume that this agent made")
            if found is not None and not ours and not named.kind.lets_go:
                raise Refused(
                    f"The volume {found.id} was not made by this agent, which therefore does not delete it. Nothing "
                    "was changed; storage.detach lets it go.",
                    {"id": found.id},
                )
            if found is not None:
                self._take_out(named, found, force=force, method="storage.destroy")
                if found.device is not None:
                    step(f"detaching {found.id}")
                named.kind.detach(found, force)
                if ours:
                    step(f"deleting {found.id}")
                    named.kind.delete(msgspec.structs.replace(found, device=None), force)
            else:
                self._leave_fstab(named, named.volume, None, "storage.destroy")
            if record is not None:
                self._records.put(record, state="destroyed", data={**record.data, "device": None})
                self._records.prune()

    def _take_out(self, named: Named, found: Any, *, force: bool, method: str) -> None:
        """Unmount it and take it out of fstab, if nobody is hurt by that."""
        kind = named.kind
        if kind.memory_only:
            mpoints = [found.mpoint] if _real(found.mpoint) in mounting.memory_mount_points(self._host) else []
            uuid = None
        elif found.device is None:
            mpoints, uuid = [], None
        else:
            device = Path(found.device)
            if devices.is_system_disk(self._host, device, self._catalogue.context.state):
                raise Refused(
                    f"{device} carries this system: it is never detached. Nothing was changed.",
                    {"device": found.device},
                )
            mpoints = mounting.mount_points(self._host, device)
            uuid = devices.contents(device).uuid
            self._check_uses(found, mpoints, force=force)
        for mpoint in reversed(mpoints):
            step(f"unmounting {mpoint}")
            mounting.unmount(self._host, Path(mpoint), force=force)
        try:
            self._leave_fstab(named, found, uuid, method)
        except ScalarizrError as failure:
            if mpoints:
                failure.say_further(f"{', '.join(mpoints)} was unmounted before.")
            raise

    def _leave_fstab(self, named: Named, volume: Any, uuid: str | None, method: str) -> None:
        recorded = named.record.private.get("uuid") if named.record is not None else None
        mpoint = _real(volume.mpoint)
        if mpoint is not None or not named.kind.memory_only:
            self._fstab.remove(method, named.kind.fstab_sources(volume, uuid or recorded), mpoint)

    def _check_uses(self, found: Any, mpoints: list[str], *, force: bool) -> None:
        foreign = [mpoint for mpoint in mpoints if mpoint != _real(found.mpoint)]
        if foreign and not force:
            raise Refused(
                f"{found.device} is mounted at {', '.join(foreign)}, where this agent did not mount it. Nothing was "
                "changed; `force: true` unmounts it there.",
                {"device": found.device, "mpoints": list(foreign)},
            )
        uses = devices.holders(self._host, Path(found.device))
        if uses and not force:
            raise Refused(
                f"{found.device} is in use: {', '.join(uses)}. Nothing was changed.",
                {"device": found.device, "uses": list(uses)},
            )


def _real(mpoint: str | None) -> str | None:
    return None if mpoint is None else os.path.realpath(mpoint)
