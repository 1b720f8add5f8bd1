"""`storage.grow`: the volume, then its file system; mounted all the while where both can be."""

import contextlib
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scalarizr.errors import Refused
from scalarizr.operations.progress import current
from scalarizr.storage import devices, filesystems, mounting
from scalarizr.storage.catalogue import Named
from scalarizr.storage.model import as_dict
from scalarizr.storage.mount_table import options_of
from scalarizr.storage.steps import step, wait_until
from scalarizr.storage.volume_work import VolumeWork

UNDO = "scalarizr.storage.undoing:give_up_growth"


class Growth(VolumeWork):
    """Grows volumes."""

    def grow(self, data: Mapping[str, Any], growth: dict[str, Any], path: str) -> dict[str, Any]:
        """Grow a volume and its file system.

        :return: its dict.
        :raises NotFound: it is gone.
        :raises InvalidParameter: it is to become smaller, or there is nothing to change.
        """
        with self._catalogue.held(data, path) as named:
            found = self._catalogue.present(named)
            named.kind.check_growth(found, growth)
            record = named.record or self._catalogue.unrecorded(named)
            attempt = uuid.uuid4().hex
            record = self._records.put(record, attempt=attempt, mounted=None, attached=False)
            if named.kind.memory_only:
                grown = named.kind.grow(found, growth)
            else:
                grown = self._grow(named, found, growth, attempt)
            result = as_dict(grown)
            record = self._records.find(record.key) or record
            self._records.put(record, data=result)
        return result

    def _grow(self, named: Named, found: Any, growth: dict[str, Any], attempt: str) -> Any:
        kind = named.kind
        mpoints = mounting.mount_points(self._host, Path(found.device)) if found.device else []
        fstype = devices.contents(Path(found.device)).fstype if found.device else None
        online = kind.grows_online and (fstype is None or filesystems.grows_online(fstype))
        taken_down = mpoints[0] if mpoints and not online else None
        mounted_with = (
            next(
                (
                    options_of(mount)
                    for mount in mounting.mounts_of(self._host, Path(found.device))
                    if mount.mpoint == taken_down
                ),
                "",
            )
            if taken_down
            else ""
        )
        self._note(
            UNDO,
            named.key,
            attempt,
            volume=as_dict(found),
            mpoint=taken_down,
            options=mounted_with,
            attached=found.device is None,
        )
        with self._taken_down(taken_down, found, fstype, mounted_with), self._attached(named, found) as volume:
            fstype = fstype or devices.contents(Path(volume.device)).fstype
            step(f"growing {volume.id}")
            grown = kind.grow(volume, growth)
            if fstype is not None and grown.device is not None:
                device = Path(grown.device)
                if filesystems.filesystem_size(device, fstype) < devices.device_size(device):
                    step(f"growing the {fstype} file system on {device}")
                    place = Path(mpoints[0]) if mpoints and taken_down is None else None
                    filesystems.resize_filesystem(device, fstype, place)
            return grown

    @contextlib.contextmanager
    def _taken_down(self, mpoint: str | None, found: Any, fstype: str | None, options: str) -> Iterator[None]:
        if mpoint is None:
            yield
            return
        step(f"unmounting {mpoint}")
        try:
            mounting.unmount(self._host, Path(mpoint))
        except Refused as busy:
            busy.say_further(f"Here {found.id} with its {fstype} file system grows only unmounted.")
            raise
        try:
            # A namespace that a program was given for a moment still shows it there.
            device = Path(found.device)
            wait_until(
                lambda: not devices.uses(self._host, device) or None, f"waiting until {device} is free", limit=15
            )
            yield
        finally:
            with current().uninterrupted():
                mounting.mount(Path(found.device), Path(mpoint), fstype or "auto", options)

    @contextlib.contextmanager
    def _attached(self, named: Named, found: Any) -> Iterator[Any]:
        """Attach a volume that is detached for as long as the block runs: its file system has to grow too."""
        if found.device is not None:
            yield found
            return
        step(f"attaching {found.id}")
        volume = named.kind.attach(found)
        try:
            yield volume
        finally:
            with current().uninterrupted():
                named.kind.detach(volume, False)
