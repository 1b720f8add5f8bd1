"""`storage.snapshot` and `storage.destroy_snapshot`: the instant in which a file system stands still is kept short."""

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scalarizr.errors import InvalidParameter, NotFound
from scalarizr.operations.progress import current
from scalarizr.rpc.types import shown
from scalarizr.storage import freezing, mounting
from scalarizr.storage.catalogue import Catalogue
from scalarizr.storage.records import Record, new_key
from scalarizr.storage.steps import step
from scalarizr.storage.volume_type import VolumeType
from scalarizr.storage.volume_work import VolumeWork

UNDO = "scalarizr.storage.undoing:give_up_snapshot"
_THAW = "scalarizr.storage.freezing:thaw_after_death"


class Snapshots(VolumeWork):
    """Takes and deletes snapshots.

    :param etc: the agent's configuration directory, for whoever has to undo.
    :param catalogue: types and records.
    """

    def __init__(self, etc: Path, catalogue: Catalogue) -> None:
        super().__init__(etc, catalogue)
        self._inside: list[str] = []

    def take(self, data: Mapping[str, Any], description: str | None, tags: dict[str, str] | None, path: str) -> Any:
        """Take a snapshot.

        :return: its dict, which `snap` takes.
        :raises NotFound: the volume is gone.
        :raises NotSupported: its type has none.
        """
        with self._catalogue.held(data, path) as named:
            found = self._catalogue.present(named)
            return self._take(named.kind, found, description or "", dict(tags or {}))

    def _take(self, kind: VolumeType, volume: Any, description: str, tags: dict[str, str]) -> dict[str, Any]:
        attempt, key = uuid.uuid4().hex, new_key()
        if not self._inside:
            # Before the record is there: else nobody would take it away, were this killed in between.
            self._note(UNDO, key, attempt)
        record = self._records.put(
            Record(
                key=key,
                kind="snapshot",
                type=kind.name,
                state="making",
                parent=self._inside[-1] if self._inside else "",
                attempt=attempt,
                private={"volume": {name: value for name, value in _plain(volume).items() if value is not None}},
            )
        )
        step(f"taking a snapshot of {volume.id}")
        self._inside.append(record.key)
        try:
            taken = kind.snapshot(volume, record.key, description, tags, lambda: self._still(volume))
        finally:
            self._inside.pop()
        record = self._records.find(record.key) or record
        self._records.put(record, state="present", id=taken["id"], ours=True, data=taken)
        return taken

    @contextlib.contextmanager
    def _still(self, volume: Any) -> Iterator[None]:
        """Keep the volume's file system still while the block runs; a part of another volume is still already."""
        if len(self._inside) > 1:
            yield
            return
        mpoints = mounting.mount_points(self._host, Path(volume.device)) if volume.device else []
        holds = [self._catalogue.context.state, self._catalogue.context.settings.paths.logs, *self._images(volume)]
        if not mpoints:
            yield
        elif not freezing.may_freeze(self._host, Path(mpoints[0]), holds):
            current().log(f"{mpoints[0]} cannot be frozen, and is synced")
            descriptor = os.open(mpoints[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
                os.sync()
            finally:
                os.close(descriptor)
            yield
        else:
            running = current()
            with freezing.frozen(
                Path(mpoints[0]),
                self._catalogue.context.settings.storage.freeze_limit,
                lambda: running.before(_THAW, mpoint=mpoints[0]),
                running.done_with,
            ):
                yield

    def _images(self, volume: Any) -> list[Path]:
        image = getattr(volume, "file", None)
        return [Path(image)] if image else []

    def destroy(self, snapshot: Mapping[str, Any], path: str) -> None:
        """Delete a snapshot. One that is gone already stays so.

        :raises NotFound: this agent took none of that id, and its type deletes only such.
        """
        kind = self._catalogue.type_of(snapshot.get("type"), path)
        identity = snapshot.get("id")
        if not isinstance(identity, str) or not 0 < len(identity) <= 200:
            raise InvalidParameter(f"{path}.id", shown(identity), "the id of a snapshot")
        record = self._records.of_id("snapshot", identity)
        if record is not None and record.type != kind.name:
            record = None
        if record is None and not kind.deletes_foreign:
            raise NotFound(
                f"This agent took no snapshot {identity} of type {kind.name}. Nothing was changed.", {"id": identity}
            )
        with self._records.held(record.key if record else f"snapshot {identity}", f"the snapshot {identity}"):
            if record is not None and record.state == "destroyed":
                return
            step(f"deleting {identity}")
            kind.delete_snapshot(record.data if record is not None else dict(snapshot))
            if record is not None:
                self._records.put(record, state="destroyed")
                self._records.prune()


def _plain(volume: Any) -> dict[str, Any]:
    from scalarizr.storage.model import as_dict

    return as_dict(volume)
