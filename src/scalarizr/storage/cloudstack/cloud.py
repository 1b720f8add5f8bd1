"""Volumes, snapshots and this server, as CloudStack has them."""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from scalarizr.errors import InvalidParameter, NotFound, OutsideFailure
from scalarizr.settings.model import Cloudstack
from scalarizr.storage.cloudstack.access import connect
from scalarizr.storage.cloudstack.errors import of_error, passes, translated
from scalarizr.storage.model import GIGABYTE
from scalarizr.storage.provider import PATIENCE, answered, instance_metadata, not_known
from scalarizr.storage.steps import wait_until

UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_UNCHANGED = "Nothing was changed."
_METADATA = "/latest/meta-data/instance-id"
_JOB = 1200.0
_DONE, _FAILED = 1, 2
_GONE = ("Destroy", "Destroying", "Expunging", "Expunged")


class CloudVolume(msgspec.Struct, frozen=True):
    """A volume.

    :param size: bytes.
    :param holders: the UUID of the server that it is attached to; none where it is attached to none.
    :param position: CloudStack's `deviceid`: 0 is the root disk.
    """

    id: str
    name: str
    size: int
    state: str
    zone: str
    offering: str | None
    tags: dict[str, str]
    holders: tuple[str, ...]
    position: int | None
    root: bool

    @property
    def gigabytes(self) -> int:
        """Its size in whole GB."""
        return self.size // GIGABYTE


class CloudSnapshot(msgspec.Struct, frozen=True):
    """A snapshot; `size` is that of the volume, in GB, rounded up. CloudStack keeps no description."""

    id: str
    name: str
    size: int
    status: str
    tags: dict[str, str]
    description: str = ""


class Offering(msgspec.Struct, frozen=True):
    """A disk offering; `size` in GB, None where it is the caller's to choose."""

    id: str
    name: str
    size: int | None


class Cloud:
    """CloudStack, for one call.

    :param settings: `[cloudstack]`.
    :raises ScalarizrError: from every method: what CloudStack, the network or the credentials refused, in words.
    """

    def __init__(self, settings: Cloudstack) -> None:
        self._settings = settings
        self._client: Any = None
        self._server: str | None = None

    @property
    def here(self) -> str:
        """This server's UUID."""
        if self._server is None:
            url = self._settings.metadata_url
            text = self._settings.instance_id or instance_metadata(url, _METADATA)
            # Old virtual routers tell a name of their own, such as i-2-34-VM.
            if text is None or not UUID.fullmatch(text):
                raise not_known("which server this is (its UUID)", "cloudstack", "instance_id", url)
            self._server = text
        return self._server

    def zone(self) -> str:
        """Give this server's zone."""
        found = self._ask("listVirtualMachines", f"look at the server {self.here}", id=self.here)
        for one in found.get("virtualmachine", []):
            return str(one["zoneid"])
        raise NotFound(f"CloudStack knows no server {self.here}. {_UNCHANGED}")

    def offerings(self) -> list[Offering]:
        """Give what disks can be had."""
        found = self._ask("listDiskOfferings", "list the disk offerings").get("diskoffering", [])
        return [
            Offering(one["id"], one["name"], None if one.get("iscustomized") else int(one["disksize"])) for one in found
        ]

    def volume(self, identity: str) -> CloudVolume | None:
        """Give a volume; None where there is none of that id."""
        return self._first_volume(f"look at the volume {identity}", id=identity)

    def volume_named(self, name: str) -> CloudVolume | None:
        """Give the volume of a name."""
        return self._first_volume(f"look for the volume {name}", name=name)

    def make_volume(self, name: str, wish: dict[str, Any]) -> CloudVolume:
        """Make a volume, unless one of that name is there: CloudStack makes another one each time that it is asked.

        :param wish: parameters of createVolume.
        """
        doing, left = f"make the volume {name}", "No volume was made."

        def begin() -> dict[str, Any]:
            found = self.volume_named(name)
            return {"id": found.id} if found is not None else self._call("createVolume", name=name, **wish)

        self.finish(self._begin(begin, doing, left), doing, left)
        made = self.volume_named(name)
        if made is None:
            raise OutsideFailure(f"CloudStack made the volume {name}, and does not know it any more.")
        return made

    def tag(self, kind: str, identity: str, tags: dict[str, str]) -> None:
        """Put tags on a volume or snapshot; those that it has stay."""
        if tags:
            given = [{"key": key, "value": value} for key, value in tags.items()]
            doing = f"tag {identity}"
            self._do("createTags", doing, "It has not these tags.", resourceids=identity, resourcetype=kind, tags=given)

    def attach_volume(self, identity: str) -> None:
        """Attach a volume to this server."""
        self._do(
            "attachVolume", f"attach the volume {identity} to the server {self.here}", "The volume is as it was.",
            id=identity, virtualmachineid=self.here,
        )  # fmt: skip

    def detach_volume(self, identity: str) -> None:
        """Detach a volume from this server."""
        self._do(
            "detachVolume", f"detach the volume {identity} from the server {self.here}", "It is still attached.",
            id=identity,
        )  # fmt: skip

    def delete_volume(self, identity: str) -> None:
        """Delete a volume; none of that id is as well."""
        try:
            self._do("deleteVolume", f"delete the volume {identity}", "It is still there.", id=identity)
        except NotFound:
            return

    def resize_volume(self, identity: str, size: int) -> None:
        """Make a volume larger.

        :param size: GB.
        """
        self._do(
            "resizeVolume", f"grow the volume {identity} to {size} GB", "It is as large as before.",
            id=identity, size=size,
        )  # fmt: skip

    def snapshot(self, identity: str) -> CloudSnapshot | None:
        """Give a snapshot; None where there is none of that id."""
        return self._first_snapshot(f"look at the snapshot {identity}", id=identity)

    def snapshot_named(self, name: str) -> CloudSnapshot | None:
        """Give the snapshot of a name."""
        return self._first_snapshot(f"look for the snapshot {name}", name=name)

    def begin_snapshot(self, volume: str, name: str, patience: float) -> dict[str, Any]:
        """Ask for a snapshot of a volume, unless one of that name is there.

        :param patience: seconds to ask again in where CloudStack has too much to do.
        :return: what `look_at` takes.
        """

        def begin() -> dict[str, Any]:
            found = self.snapshot_named(name)
            if found is not None:
                return {"id": found.id, "begun": True}
            return self._call("createSnapshot", volumeid=volume, name=name)

        return self._begin(begin, f"take a snapshot of the volume {volume}", "No snapshot was taken.", patience)

    def delete_snapshot(self, identity: str) -> None:
        """Delete a snapshot; none of that id is as well."""
        try:
            self._do("deleteSnapshot", f"delete the snapshot {identity}", "It is still there.", id=identity)
        except NotFound:
            return

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.session.close()
            self._client = None

    def look_at(self, begun: dict[str, Any], doing: str, left: str) -> bool:
        """Tell whether what was begun has ended well.

        :raises ScalarizrError: it has ended badly.
        """
        if "jobid" not in begun:
            return "begun" not in begun  # not everything is a job
        job = self._ask("queryAsyncJobResult", doing, left, jobid=begun["jobid"])
        if job.get("jobstatus") == _FAILED:
            raise of_error(job.get("jobresult"), doing, left)
        return bool(job.get("jobstatus") == _DONE)

    def finish(self, begun: dict[str, Any], doing: str, left: str) -> None:
        """Wait until what was begun has ended.

        :raises ScalarizrError: it ended badly, or not in time.
        """
        wait_until(lambda: self.look_at(begun, doing, left) or None, f"waiting for CloudStack to {doing}", limit=_JOB)

    def _do(self, command: str, doing: str, left: str, **parameters: Any) -> None:
        begun = self._ask(command, doing, left, **parameters)
        if begun.get("success") in (False, "false"):
            raise of_error(begun.get("displaytext", "it gave no reason"), doing, left)
        self.finish(begun, doing, left)

    def _first_volume(self, doing: str, **by: str) -> CloudVolume | None:
        try:
            found = self._ask("listVolumes", doing, **by).get("volume", [])
        except NotFound:
            return None
        return next((_volume(one) for one in found if one.get("state") not in _GONE), None)

    def _first_snapshot(self, doing: str, **by: str) -> CloudSnapshot | None:
        try:
            found = self._ask("listSnapshots", doing, **by).get("snapshot", [])
        except NotFound:
            return None
        return next((_snapshot(one) for one in found if one.get("state") not in _GONE), None)

    def _ask(self, command: str, doing: str, left: str = _UNCHANGED, **parameters: Any) -> dict[str, Any]:
        return self._begin(lambda: self._call(command, **parameters), doing, left)

    def _begin(
        self, call: Callable[[], dict[str, Any]], doing: str, left: str, patience: float = PATIENCE
    ) -> dict[str, Any]:
        found = answered(call, passes, lambda failure: translated(failure, doing, left), patience)
        if not isinstance(found, dict):
            raise OutsideFailure(f"What CloudStack answered, asked to {doing}, cannot be read. {left}")
        return found

    def _call(self, command: str, **parameters: Any) -> dict[str, Any]:
        if self._client is None:
            self._client = connect()
        found: dict[str, Any] = getattr(self._client, command)(**parameters)
        return found


def checked_id(value: object, path: str, what: str) -> str:
    """Give an id that may be sent.

    :raises InvalidParameter: it is none.
    """
    if not isinstance(value, str) or not UUID.fullmatch(value):
        raise InvalidParameter(path, str(value)[:60], f"{what}, a UUID")
    return value


def whole_gigabytes(size: int) -> int:
    """Give bytes in GB, rounded up."""
    return -(-size // GIGABYTE)


def _tags(found: dict[str, Any]) -> dict[str, str]:
    return {str(tag["key"]): str(tag.get("value", "")) for tag in found.get("tags") or []}


def _volume(found: dict[str, Any]) -> CloudVolume:
    position = found.get("deviceid")
    return CloudVolume(
        id=found["id"],
        name=found.get("name", ""),
        size=int(found["size"]),
        state=found.get("state", ""),
        zone=found.get("zoneid", ""),
        offering=found.get("diskofferingid"),
        tags=_tags(found),
        holders=(found["virtualmachineid"],) if found.get("virtualmachineid") else (),
        position=int(position) if position is not None else None,
        root=found.get("type") == "ROOT",
    )


def _snapshot(found: dict[str, Any]) -> CloudSnapshot:
    return CloudSnapshot(
        id=found["id"],
        name=found.get("name", ""),
        size=whole_gigabytes(int(found.get("virtualsize") or 0)),
        status=found.get("state", ""),
        tags=_tags(found),
    )
