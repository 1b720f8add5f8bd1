"""Finding a volume from what a caller says of it: its type's class, its record, and what it is now."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from scalarizr.errors import NotFound
from scalarizr.host.paths import HostPaths
from scalarizr.settings.model import Settings
from scalarizr.storage.context import Context, Nested
from scalarizr.storage.model import Volume, as_dict, parse
from scalarizr.storage.records import Record, key_of_token, new_key, records_of
from scalarizr.storage.registry import find_type
from scalarizr.storage.volume_type import VolumeType


class Named(msgspec.Struct):
    """A volume that a caller named.

    :param kind: its type.
    :param volume: what the caller said, completed from its record.
    :param record: what is recorded of it; None for a volume of others that was never used here.
    :param key: what its lock and its record are named by.
    """

    kind: VolumeType
    volume: Any
    record: Record | None
    key: str


class Catalogue:
    """Types and records of one agent.

    :param settings: the agent's.
    :param host: where the host's trees are.
    :param log: the agent's log.
    :param nested: the volumes that a volume is made of.
    """

    def __init__(self, settings: Settings, host: HostPaths, log: logging.Logger, nested: Nested) -> None:
        self.records = records_of(settings.paths.state)
        self.context = Context(settings, host, log, self.records, nested)
        self.host = host
        self.log = log
        self._types: dict[str, VolumeType] = {}

    def type_of(self, name: object, path: str) -> VolumeType:
        """Give the type of a name.

        :raises InvalidParameter: there is none.
        """
        found = self._types.get(name) if isinstance(name, str) else None
        if found is None:
            kind = find_type(name, path)
            found = self._types[kind.name] = kind(self.context)
        return found

    def parsed(self, data: Mapping[str, Any], path: str) -> tuple[VolumeType, Any]:
        """Check a volume's dict.

        :raises InvalidParameter: it is none.
        """
        kind = self.type_of(data.get("type"), path)
        return kind, parse(kind.config, data, path)

    def named(self, data: Mapping[str, Any], path: str) -> Named:
        """Find the volume that a caller names by its id. What else he says of it counts only where nothing is recorded.

        :raises InvalidParameter: the dict is none, or has no id.
        """
        kind, volume = self.parsed(data, path)
        return self.of_volume(kind, kind.identified(volume, path), wishes=False)

    @contextlib.contextmanager
    def held(self, data: Mapping[str, Any], path: str) -> Iterator[Named]:
        """Find a volume as `named` does, and hold it in all processes: as it is once no other call is at work on it.

        :raises Busy: another call is, for longer than 30 s.
        """
        while True:
            named = self.named(data, path)
            with self.records.held(named.key, f"the volume {named.volume.id}"):
                # The call that was waited for may have recorded something since.
                now = self.named(data, path)
                if now.key == named.key:
                    yield now
                    return

    def of_volume(self, kind: VolumeType, volume: Any, *, wishes: bool) -> Named:
        """Complete a volume with an id from its record.

        :param wishes: what the caller says goes before what is recorded.
        """
        record = self.records.of_id("volume", volume.id)
        if record is not None and record.type != kind.name:
            record = None
        if record is not None:
            said = volume if wishes else msgspec.convert({"type": kind.name, "id": volume.id}, kind.config)
            volume = completed(kind, said, record.data)
        return Named(kind, volume, record, record.key if record else key_of_token(f"volume {kind.name} {volume.id}"))

    def present(self, named: Named) -> Any:
        """Look what a named volume is now.

        :raises NotFound: it is gone.
        """
        found = named.kind.find(named.volume)
        if found is None:
            raise NotFound(
                f"There is no volume {named.volume.id} of type {named.kind.name}. Nothing was changed.",
                {"id": named.volume.id, "type": named.kind.name},
            )
        return found

    def wanted_key(self, volume: Volume) -> str:
        """Give the key of a volume that is to be made."""
        return key_of_token(volume.client_token) if volume.client_token else new_key()

    def unrecorded(self, named: Named) -> Record:
        """Give a record of a volume of others."""
        return Record(
            key=named.key,
            kind="volume",
            type=named.kind.name,
            state="present",
            id=named.volume.id,
            data=as_dict(named.volume),
        )


def completed(kind: VolumeType, volume: Any, data: Mapping[str, Any]) -> Any:
    """Give what a caller said, with what he left out from what is known.

    :param data: the volume's recorded dict.
    """
    known = msgspec.convert({**data, "type": kind.name}, kind.config, strict=False)
    said = {name: value for name, value in msgspec.structs.asdict(volume).items() if value is not None}
    for name in ("device", "recreate_if_missing", "wipe", "id", "client_token"):
        said.pop(name, None)
    return msgspec.structs.replace(
        known,
        **said,
        id=volume.id,
        recreate_if_missing=volume.recreate_if_missing,
        wipe=volume.wipe,
        client_token=volume.client_token or known.client_token,
        device=None,
    )
