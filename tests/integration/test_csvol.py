"""CloudStack's data disks through the whole agent and cs, against a server that checks signatures and answers as the
API reference says.
"""

from typing import Any, ClassVar

import pytest

from cloud_contract import CloudContract
from cloudstack_server import CUSTOM, FIXED, KEYS, ZONE, CloudstackServer, problem
from provider_server import Answer, Devices
from provider_storage import ProviderStorage
from scalarizr.errors import InvalidParameter, NotConfigured, OutsideFailure, PermissionRefused
from scalarizr.platform_access import set_platform_access
from scalarizr.storage.storage import Storage
from waiting import wait_for

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),
    # The SDK takes the time in a way that Python 3.12 warns of.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def error(text: str, code: int = 530) -> dict[str, Any]:
    """Give the result of a job that fails."""
    return {"errorcode": code, "errortext": text}


def too_many(call: str, status: int) -> Answer:
    return Answer(status, {f"{call.lower()}response": error("The given user has reached his limit", 429)})


class TestCloudStack(CloudContract):
    type_name = "csvol"
    keys: ClassVar = {"disk_offering_id": CUSTOM, "zone_id": ZONE}
    making = "createVolume"
    attaching = (
        "attachVolume",
        error("The specified VM already has the maximum number of data disks (6)"),
        "maximum number of data disks",
    )
    snapshotting = (
        "createSnapshot",
        error("KVM Snapshot is not supported for Running VMs"),
        "not supported for Running VMs",
    )
    enlarging = (
        "resizeVolume",
        error("Failed to resize volume"),
        "Failed to resize volume. It is as large as before",
    )
    passing = tuple(
        (call, too_many(call, status))
        for call in ("createVolume", "attachVolume", "queryAsyncJobResult")
        for status in (429, 503)
    )
    refusal = (
        (error("Maximum number of resources of type 'volume' exceeded", 535), OutsideFailure, "of type 'volume'"),
        (problem("createVolume", 533, "Unable to find suitable primary storage"), OutsideFailure, "primary storage"),
        (problem("createVolume", 531, "Acct does not have permission"), PermissionRefused, "permission. No volume"),
    )
    impossible = (
        ({"disk_offering_id": "Custom"}, "disk_offering_id"),
        ({"disk_offering_id": FIXED}, "size"),
        ({"zone_id": CUSTOM}, "zone_id"),
        ({"tags": {"scalarizr-key": "x"}}, "tags.scalarizr-key"),
        ({"size": None}, "size"),
        ({"snap": {"type": "ebs", "id": "snap-1"}}, "snap.type"),
        ({"snap": {"id": "1 or 2"}}, "snap.id"),
        ({"id": "1"}, "id"),
        ({"name": "a"}, "name"),
    )
    wrong_access = (
        ({"secret_key": "a-wrong-secret-key"}, PermissionRefused, "unable to verify user credentials"),
        ({"api_url": "http://127.0.0.1:1/client/api"}, OutsideFailure, "could not be reached"),
        ({"api_url": "gopher://127.0.0.1/"}, InvalidParameter, "api_url"),
        ({"secret_key": ""}, InvalidParameter, "secret_key"),
    )

    @staticmethod
    def serve(devices: Devices) -> CloudstackServer:
        return CloudstackServer(devices)

    def check_requests(self, cloud: Any) -> None:
        assert {request.method for request in cloud.requests if "/client/api" in request.path} == {"POST"}
        assert not any(KEYS["api_key"] in request.url for request in cloud.requests)

    def test_a_cancelled_call_takes_back_what_it_made(self, storage: ProviderStorage, cloud: CloudstackServer) -> None:
        cloud.looks = 10_000
        with storage.agent.client(timeout=100) as client:
            operation = client.call(
                "storage.create", storage_config=self.wanted(), async_=True, _platform_access_data=storage.access
            )
            wait_for(
                lambda: "waiting for CloudStack to make" in ((operation.record().progress or {}).get("step") or "")
            )
            assert len(cloud.volumes_made()) == 1
            cloud.looks = 2
            operation.cancel()
            wait_for(lambda: operation.record().finished)
            assert operation.record().status == "canceled"
        wait_for(lambda: cloud.volumes_made() == [])

    def test_an_offering_with_a_size_of_its_own_gives_that_size(self, here: Storage, cloud: CloudstackServer) -> None:
        volume = here.create(self.wanted(size=None, disk_offering_id=FIXED))
        assert volume["size"] == 5
        with pytest.raises(OutsideFailure, match="as large as before"):
            here.grow(volume, {"size": 6})
        here.destroy(volume)

    def test_without_credentials_it_says_what_is_missing(self, here: Storage) -> None:
        set_platform_access(None)
        with pytest.raises(NotConfigured, match="no CloudStack credentials"):
            here.create(self.wanted())
