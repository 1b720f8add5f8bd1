"""What the volumes of several clouds have alike: how they are attached, detached, deleted, grown and given up, what is
refused meanwhile, and in which words.

A type of volume adds how its cloud does each of that, and what can be chosen there.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from re import Pattern
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from scalarizr.errors import InvalidParameter, NotFound, Refused
from scalarizr.rpc.types import shown
from scalarizr.storage.cloud import Cloud, FoundSnapshot, FoundVolume
from scalarizr.storage.context import Context, Still
from scalarizr.storage.device_links import await_device, await_size, unseen
from scalarizr.storage.model import GIGABYTE, Size, size_in_bytes
from scalarizr.storage.provider import OfRequest, until_accepted
from scalarizr.storage.steps import wait_until
from scalarizr.storage.volume_type import VolumeType, growth_to_size

KEY_TAG = "scalarizr-key"
"""The tag that keeps, at the provider, the key that something was made under."""

Begun = TypeVar("Begun")
Snapshot = TypeVar("Snapshot", bound=FoundSnapshot)
Found = TypeVar("Found", bound=FoundVolume)
OneCloud = TypeVar("OneCloud", bound=Cloud[Any])


class CloudVolumes(VolumeType, Generic[OneCloud, Found, Snapshot]):
    """The volumes of one cloud.

    :cvar what: what the cloud calls a volume.
    :cvar holder: what stands before the name of whoever a volume is attached to.
    :cvar snapshot_ids: the form of a snapshot's id.
    :cvar statuses: of a snapshot, the cloud's words for `completed` and `error`; all others are `pending`.
    """

    deletes_foreign = True
    what: ClassVar[str] = "volume"
    holder: ClassVar[str] = "the server "
    snapshot_ids: ClassVar[Pattern[str]]
    statuses: ClassVar[Mapping[str, str]]

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._of_request = OfRequest(self.connect)

    @property
    def cloud(self) -> OneCloud:
        """The cloud, with the credentials of the present call."""
        return self._of_request.get()

    def close(self) -> None:
        """Close the connections to the cloud."""
        self._of_request.close()

    # What a type has to tell

    @abstractmethod
    def connect(self) -> OneCloud:
        """Give the cloud, with the credentials of the present call."""

    @abstractmethod
    def look(self, volume: Any) -> Found | None:
        """Give what the cloud tells of the volume of this `id`; None where there is none."""

    @abstractmethod
    def look_for(self, volume: Any, key: str) -> Found | None:
        """Give what was made under a key, in whatever state it is; None where nothing was."""

    @abstractmethod
    def as_volume(self, found: Found, volume: Any) -> Any:
        """Give a volume's dict as it is now.

        :param volume: what was said of it.
        """

    @abstractmethod
    def device(self, found: Found) -> str | None:
        """Give the device of a volume that is attached here; None where it cannot be told."""

    @abstractmethod
    def where(self, found: Found) -> str:
        """Tell, in words, where the device of a volume is looked for."""

    @abstractmethod
    def attach_here(self, found: Found) -> None:
        """Attach to this server what is attached nowhere."""

    @abstractmethod
    def detach_here(self, found: Found) -> None:
        """Detach from this server what is attached to it."""

    @abstractmethod
    def delete_found(self, found: Found) -> None:
        """Delete what is attached nowhere."""

    @abstractmethod
    def enlarge(self, found: Found, volume: Any, size: int) -> Any:
        """Make a volume larger.

        :param size: GB.
        :return: its dict, with the device that it has then.
        """

    @abstractmethod
    def snapshot_made(self, key: str) -> Snapshot | None:
        """Give the snapshot that was taken under a key; None where none was."""

    # What a type may do otherwise

    def there(self, volume: Any) -> Found:
        """Give what the cloud tells of a volume, once nothing is being done with it.

        :raises NotFound: it is gone.
        """
        found = self.look(volume)
        if found is None:
            raise NotFound(f"There is no {self.what} {volume.id}. Nothing was changed.", {"id": volume.id})
        return found

    def whole(self, found: Found, volume: Any, key: str) -> Found:  # noqa: ARG002  for types
        """Do what is left to be done with a volume that was made under a key, and wait until it can be used."""
        return found

    def refuse_detaching(self, found: Found) -> None:
        """Refuse to take from this server what it cannot do without."""

    def check_choices(self, volume: Any, size: int | None, path: str) -> None:  # noqa: ARG002  for types
        """Refuse what cannot be made from nothing.

        :param size: GB.
        """
        if size is None:
            raise InvalidParameter(f"{path}.size", None, "a size in GB, since it is not made from a snapshot")

    def drop_snapshot(self, identity: str) -> None:
        """Delete a snapshot; what is gone already stays so."""
        self.cloud.delete_snapshot(identity)

    # The same for all

    def check(self, volume: Any, path: str) -> None:
        if KEY_TAG in (volume.tags or {}):
            raise InvalidParameter(f"{path}.tags.{KEY_TAG}", None, "a name that is not the agent's own")
        size = gigabytes(volume.size, f"{path}.size")
        if volume.snap is None:
            self.check_choices(volume, size, path)
            return
        least = self.snapshot_of(volume.snap, f"{path}.snap").size
        if size is not None and size < least:
            raise InvalidParameter(f"{path}.size", shown(volume.size), f"{least} GB or more, which the snapshot has")

    def find(self, volume: Any) -> Any | None:
        found = self.look(volume)
        return None if found is None else self.as_volume(found, volume)

    def find_made(self, volume: Any, key: str) -> Any | None:
        found = self.look_for(volume, key)
        return None if found is None else self.as_volume(self.whole(found, volume, key), volume)

    def give_up(self, volume: Any, key: str) -> None:
        def delete() -> None:
            found = self.look_for(volume, key)
            if found is not None:
                made = msgspec.structs.replace(volume, id=found.id)
                self.detach(made, force=True)
                self.delete(made, force=True)

        until_accepted(delete)

    def attach(self, volume: Any) -> Any:
        found = self.there(volume)
        if self.cloud.here not in found.holders:
            self._refuse_held(found, "Nothing was changed")
            self.attach_here(found)
            found = self.there(volume)
        await_device(lambda: self.device(found), f"{self.what} {found.id}", self.where(found))
        return self.as_volume(found, volume)

    def detach(self, volume: Any, force: bool) -> None:
        found = self.look(volume)
        if found is None or self.cloud.here not in found.holders:
            return
        self.refuse_detaching(found)
        if not force and self.device(found) is None:
            raise unseen(f"{self.what} {found.id}")
        self.detach_here(found)

    def delete(self, volume: Any, force: bool) -> None:  # noqa: ARG002  nothing is taken by force here
        found = self.look(volume)
        if found is not None:
            self._refuse_held(found, "It was not deleted")
            self.delete_found(found)

    def find_snapshot(self, snapshot: dict[str, Any]) -> dict[str, Any] | None:
        found = self.cloud.snapshot(self.snapshot_id(snapshot, "snapshot"))
        return None if found is None else self.as_snapshot(found, snapshot)

    def delete_snapshot(self, snapshot: dict[str, Any]) -> None:
        self.drop_snapshot(self.snapshot_id(snapshot, "snapshot"))

    def give_up_snapshot(self, key: str, volume: Any) -> None:  # noqa: ARG002  found by the key alone
        found = self.snapshot_made(key)
        if found is not None:
            self.drop_snapshot(found.id)

    def check_growth(self, volume: Any, growth: dict[str, Any]) -> None:
        size = gigabytes(growth_to_size(growth, ("size",), self.name), "growth.size")
        if size is None or size <= float(volume.size or 0):
            raise InvalidParameter("growth.size", shown(growth.get("size")), f"more than the {volume.size} GB it has")

    def grow(self, volume: Any, growth: dict[str, Any]) -> Any:
        size = gigabytes(growth["size"], "growth.size") or 0
        found = self.there(volume)
        if found.gigabytes < size:
            volume = self.enlarge(found, volume, size)
        if volume.device is not None:
            await_size(self.context.host, volume.device, size * GIGABYTE)
        return self.as_volume(self.there(volume), volume)

    # For the types

    def device_here(self, found: Found) -> str | None:
        """Give the device of a volume where it is attached here; None else."""
        return self.device(found) if self.cloud.here in found.holders else None

    def snapshot_of(self, snap: dict[str, Any], path: str) -> Snapshot:
        """Find the snapshot that a volume is to be made from.

        :raises InvalidParameter: it is of another type, or has no id.
        :raises NotFound: it is gone.
        """
        if snap.get("type", self.name) != self.name:
            raise InvalidParameter(f"{path}.type", shown(snap.get("type")), f"{self.name}, as the volume")
        identity = self.snapshot_id(snap, path)
        found: Snapshot | None = self.cloud.snapshot(identity)
        if found is None:
            raise NotFound(f"There is no snapshot {identity}. Nothing was made.", {"id": identity})
        return found

    def snapshot_id(self, snapshot: dict[str, Any], path: str) -> str:
        """Give a snapshot's id, which may be sent.

        :raises InvalidParameter: it has none of the cloud's form.
        """
        identity = snapshot.get("id")
        if not isinstance(identity, str) or not self.snapshot_ids.fullmatch(identity):
            raise InvalidParameter(f"{path}.id", shown(identity), "the id of a snapshot, which storage.snapshot gave")
        return identity

    def as_snapshot(self, found: Snapshot, known: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002  for types
        """Give a snapshot's dict as it is now.

        :param known: what was known of it before.
        """
        return {
            "type": self.name,
            "id": found.id,
            "description": found.description,
            "tags": plain_tags(found.tags),
            "status": self.statuses.get(found.status, "pending"),
            "size": found.size or None,
        }

    def taken_within(
        self, still: Still, begin: Callable[[float], Begun], taken: Callable[[Begun], Snapshot | None], identity: str
    ) -> Snapshot:
        """Take a snapshot while a volume's file system stands still, and no longer than that may.

        :param begin: asks for it; gets the seconds for which it may ask again.
        :param taken: gives it once what is written to the volume is not in it any more; gets what `begin` gave.
        :param identity: the volume's id.
        """
        limit = self.context.settings.storage.freeze_limit
        with still():
            begun = begin(limit / 4)
            return wait_until(
                lambda: taken(begun),
                f"taking a snapshot of the {self.what} {identity}",
                limit=limit,
                pause=0.1,
                longest_pause=0.5,
            )

    def _refuse_held(self, found: Found, unchanged: str) -> None:
        if found.holders:
            raise Refused(
                f"The {self.what} {found.id} is attached to {self.holder}{', '.join(found.holders)}. {unchanged}; "
                "detach it there first.",
                {"id": found.id, "attached_to": list(found.holders)},
            )


def gigabytes(size: Size | None, path: str) -> int | None:
    """Give a size in whole GB, as clouds sell it; None where none is said."""
    return None if size is None else size_in_bytes(size, path, unit=GIGABYTE) // GIGABYTE


def name_of(key: str) -> str:
    """Give the name of what is made under a key and has no other."""
    return f"scalarizr-{key}"[:255]


def plain_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Give tags without the agent's own."""
    return {name: value for name, value in tags.items() if name != KEY_TAG}
