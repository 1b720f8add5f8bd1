"""Disks, snapshots and this instance, as Google's Compute Engine has them."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from scalarizr.errors import AlreadyExists, NotFound, OutsideFailure, Refused
from scalarizr.settings.model import Gce
from scalarizr.storage.gce.access import Access, google
from scalarizr.storage.gce.errors import of_operation, passes, translated
from scalarizr.storage.provider import PATIENCE, answered, instance_metadata, not_known, unless_so
from scalarizr.storage.steps import wait_until

# Seconds for one request; and for an operation, which Google's own tools give up on after as long.
_REQUEST = 30.0
_OPERATION = 600.0
_UNCHANGED = "Nothing was changed."


class Disk(msgspec.Struct, frozen=True):
    """A disk.

    :param name: unique in its zone.
    :param kind: `pd-ssd` and so on.
    :param tags: its labels.
    :param holders: the instances that it is attached to, each `zones/ZONE/instances/NAME`.
    :param link: what names it to other calls.
    """

    name: str
    zone: str
    gigabytes: int
    kind: str
    status: str
    tags: dict[str, str]
    holders: tuple[str, ...]
    link: str

    @property
    def id(self) -> str:
        """Its name."""
        return self.name


class Snapshot(msgspec.Struct, frozen=True):
    """A snapshot; `size` is that of the disk, in GB, `tags` its labels."""

    name: str
    size: int
    status: str
    description: str
    tags: dict[str, str]
    link: str

    @property
    def id(self) -> str:
        """Its name."""
        return self.name


class Compute:
    """Compute Engine, for one call.

    :param settings: `[gce]`.
    :raises ScalarizrError: from every method: what Google, the network or the credentials refused, in words.
    """

    def __init__(self, settings: Gce) -> None:
        self._settings = settings
        self._access = Access()
        self._clients: dict[str, Any] = {}
        self._facts: dict[str, str] = {}

    @property
    def project(self) -> str:
        """The project of the call."""
        return self._access.project or self._fact("project_id", "project/project-id", "the project")

    @property
    def zone(self) -> str:
        """This server's zone."""
        return self._fact("zone", "instance/zone", "the zone of this server").rpartition("/")[2]

    @property
    def instance(self) -> str:
        """This server's instance."""
        return self._fact("instance", "instance/name", "the instance that this server is")

    @property
    def here(self) -> str:
        """This server's instance, as it stands among a disk's holders."""
        return f"zones/{self.zone}/instances/{self.instance}"

    def disk(self, zone: str, name: str) -> Disk | None:
        """Give a disk; None where there is none of that name."""
        try:
            found = self._ask("Disks", "get", f"look at the disk {name}", zone=zone, disk=name)
        except NotFound:
            return None
        return Disk(
            name=found.name,
            zone=zone,
            gigabytes=int(found.size_gb),
            kind=_last(found.type_),
            status=found.status,
            tags=dict(found.labels),
            holders=tuple("/".join(user.split("/")[-4:]) for user in found.users),
            link=f"projects/{self.project}/zones/{zone}/disks/{found.name}",
        )

    def make_disk(self, zone: str, name: str, wish: Mapping[str, Any]) -> None:
        """Make a disk.

        :param wish: fields of the API's Disk.
        :raises AlreadyExists: there is one of that name.
        """
        self._do(
            "Disks", "insert_unary", f"make the disk {name}", "No disk was made.", zone=zone,
            disk_resource={"name": name, **wish},
        )  # fmt: skip

    def delete_disk(self, zone: str, name: str) -> None:
        """Delete a disk; none of that name is as well."""
        try:
            self._do("Disks", "delete_unary", f"delete the disk {name}", "It is still there.", zone=zone, disk=name)
        except NotFound:
            return

    def resize_disk(self, zone: str, name: str, size: int) -> None:
        """Make a disk larger.

        :param size: GB.
        """
        unless_so(
            lambda: self._do(
                "Disks", "resize_unary", f"grow the disk {name} to {size} GB", "It is as large as before.",
                zone=zone, disk=name, disks_resize_request_resource={"size_gb": size},
            ),
            lambda: (now := self.disk(zone, name)) is not None and now.gigabytes >= size,
        )  # fmt: skip

    def attach_disk(self, disk: Disk) -> None:
        """Attach a disk to this server, under its own name; what is there already stays."""
        unless_so(
            lambda: self._do(
                "Instances", "attach_disk_unary", f"attach the disk {disk.name} to {self.instance}",
                "The disk is as it was.", zone=self.zone, instance=self.instance,
                attached_disk_resource={"source": disk.link, "device_name": disk.name, "auto_delete": False},
            ),
            lambda: (now := self.disk(disk.zone, disk.name)) is not None and self.here in now.holders,
        )  # fmt: skip

    def detach_disk(self, disk: Disk) -> None:
        """Detach a disk from this server.

        :raises Refused: this server boots from it.
        """
        attached = self.attached(disk)
        if attached is None:
            return
        if attached.boot:
            raise Refused(f"{self.instance} boots from the disk {disk.name}: it is never detached. {_UNCHANGED}")
        unless_so(
            lambda: self._do(
                "Instances", "detach_disk_unary", f"detach the disk {disk.name} from {self.instance}",
                "It is still attached.", zone=self.zone, instance=self.instance, device_name=attached.device_name,
            ),
            lambda: self.attached(disk) is None,
        )  # fmt: skip

    def attached(self, disk: Disk) -> Any | None:
        """Give how a disk is attached to this server, as the API's AttachedDisk; None where it is not."""
        instance = self._ask(
            "Instances", "get", f"look at the instance {self.instance}", zone=self.zone, instance=self.instance
        )
        # Without the project, which links name now by its id and now by its number.
        wanted = ["zones", disk.zone, "disks", disk.name]
        return next((one for one in instance.disks if one.source.split("/")[-4:] == wanted), None)

    def begin_snapshot(
        self, disk: Disk, name: str, description: str, labels: dict[str, str], patience: float
    ) -> Any | None:
        """Ask for a snapshot of a disk.

        :param patience: seconds to ask again in where Google has too much to do.
        :return: the operation, for `look_at`; None where a try whose answer was lost began it.
        """
        try:
            return self._ask(
                "Disks", "create_snapshot_unary", f"take a snapshot of the disk {disk.name}",
                "No snapshot was taken.", patience, zone=disk.zone, disk=disk.name,
                snapshot_resource={"name": name, "description": description, "labels": labels},
            )  # fmt: skip
        except AlreadyExists:
            return None

    def snapshot(self, name: str) -> Snapshot | None:
        """Give a snapshot; None where there is none of that name."""
        try:
            found = self._ask("Snapshots", "get", f"look at the snapshot {name}", snapshot=name)
        except NotFound:
            return None
        return Snapshot(
            name=found.name,
            size=int(found.disk_size_gb),
            status=found.status,
            description=found.description,
            tags=dict(found.labels),
            link=f"projects/{self.project}/global/snapshots/{found.name}",
        )

    def delete_snapshot(self, name: str) -> None:
        """Delete a snapshot; none of that name is as well."""
        try:
            self._do("Snapshots", "delete_unary", f"delete the snapshot {name}", "It is still there.", snapshot=name)
        except NotFound:
            return

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.transport.close()
        self._clients.clear()

    def look_at(self, operation: Any, doing: str, left: str) -> bool:
        """Tell whether an operation has ended well.

        :raises ScalarizrError: it has ended badly.
        """
        place: dict[str, Any] = {"zone": _last(operation.zone)} if operation.zone else {}
        service = "ZoneOperations" if operation.zone else "GlobalOperations"
        if operation.status.name != "DONE":
            operation = self._ask(service, "get", doing, left, operation=operation.name, **place)
        if operation.status.name != "DONE":
            return False
        if operation.error.errors or operation.http_error_status_code:
            raise of_operation(operation, doing, left)
        return True

    def finish(self, operation: Any, doing: str, left: str, limit: float = _OPERATION) -> None:
        """Wait until an operation has ended.

        :raises ScalarizrError: it ended badly, or not in time.
        """
        wait_until(lambda: self.look_at(operation, doing, left) or None, f"waiting for Google to {doing}", limit=limit)

    def _do(self, service: str, method: str, doing: str, left: str = _UNCHANGED, **request: Any) -> None:
        self.finish(self._ask(service, method, doing, left, **request), doing, left)

    def _ask(
        self, service: str, method: str, doing: str, left: str = _UNCHANGED, patience: float = PATIENCE, **request: Any
    ) -> Any:
        function: Callable[..., Any] = getattr(self._client(service), method)
        wanted = {"project": self.project, **request}
        return answered(
            lambda: function(request=wanted, timeout=_REQUEST, retry=None),
            passes,
            lambda failure: translated(failure, doing, left, self._access.account),
            patience,
        )

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            compute_v1 = google("google.cloud.compute_v1")
            from google.api_core.client_options import ClientOptions

            options = ClientOptions(api_endpoint=self._settings.endpoint_url)
            kind = getattr(compute_v1, f"{service}Client")
            self._clients[service] = kind(credentials=self._access.credentials, client_options=options)
        return self._clients[service]

    def _fact(self, key: str, path: str, what: str) -> str:
        """Give a setting, or what the metadata service says in its place."""
        if key not in self._facts:
            url = self._settings.metadata_url
            text = getattr(self._settings, key) or instance_metadata(
                url, f"/computeMetadata/v1/{path}", {"Metadata-Flavor": "Google"}
            )
            if text is None:
                raise not_known(f"what {what} is", "gce", key, url)
            self._facts[key] = text
        return self._facts[key]


def _last(link: str) -> str:
    return link.rpartition("/")[2]


def failed(what: str, status: str) -> OutsideFailure:
    """Give the error for what Google gave up."""
    return OutsideFailure(f"Google says that {what} is in the state {status}, which does not end by itself.")
