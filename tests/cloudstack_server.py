"""CloudStack as its API reference describes it: signed requests, asynchronous jobs; and the virtual router's metadata.

As much as data disks need.
"""

import base64
import datetime
import hashlib
import hmac
import subprocess
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from provider_server import GIGABYTE, Answer, CloudServer, Devices, Request

SERVER = "3c8cbb45-77f2-4a28-bc29-1c4ad1d3ba18"
OTHER_SERVER = "11111111-77f2-4a28-bc29-1c4ad1d3ba18"
ZONE = "6f1cbb45-77f2-4a28-bc29-1c4ad1d3ba18"
CUSTOM, FIXED = "c0000000-0000-4000-8000-000000000001", "c0000000-0000-4000-8000-000000000002"
KEYS = {"api_key": "a-planted-api-key", "secret_key": "a-planted-secret-key"}
_LOOKS = 2


@dataclass
class Volume:
    id: str
    name: str
    size: int
    offering: str
    tags: dict[str, str] = field(default_factory=dict)
    server: str | None = None
    position: int | None = None
    state: str = "Allocated"


@dataclass
class Job:
    looks: int
    result: dict[str, Any]
    failed: bool = False


class CloudstackServer(CloudServer):
    """CloudStack with one zone and two servers, whose volumes are `devices`."""

    def __init__(self, devices: Devices) -> None:
        self.jobs: dict[str, Job] = {}
        # After so many looks a job has ended.
        self.looks = _LOOKS
        super().__init__(devices, "cloudstack")
        self.access = {**KEYS, "api_url": f"{self.url}/client/api"}

    def attach_elsewhere(self, identity: str) -> str:
        self.volumes[identity].server = OTHER_SERVER
        return f"the server {OTHER_SERVER}"

    def let_go(self, identity: str) -> None:
        self.volumes[identity].server = None

    def reset(self) -> None:
        super().reset()
        self.looks = _LOOKS

    def answer(self, request: Request) -> Any:
        if request.path == "/latest/meta-data/instance-id":
            raise Answer(200, SERVER)
        if request.path != "/client/api":
            raise Answer(404, "not found")
        command = request.query.get("command", "")
        self._check_signature(command, request.query)
        how = self.fault(command)
        call = getattr(self, f"_{command}", None)
        if call is None:
            raise problem(command, 432, f"The given command '{command}' does not exist")
        return {f"{command.lower()}response": call(request.query, how)}

    def _check_signature(self, command: str, query: dict[str, str]) -> None:
        unsigned = {name.lower(): value for name, value in query.items() if name != "signature"}
        text = "&".join(f"{name}={quote(value, safe='*')}" for name, value in sorted(unsigned.items())).lower()
        digest = hmac.new(KEYS["secret_key"].encode(), text.encode(), hashlib.sha1).digest()
        right = base64.b64encode(digest).decode() == query.get("signature")
        expires = datetime.datetime.strptime(query["expires"], "%Y-%m-%dT%H:%M:%S%z")
        if not right or query["apiKey"] != KEYS["api_key"] or expires < datetime.datetime.now(datetime.UTC):
            raise problem(command, 401, "unable to verify user credentials and/or request signature")

    def _listVirtualMachines(self, query: dict[str, str], _how: Any) -> Any:
        if query["id"] != SERVER:
            raise missing("listVirtualMachines", query["id"])
        return {"count": 1, "virtualmachine": [{"id": SERVER, "zoneid": ZONE, "hypervisor": "KVM"}]}

    def _listDiskOfferings(self, _query: dict[str, str], _how: Any) -> Any:
        return {
            "count": 2,
            "diskoffering": [
                {"id": CUSTOM, "name": "Custom", "iscustomized": True, "disksize": 0},
                {"id": FIXED, "name": "Small", "iscustomized": False, "disksize": 5},
            ],
        }

    def _listVolumes(self, query: dict[str, str], _how: Any) -> Any:
        if "id" in query and query["id"] not in self.volumes:
            raise missing("listVolumes", query["id"])
        found = [
            self._shown(one)
            for one in self.volumes.values()
            if query.get("id") in (None, one.id) and query.get("name") in (None, one.name)
        ]
        return {"count": len(found), "volume": found} if found else {}

    def _createVolume(self, query: dict[str, str], how: Any) -> Any:
        source = query.get("snapshotid")
        size = self.snapshots[source]["virtualsize"] // GIGABYTE if source else int(query.get("size", 5))
        made = Volume(str(uuid.uuid4()), query["name"], size, query.get("diskofferingid", CUSTOM))
        if isinstance(how, dict):
            return {"id": made.id, "jobid": self._job({}, how)}
        self.devices.make(made.id, size, source)
        self.volumes[made.id] = made
        if how == "lost answer":
            raise Answer(503, "Service Unavailable")
        return {"id": made.id, "jobid": self._job({"volume": self._shown(made)})}

    def _createTags(self, query: dict[str, str], _how: Any) -> Any:
        identity = query["resourceids"]
        thing = self.volumes[identity].tags if query["resourcetype"] == "Volume" else self.snapshots[identity]["tags"]
        index = 0
        while f"tags[{index}].key" in query:
            thing[query[f"tags[{index}].key"]] = query[f"tags[{index}].value"]
            index += 1
        return {"jobid": self._job({"success": True})}

    def _attachVolume(self, query: dict[str, str], how: Any) -> Any:
        volume = self._volume("attachVolume", query["id"])
        if volume.server is not None:
            raise problem("attachVolume", 431, f"Volume {volume.id} is already attached to a VM")
        if isinstance(how, dict):
            return {"jobid": self._job({}, how)}
        volume.server, volume.state = query["virtualmachineid"], "Ready"
        volume.position = 1 + sum(one.server is not None and one is not volume for one in self.volumes.values())
        self.devices.attach(volume.id, f"virtio-{volume.id.replace('-', '')[:20]}")
        return {"jobid": self._job({"volume": self._shown(volume)})}

    def _detachVolume(self, query: dict[str, str], how: Any) -> Any:
        volume = self._volume("detachVolume", query["id"])
        if volume.server is None:
            raise problem("detachVolume", 431, "The specified volume is not attached to a VM.")
        if isinstance(how, dict):
            return {"jobid": self._job({}, how)}
        volume.server = volume.position = None
        self.devices.detach(volume.id)
        return {"jobid": self._job({"volume": self._shown(volume)})}

    def _deleteVolume(self, query: dict[str, str], _how: Any) -> Any:
        volume = self._volume("deleteVolume", query["id"])
        if volume.server is not None:
            raise problem("deleteVolume", 431, "Please specify a volume that is not attached to any VM.")
        del self.volumes[volume.id]
        self.devices.delete(volume.id)
        return {"success": True}

    def _resizeVolume(self, query: dict[str, str], how: Any) -> Any:
        volume = self._volume("resizeVolume", query["id"])
        if volume.offering != CUSTOM:
            raise problem("resizeVolume", 431, "To resize a volume without offering, its offering has to be custom.")
        if isinstance(how, dict):
            return {"jobid": self._job({}, how)}
        volume.size = int(query["size"])
        self.devices.grow(volume.id, volume.size)
        return {"jobid": self._job({"volume": self._shown(volume)})}

    def _createSnapshot(self, query: dict[str, str], how: Any) -> Any:
        volume = self._volume("createSnapshot", query["volumeid"])
        identity = str(uuid.uuid4())
        if isinstance(how, dict):
            return {"id": identity, "jobid": self._job({}, how)}
        subprocess.run(["cp", "--sparse=always", self.devices.file(volume.id), self.devices.file(identity)], check=True)
        self.snapshots[identity] = {
            "id": identity,
            "name": query["name"],
            "virtualsize": volume.size * GIGABYTE,
            "states": ["Creating", "BackingUp", "BackingUp", "BackingUp", "BackedUp"],
            "tags": {},
        }
        return {"id": identity, "jobid": self._job({"snapshot": {"id": identity}}, looks=20)}

    def _listSnapshots(self, query: dict[str, str], _how: Any) -> Any:
        if "id" in query and query["id"] not in self.snapshots:
            raise missing("listSnapshots", query["id"])
        found = []
        for one in self.snapshots.values():
            if query.get("id") in (None, one["id"]) and query.get("name") in (None, one["name"]):
                state = one["states"].pop(0) if len(one["states"]) > 1 else one["states"][0]
                tags = [{"key": key, "value": value} for key, value in one["tags"].items()]
                found.append({**one, "states": None, "state": state, "tags": tags})
        return {"count": len(found), "snapshot": found} if found else {}

    def _deleteSnapshot(self, query: dict[str, str], _how: Any) -> Any:
        if self.snapshots.pop(query["id"], None) is None:
            raise missing("deleteSnapshot", query["id"])
        self.devices.delete(query["id"])
        return {"jobid": self._job({"success": True})}

    def _queryAsyncJobResult(self, query: dict[str, str], _how: Any) -> Any:
        job = self.jobs[query["jobid"]]
        job.looks -= 1
        shown: dict[str, Any] = {"jobid": query["jobid"], "jobstatus": 0, "jobresultcode": 0}
        if job.looks <= 0:
            shown |= {"jobstatus": 2 if job.failed else 1, "jobresultcode": 530 if job.failed else 0}
            shown["jobresult"] = job.result
        return shown

    def _job(self, result: dict[str, Any], error: dict[str, Any] | None = None, looks: int = 0) -> str:
        identity = str(uuid.uuid4())
        self.jobs[identity] = Job(looks or self.looks, error or result, error is not None)
        return identity

    def _volume(self, command: str, identity: str) -> Volume:
        if identity not in self.volumes:
            raise missing(command, identity)
        return self.volumes[identity]

    def _shown(self, volume: Volume) -> dict[str, Any]:
        shown = {
            "id": volume.id,
            "name": volume.name,
            "size": volume.size * GIGABYTE,
            "state": volume.state,
            "type": "DATADISK",
            "zoneid": ZONE,
            "diskofferingid": volume.offering,
            "tags": [{"key": key, "value": value} for key, value in volume.tags.items()],
        }
        if volume.server is not None:
            shown |= {"virtualmachineid": volume.server, "deviceid": volume.position}
        return shown


def problem(command: str, code: int, text: str) -> Answer:
    error = {"uuidList": [], "errorcode": code, "cserrorcode": 9999, "errortext": text}
    return Answer(code, {f"{command.lower()}response": error})


def missing(command: str, identity: str) -> Answer:
    return problem(
        command,
        431,
        f"Unable to execute API command {command.lower()} due to invalid value. Invalid parameter id value={identity} "
        "due to incorrect long value format, or entity does not exist or due to incorrect parameter annotation.",
    )
