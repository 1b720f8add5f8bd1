"""Google's Compute Engine as its REST reference describes it (v1), and the metadata server: as much as disks need.

Operations take a few looks to end; tokens are the JWTs that a service account signs, checked with its public key.
"""

import base64
import datetime
import json
import re
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from provider_server import Answer, CloudServer, Devices, Request

PROJECT, ZONE, INSTANCE = "a-project", "europe-west1-b", "web-1"
ACCOUNT = "agent@a-project.iam.gserviceaccount.com"
_COMPUTE = f"/compute/v1/projects/{PROJECT}/"
_LOOKS = 2
_NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")


class Account:
    """A service account and what a control plane sends of it."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.pem = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def access(self) -> dict[str, str]:
        return {
            "service_account_name": ACCOUNT,
            "key": base64.b64encode(self.pem).decode(),
            "project_id": PROJECT,
        }

    def access_with_pkcs12(self) -> dict[str, str]:
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "agent")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self.key.public_key())
            .serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
            .sign(self.key, hashes.SHA256())
        )  # fmt: skip
        data = pkcs12.serialize_key_and_certificates(
            b"privatekey", self.key, certificate, None, serialization.BestAvailableEncryption(b"notasecret")
        )
        return {**self.access(), "key": base64.b64encode(data).decode()}

    def access_with_json_key(self) -> dict[str, str]:
        key = {
            "type": "service_account",
            "project_id": PROJECT,
            "client_email": ACCOUNT,
            "private_key": self.pem.decode(),
            # Not to be asked: it came over the wire.
            "token_uri": "http://127.0.0.1:1/token",
        }
        return {"json_key": json.dumps(key)}


@dataclass
class Disk:
    name: str
    size: int
    kind: str
    labels: dict[str, str]
    users: list[str] = field(default_factory=list)
    looks: int = 0


@dataclass
class Operation:
    name: str
    zone: str | None
    looks: int
    error: dict[str, Any] | None = None


class GceServer(CloudServer):
    """Compute Engine with one project, zone and instance, whose disks are `devices`."""

    system = "boot"

    def __init__(self, devices: Devices, account: Account) -> None:
        self.account = account
        self.access = account.access()
        self.operations: dict[str, Operation] = {}
        self.attached: list[dict[str, Any]] = [
            {"deviceName": "boot", "source": self.link_of("boot"), "boot": True, "mode": "READ_WRITE"}
        ]
        self.other_instance_has: set[str] = set()
        super().__init__(devices, "gce")
        self.volumes["boot"] = Disk("boot", 10, "pd-balanced", {}, [self.instance_link])
        self.settings += f'endpoint_url = "{self.url}"\n'

    def attach_elsewhere(self, identity: str) -> str:
        self.volumes[identity].users = [self.instance_link.replace(INSTANCE, "web-2")]
        return f"zones/{ZONE}/instances/web-2"

    def let_go(self, identity: str) -> None:
        self.volumes[identity].users = []

    @property
    def instance_link(self) -> str:
        return f"https://www.googleapis.com{_COMPUTE}zones/{ZONE}/instances/{INSTANCE}"

    @staticmethod
    def link_of(disk: str) -> str:
        return f"https://www.googleapis.com{_COMPUTE}zones/{ZONE}/disks/{disk}"

    def answer(self, request: Request) -> Any:
        if request.path.startswith("/computeMetadata/v1/"):
            return self._metadata(request)
        self._authenticate(request)
        if not request.path.startswith(_COMPUTE):
            raise problem(404, "notFound", f"The resource '{request.path}' was not found")
        parts = request.path.removeprefix(_COMPUTE).split("/")
        if parts[0] == "zones":
            if parts[1] != ZONE:
                raise problem(404, "notFound", f"The resource 'projects/{PROJECT}/zones/{parts[1]}' was not found")
            parts = parts[2:]
        elif parts[0] == "global":
            parts = ["global", *parts[1:]]
        route = {
            ("GET", "disks"): self._get_disk,
            ("POST", "disks"): self._post_disk,
            ("DELETE", "disks"): self._delete_disk,
            ("GET", "instances"): self._get_instance,
            ("POST", "instances"): self._post_instance,
            ("GET", "operations"): self._get_operation,
            ("GET", "global"): self._get_global,
            ("DELETE", "global"): self._delete_global,
        }[request.method, parts[0]]
        return route(parts[1:], request)

    def _metadata(self, request: Request) -> Any:
        if request.headers.get("metadata-flavor") != "Google":
            raise Answer(403, "Missing required header: Metadata-Flavor")
        facts = {
            "instance/name": INSTANCE,
            "instance/zone": f"projects/1234/zones/{ZONE}",
            "project/project-id": PROJECT,
        }
        path = request.path.removeprefix("/computeMetadata/v1/")
        if path not in facts:
            raise Answer(404, "not found")
        raise Answer(200, facts[path], {"Metadata-Flavor": "Google"})

    def _authenticate(self, request: Request) -> None:
        self.fault("authenticate")
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        try:
            head, payload, signature = token.split(".")
            public = self.account.key.public_key()
            public.verify(_decode(signature), f"{head}.{payload}".encode(), padding.PKCS1v15(), hashes.SHA256())
            claims = json.loads(_decode(payload))
        except (ValueError, InvalidSignature):
            raise problem(401, "authError", "Request had invalid authentication credentials.") from None
        if claims["iss"] != ACCOUNT or claims["exp"] < time.time():
            raise problem(401, "authError", "Request had invalid authentication credentials.")

    def _get_disk(self, parts: list[str], _request: Request) -> Any:
        self.fault("disks.get")
        disk = self._disk(parts[0])
        disk.looks = max(disk.looks - 1, 0)
        return {
            "kind": "compute#disk",
            "id": str(abs(hash(disk.name))),
            "name": disk.name,
            "sizeGb": str(disk.size),
            "zone": f"https://www.googleapis.com{_COMPUTE}zones/{ZONE}",
            "type": f"https://www.googleapis.com{_COMPUTE}zones/{ZONE}/diskTypes/{disk.kind}",
            "status": "CREATING" if disk.looks else "READY",
            "labels": disk.labels,
            "selfLink": self.link_of(disk.name),
            **({"users": disk.users} if disk.users else {}),
        }

    def _post_disk(self, parts: list[str], request: Request) -> Any:
        if not parts:
            return self._insert(request.body)
        name, action = parts
        if action == "resize":
            return self._resize(self._disk(name), int(request.body["sizeGb"]))
        if action == "createSnapshot":
            return self._create_snapshot(self._disk(name), request.body)
        raise problem(404, "notFound", action)

    def _insert(self, body: dict[str, Any]) -> Any:
        how = self.fault("disks.insert")
        name = body["name"]
        if not _NAME.fullmatch(name):
            raise problem(400, "invalid", f"Invalid value for field 'resource.name': '{name}'.")
        if name in self.volumes:
            raise problem(409, "alreadyExists", f"The resource '{self.link_of(name)}' already exists")
        if isinstance(how, dict):
            return self._begin(ZONE, how)
        source = None
        size = int(body.get("sizeGb", 0))
        if "sourceSnapshot" in body:
            source = body["sourceSnapshot"].rpartition("/")[2]
            if source not in self.snapshots:
                raise problem(404, "notFound", f"The resource '{body['sourceSnapshot']}' was not found")
            size = size or int(self.snapshots[source]["diskSizeGb"])
        self.devices.make(name, size, source)
        kind = body.get("type", "diskTypes/pd-standard").rpartition("/")[2]
        self.volumes[name] = Disk(name, size, kind, body.get("labels", {}), looks=_LOOKS)
        if how == "lost answer":
            raise problem(503, "backendError", "Backend Error")
        return self._begin(ZONE)

    def _delete_disk(self, parts: list[str], _request: Request) -> Any:
        self.fault("disks.delete")
        disk = self._disk(parts[0])
        if disk.users:
            raise problem(
                400,
                "resourceInUseByAnotherResource",
                f"The disk resource '{self.link_of(disk.name)}' is already being used by '{disk.users[0]}'",
            )
        del self.volumes[disk.name]
        self.devices.delete(disk.name)
        return self._begin(ZONE)

    def _resize(self, disk: Disk, size: int) -> Any:
        how = self.fault("disks.resize")
        if size <= disk.size:
            raise problem(400, "invalid", f"New disk size '{size}' must be larger than existing size '{disk.size}'.")
        if isinstance(how, dict):
            return self._begin(ZONE, how)
        disk.size = size
        self.devices.grow(disk.name, size)
        return self._begin(ZONE)

    def _create_snapshot(self, disk: Disk, body: dict[str, Any]) -> Any:
        how = self.fault("disks.createSnapshot")
        name = body["name"]
        if name in self.snapshots:
            raise problem(409, "alreadyExists", f"The resource 'global/snapshots/{name}' already exists")
        if isinstance(how, dict):
            return self._begin(ZONE, how)
        subprocess.run(["cp", "--sparse=always", self.devices.file(disk.name), self.devices.file(name)], check=True)
        self.snapshots[name] = {
            "name": name,
            "description": body.get("description", ""),
            "labels": body.get("labels", {}),
            "diskSizeGb": str(disk.size),
            "statuses": ["CREATING", "UPLOADING", "UPLOADING", "UPLOADING", "READY"],
        }
        # The operation ends only when all is uploaded.
        return self._begin(ZONE, looks=20)

    def _get_instance(self, parts: list[str], _request: Request) -> Any:
        self._check_instance(parts[0])
        return {"name": INSTANCE, "disks": self.attached, "status": "RUNNING"}

    def _post_instance(self, parts: list[str], request: Request) -> Any:
        self._check_instance(parts[0])
        if parts[1] == "attachDisk":
            return self._attach(request.body)
        return self._detach(request.query["deviceName"])

    def _attach(self, body: dict[str, Any]) -> Any:
        how = self.fault("instances.attachDisk")
        disk = self._disk(body["source"].rpartition("/")[2])
        if disk.users:
            raise problem(
                400,
                "resourceInUseByAnotherResource",
                f"The disk resource '{self.link_of(disk.name)}' is already being used by '{disk.users[0]}'",
            )
        if isinstance(how, dict):
            return self._begin(ZONE, how)
        disk.users.append(self.instance_link)
        source = self.link_of(disk.name).replace(PROJECT, "1234")  # by the project's number, as it may be
        self.attached.append({"deviceName": body["deviceName"], "source": source, "boot": False})
        if how != "no device":
            self.devices.attach(disk.name, f"google-{body['deviceName']}")
        return self._begin(ZONE)

    def _detach(self, device_name: str) -> Any:
        self.fault("instances.detachDisk")
        for one in self.attached:
            if one["deviceName"] == device_name:
                name = one["source"].rpartition("/")[2]
                self.devices.detach(name)
                self.volumes[name].users.remove(self.instance_link)
                self.attached.remove(one)
                return self._begin(ZONE)
        raise problem(400, "invalid", f"No attached disk found with device name '{device_name}'")

    def _get_operation(self, parts: list[str], _request: Request) -> Any:
        self.fault("operations.get")
        operation = self.operations[parts[0]]
        operation.looks -= 1
        return self._shown(operation)

    def _get_global(self, parts: list[str], request: Request) -> Any:
        kind, name = parts
        if kind == "operations":
            return self._get_operation([name], request)
        self.fault("snapshots.get")
        snapshot = self._snapshot(name)
        if len(snapshot["statuses"]) > 1:
            status = snapshot["statuses"].pop(0)
        else:
            status = snapshot["statuses"][0]
        return {**{key: value for key, value in snapshot.items() if key != "statuses"}, "status": status}

    def _delete_global(self, parts: list[str], _request: Request) -> Any:
        self._snapshot(parts[1])
        del self.snapshots[parts[1]]
        self.devices.delete(parts[1])
        return self._begin(None)

    def _disk(self, name: str) -> Disk:
        if name not in self.volumes:
            raise problem(404, "notFound", f"The resource '{self.link_of(name)}' was not found")
        return self.volumes[name]

    def _snapshot(self, name: str) -> dict[str, Any]:
        if name not in self.snapshots:
            raise problem(404, "notFound", f"The resource 'projects/{PROJECT}/global/snapshots/{name}' was not found")
        return self.snapshots[name]

    def _check_instance(self, name: str) -> None:
        if name != INSTANCE:
            raise problem(404, "notFound", f"The resource 'instances/{name}' was not found")

    def _begin(self, zone: str | None, error: dict[str, Any] | None = None, looks: int = _LOOKS) -> Any:
        name = f"operation-{len(self.operations)}"
        self.operations[name] = Operation(name, zone, looks, error)
        return self._shown(self.operations[name])

    def _shown(self, operation: Operation) -> dict[str, Any]:
        done = operation.looks <= 0
        shown: dict[str, Any] = {
            "kind": "compute#operation",
            "name": operation.name,
            "status": "DONE" if done else "RUNNING",
            "progress": 100 if done else 0,
        }
        if operation.zone:
            shown["zone"] = f"https://www.googleapis.com{_COMPUTE}zones/{operation.zone}"
        if done and operation.error:
            shown["error"] = {"errors": [operation.error]}
            shown["httpErrorStatusCode"] = 403
            shown["httpErrorMessage"] = "FORBIDDEN"
        return shown


def problem(status: int, reason: str, message: str) -> Answer:
    error = {"message": message, "domain": "global", "reason": reason}
    return Answer(status, {"error": {"code": status, "message": message, "errors": [error]}})


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
