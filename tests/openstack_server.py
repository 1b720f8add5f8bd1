"""An OpenStack cloud as its API references describe it: Keystone v3, Cinder v3, Nova's volume attachments, metadata.

States change after a few looks. As much as volumes need.
"""

import json
import subprocess
import uuid
from dataclasses import dataclass, field
from typing import Any

from provider_server import Answer, CloudServer, Devices, Request

SERVER = "0b1c2d3e-4f50-4617-8829-3a4b5c6d7e8f"
OTHER_SERVER = "99999999-4f50-4617-8829-3a4b5c6d7e8f"
PROJECT = "5f0c1b2a3d4e4f5061728394a5b6c7d8"
ACCESS = {
    "username": "agent",
    "password": "a-planted-password",
    "tenant_name": "fleet",
    "cloud_location": "RegionOne",
    "domain_name": "Customers",
}
_LOOKS = 1
_NEWEST = "3.70"


@dataclass
class Volume:
    """A volume; `becoming` is its state after so many looks more."""

    id: str
    name: str
    size: int
    metadata: dict[str, str]
    kind: str
    status: str
    becoming: tuple[int, str] | None = None
    servers: list[str] = field(default_factory=list)


class OpenstackServer(CloudServer):
    """A cloud with one project and two servers, whose volumes are `devices`.

    :ivar newest: the newest microversion of its Cinder.
    """

    def __init__(self, devices: Devices) -> None:
        self.newest = _NEWEST
        self.tokens: set[str] = set()
        self.logins = 0
        super().__init__(devices, "openstack")
        self.access = {**ACCESS, "keystone_url": f"{self.url}/identity/v3"}

    def attach_elsewhere(self, identity: str) -> str:
        self.volumes[identity].status, self.volumes[identity].servers = "in-use", [OTHER_SERVER]
        return f"the server {OTHER_SERVER}"

    def let_go(self, identity: str) -> None:
        self.volumes[identity].status, self.volumes[identity].servers = "available", []

    def reset(self) -> None:
        super().reset()
        self.newest = _NEWEST

    def answer(self, request: Request) -> Any:
        service, _, rest = request.path.lstrip("/").partition("/")
        if service == "openstack":
            return {"uuid": SERVER, "availability_zone": "nova"}
        if service == "identity":
            return self._identity(rest.strip("/"), request)
        if service == "volume" and rest.strip("/") in ("", "v3"):
            raise Answer(300 if not rest.strip("/") else 200, {"versions": [self._version("v3.0", "3.0", self.newest)]})
        if service == "compute" and rest.strip("/") in ("", "v2.1"):
            version = self._version("v2.1", "2.1", "2.95", "compute")
            return {"version": version} if rest.strip("/") else {"versions": [version]}
        if request.headers.get("x-auth-token") not in self.tokens:
            raise Answer(401, {"error": {"code": 401, "title": "Unauthorized", "message": "Unauthorized"}})
        self._expire()
        if service == "volume":
            return self._cinder(rest.removeprefix(f"v3/{PROJECT}/"), request)
        return self._nova(rest.removeprefix("v2.1/"), request)

    def _version(self, name: str, least: str, newest: str, service: str = "volume") -> dict[str, Any]:
        links = [{"rel": "self", "href": f"{self.url}/{service}/{name.removesuffix('.0')}/"}]
        return {"id": name, "status": "CURRENT", "version": newest, "min_version": least, "links": links}

    def _expire(self) -> None:
        if self.fault("expire tokens"):
            self.tokens.clear()
            raise Answer(401, {"error": {"code": 401, "title": "Unauthorized", "message": "Unauthorized"}})

    def _identity(self, path: str, request: Request) -> Any:
        version = {
            "id": "v3.14",
            "status": "stable",
            "links": [{"rel": "self", "href": f"{self.url}/identity/v3/"}],
            "media-types": [],
        }
        if path == "":
            raise Answer(300, {"versions": {"values": [version]}})
        if path == "v3":
            return {"version": version}
        if path != "v3/auth/tokens":
            raise Answer(404, {"error": {"code": 404, "title": "Not Found", "message": "The resource was not found."}})
        auth = request.body["auth"]
        user = auth["identity"]["password"]["user"]
        scope = auth["scope"]["project"]
        domain = {"name": ACCESS["domain_name"]}
        known = (user["name"], user["password"], scope["name"]) == (
            ACCESS["username"], ACCESS["password"], ACCESS["tenant_name"],
        )  # fmt: skip
        if not known or user["domain"] != domain or scope["domain"] != domain:
            message = "The request you have made requires authentication."
            raise Answer(401, {"error": {"code": 401, "title": "Unauthorized", "message": message}})
        token = uuid.uuid4().hex
        self.tokens.add(token)
        self.logins += 1
        services = {"volumev3": f"{self.url}/volume/v3/{PROJECT}", "compute": f"{self.url}/compute/v2.1"}
        catalog = [
            {
                "type": kind,
                "name": kind,
                "id": kind,
                "endpoints": [
                    {"interface": "public", "region": "RegionOne", "region_id": "RegionOne", "url": url, "id": kind}
                ],
            }
            for kind, url in services.items()
        ]
        body = {
            "token": {
                "methods": ["password"],
                "expires_at": "2099-01-01T00:00:00.000000Z",
                "issued_at": "2020-01-01T00:00:00.000000Z",
                "user": {"id": "u", "name": user["name"], "domain": {"id": "d", "name": ACCESS["domain_name"]}},
                "project": {"id": PROJECT, "name": "fleet", "domain": {"id": "d", "name": ACCESS["domain_name"]}},
                "roles": [{"id": "m", "name": "member"}],
                "catalog": catalog,
            }
        }
        raise Answer(201, body, {"X-Subject-Token": token})

    def _cinder(self, path: str, request: Request) -> Any:
        kind, _, rest = path.partition("/")
        call = {
            ("POST", "volumes"): self._post_volume,
            ("GET", "volumes"): self._get_volume,
            ("DELETE", "volumes"): self._delete_volume,
            ("POST", "snapshots"): self._post_snapshot,
            ("GET", "snapshots"): self._get_snapshot,
            ("DELETE", "snapshots"): self._delete_snapshot,
        }[request.method, kind]
        return call(rest, request)

    def _post_volume(self, rest: str, request: Request) -> Any:
        identity, _, action = rest.partition("/")
        if action == "action":
            return self._extend(self._volume(identity), request)
        how = self.fault("create volume")
        wish = request.body["volume"]
        source = wish.get("snapshot_id")
        if source is not None and self.snapshots[source]["status"] != "available":
            raise problem(400, "badRequest", "Invalid snapshot: Originating snapshot status must be one of available")
        made = Volume(
            id=str(uuid.uuid4()),
            name=wish.get("name") or "",
            size=wish["size"],
            metadata=wish.get("metadata") or {},
            kind=wish.get("volume_type") or "__DEFAULT__",
            status="creating",
            becoming=(_LOOKS, "error" if how == "error" else "available"),
        )
        self.devices.make(made.id, made.size, source)
        self.volumes[made.id] = made
        if how == "lost answer":
            raise Answer(503, {"message": "Service Unavailable"})
        raise Answer(202, {"volume": self._shown(made)})

    def _extend(self, volume: Volume, request: Request) -> Any:
        how = self.fault("extend volume")
        size = request.body["os-extend"]["new_size"]
        version = request.headers.get("openstack-api-version", "volume 3.0").split()[1]
        in_use = tuple(map(int, version.split("."))) >= (3, 42)
        if volume.status != "available" and not (volume.status == "in-use" and in_use):
            message = f"Invalid volume: Volume {volume.id} status must be '{{'status': 'available'}}' to extend."
            raise problem(400, "badRequest", message)
        volume.becoming = (_LOOKS, volume.status)
        volume.status = "extending"
        if how != "fails later":
            volume.size = size
            self.devices.grow(volume.id, size)
        raise Answer(202)

    def _get_volume(self, rest: str, request: Request) -> Any:
        self.fault("get volume")
        if rest == "detail":
            name = request.query.get("name")
            found = [self._shown(one) for one in self.volumes.values() if name in (None, one.name)]
            return {"volumes": found}
        volume = self._volume(rest)
        if volume.becoming is not None:
            looks, status = volume.becoming
            volume.becoming = (looks - 1, status)
            if looks <= 0:
                volume.status, volume.becoming = status, None
                if status == "deleted":
                    del self.volumes[volume.id]
                    self.devices.delete(volume.id)
                    return self._volume(rest)
                if status == "in-use" and not volume.servers:
                    volume.servers = [SERVER]
                elif status == "available":
                    volume.servers = []
        return {"volume": self._shown(volume)}

    def _delete_volume(self, rest: str, _request: Request) -> Any:
        self.fault("delete volume")
        volume = self._volume(rest)
        if any(snapshot["volume_id"] == volume.id for snapshot in self.snapshots.values()):
            message = "Invalid volume: Volume must not have dependent snapshots."
            raise problem(400, "badRequest", message)
        if volume.status not in ("available", "error"):
            raise problem(400, "badRequest", f"Invalid volume: Volume status must be available, is {volume.status}.")
        volume.status, volume.becoming = "deleting", (_LOOKS, "deleted")
        raise Answer(202)

    def _post_snapshot(self, _rest: str, request: Request) -> Any:
        how = self.fault("create snapshot")
        wish = request.body["snapshot"]
        volume = self._volume(wish["volume_id"])
        if volume.status != "available" and not (volume.status == "in-use" and wish.get("force") is True):
            raise problem(400, "badRequest", f"Invalid volume: Volume {volume.id} status must be available.")
        identity = str(uuid.uuid4())
        subprocess.run(["cp", "--sparse=always", self.devices.file(volume.id), self.devices.file(identity)], check=True)
        self.snapshots[identity] = {
            "id": identity,
            "name": wish.get("name"),
            "description": wish.get("description"),
            "metadata": wish.get("metadata") or {},
            "size": volume.size,
            "status": "creating",
            "volume_id": volume.id,
            "looks": _LOOKS + 1,
            "becoming": "error" if how == "error" else "available",
        }
        raise Answer(202, {"snapshot": self._shown_snapshot(identity)})

    def _get_snapshot(self, rest: str, request: Request) -> Any:
        if rest == "detail":
            name = request.query.get("name")
            found = [self._shown_snapshot(one) for one, it in self.snapshots.items() if name in (None, it["name"])]
            return {"snapshots": found}
        snapshot = self._snapshot(rest)
        snapshot["looks"] -= 1
        if snapshot["looks"] <= 0:
            snapshot["status"] = snapshot["becoming"]
            if snapshot["becoming"] == "deleted":
                del self.snapshots[rest]
                self.devices.delete(rest)
                return self._snapshot(rest)
        return {"snapshot": self._shown_snapshot(rest)}

    def _delete_snapshot(self, rest: str, _request: Request) -> Any:
        self._snapshot(rest).update(status="deleting", becoming="deleted", looks=_LOOKS + 1)
        raise Answer(202)

    def _nova(self, path: str, request: Request) -> Any:
        parts = path.split("/")
        if parts[:1] != ["servers"] or parts[2:3] != ["os-volume_attachments"]:
            raise problem(404, "itemNotFound", f"{path} could not be found.")
        if parts[1] not in (SERVER, OTHER_SERVER):
            raise problem(404, "itemNotFound", f"Instance {parts[1]} could not be found.")
        if request.method == "POST":
            return self._attach(self._volume(request.body["volumeAttachment"]["volumeId"]), parts[1])
        return self._detach(self._volume(parts[3]), parts[1])

    def _attach(self, volume: Volume, server: str) -> Any:
        how = self.fault("attach")
        if volume.status != "available":
            raise problem(400, "badRequest", f"Invalid volume: volume {volume.id} is already attached")
        volume.status, volume.becoming = "attaching", (_LOOKS, "available" if how == "gives up" else "in-use")
        if how != "gives up":
            self.devices.attach(volume.id, f"virtio-{volume.id[:20]}")
        return {"volumeAttachment": {"id": volume.id, "volumeId": volume.id, "serverId": server, "device": "/dev/vdb"}}

    def _detach(self, volume: Volume, server: str) -> Any:
        how = self.fault("detach")
        if server not in volume.servers:
            raise problem(404, "itemNotFound", f"Instance {server} is not attached to volume {volume.id}.")
        volume.status, volume.becoming = "detaching", (_LOOKS, "in-use" if how == "gives up" else "available")
        if how != "gives up":
            self.devices.detach(volume.id)
        raise Answer(202)

    def _volume(self, identity: str) -> Volume:
        if identity not in self.volumes:
            raise problem(404, "itemNotFound", f"Volume {identity} could not be found.")
        return self.volumes[identity]

    def _snapshot(self, identity: str) -> dict[str, Any]:
        if identity not in self.snapshots:
            raise problem(404, "itemNotFound", f"Snapshot {identity} could not be found.")
        return self.snapshots[identity]

    def _shown(self, volume: Volume) -> dict[str, Any]:
        attachments = [
            {"server_id": server, "volume_id": volume.id, "attachment_id": volume.id, "device": "/dev/vdb"}
            for server in volume.servers
        ]
        return {
            "id": volume.id,
            "name": volume.name,
            "size": volume.size,
            "metadata": volume.metadata,
            "volume_type": volume.kind,
            "availability_zone": "nova",
            "status": volume.status,
            "bootable": "false",
            "attachments": attachments,
        }

    def _shown_snapshot(self, identity: str) -> dict[str, Any]:
        snapshot = self.snapshots[identity]
        return json.loads(json.dumps({k: v for k, v in snapshot.items() if k not in ("looks", "becoming")}))


def problem(status: int, name: str, message: str) -> Answer:
    return Answer(status, {name: {"code": status, "message": message}})
