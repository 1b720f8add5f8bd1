"""CloudStack's data disks through the whole agent and cs, against a server that checks signatures and answers as the
API reference says; the devices are loop devices. It proves how the SDK is used, and nothing of CloudStack.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from cloudstack_server import CUSTOM, FIXED, KEYS, OTHER_SERVER, ZONE, CloudstackServer, problem
from provider_server import Answer, devices_below
from provider_storage import ProviderStorage, adopt_after_kill, live, provider_storage, wait_for
from scalarizr.errors import (
    InvalidParameter,
    NotConfigured,
    NotFound,
    OutsideFailure,
    PermissionRefused,
    Refused,
    ScalarizrError,
)
from scalarizr.platform_access import PlatformAccess, set_platform_access
from scalarizr.storage.storage import Storage

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),
    # The SDK takes the time in a way that Python 3.12 warns of.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudstackServer]:
    with devices_below(tmp_path_factory.mktemp("cloudstack") / "devices") as devices:
        server = CloudstackServer(devices)
        try:
            yield server
        finally:
            server.close()


@pytest.fixture(scope="module")
def storage(cloud: CloudstackServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProviderStorage]:
    with provider_storage(tmp_path_factory.mktemp("agent"), cloud, cloud.access, "csvol") as made:
        yield made


@pytest.fixture
def here(storage: ProviderStorage) -> Iterator[Storage]:
    with storage.opened() as opened:
        yield opened


@pytest.fixture(autouse=True)
def nothing_is_left(cloud: CloudstackServer) -> Iterator[None]:
    yield
    left = [cloud.volumes_made(), list(cloud.snapshots), dict(cloud.devices.loops), cloud.problems]
    for name in cloud.volumes_made():
        cloud.devices.detach(name)
    cloud.looks = 2
    cloud.volumes.clear()
    cloud.snapshots.clear()
    cloud.faults.clear()
    assert left == [[], [], {}, []]


def wanted(**keys: Any) -> dict[str, Any]:
    return {"type": "csvol", "size": 1, **keys}


def error(text: str, code: int = 530) -> dict[str, Any]:
    """Give the result of a job that fails."""
    return {"errorcode": code, "errortext": text}


def test_a_volume_goes_through_its_whole_life(storage: ProviderStorage, cloud: CloudstackServer) -> None:
    live(storage, disk_offering_id=CUSTOM, zone_id=ZONE)
    assert {request.method for request in cloud.requests if "/client/api" in request.path} == {"POST"}
    assert not any(KEYS["api_key"] in request.url for request in cloud.requests)


def test_a_volume_whose_maker_was_killed_is_made_once(storage: ProviderStorage) -> None:
    adopt_after_kill(storage, "createVolume")


def test_a_volume_that_cannot_be_attached_is_deleted_again(storage: ProviderStorage, cloud: CloudstackServer) -> None:
    cloud.fail("attachVolume", error("The specified VM already has the maximum number of data disks (6)"))
    mpoint = storage.directory / "never"
    failure = storage.failure("create", storage_config=wanted(mpoint=str(mpoint)), mkfs=True, mount=True)
    assert failure.code == -32018 and "maximum number of data disks" in failure.message
    assert cloud.volumes_made() == [] and not mpoint.exists()


def test_a_cancelled_call_takes_back_what_it_made(storage: ProviderStorage, cloud: CloudstackServer) -> None:
    cloud.looks = 10
    with storage.agent.client(timeout=100) as client:
        operation = client.call(
            "storage.create", storage_config=wanted(), async_=True, _platform_access_data=storage.access
        )
        wait_for(lambda: "waiting for CloudStack to make" in ((operation.record().progress or {}).get("step") or ""))
        assert len(cloud.volumes_made()) == 1
        cloud.looks = 2
        operation.cancel()
        wait_for(lambda: operation.record().finished)
        assert operation.record().status == "canceled"
    wait_for(lambda: cloud.volumes_made() == [])


def test_a_snapshot_whose_job_fails_is_told(storage: ProviderStorage, here: Storage, cloud: CloudstackServer) -> None:
    volume = here.create(wanted())
    cloud.fail("createSnapshot", error("KVM Snapshot is not supported for Running VMs"))
    failure = storage.failure("snapshot", volume=volume)
    assert failure.code == -32018 and "not supported for Running VMs" in failure.message
    here.destroy(volume)


@pytest.mark.parametrize("attached", [False, True])
def test_what_a_killed_call_made_is_deleted_attached_or_not(
    here: Storage, cloud: CloudstackServer, attached: bool
) -> None:
    kind: Any = here.catalogue.type_of("csvol", "type")
    volume, _ours = kind.make(kind.config(**wanted()), "A key of others, long " * 5)
    if attached:
        kind.attach(volume)
    for _twice in range(2):
        kind.give_up(kind.config(**wanted()), "A key of others, long " * 5)
    assert cloud.volumes_made() == []


def test_a_volume_that_is_gone_is_made_anew_only_where_that_is_wished(here: Storage, cloud: CloudstackServer) -> None:
    volume = here.detach(here.create(wanted()))
    del cloud.volumes[volume["id"]]
    with pytest.raises(NotFound, match="gone"):
        here.create(volume)
    again = here.create({**volume, "recreate_if_missing": True})
    assert cloud.volumes_made() == [again["id"]] and again["device"] is not None
    here.destroy(again)


def test_an_answer_that_was_lost_makes_no_second_volume(here: Storage, cloud: CloudstackServer) -> None:
    cloud.fail("createVolume", "lost answer")
    volume = here.create(wanted())
    assert cloud.volumes_made() == [volume["id"]]
    here.destroy(volume)


@pytest.mark.parametrize("status", [429, 503])
def test_what_passes_is_waited_for(here: Storage, cloud: CloudstackServer, status: int) -> None:
    for call in ("createVolume", "attachVolume", "queryAsyncJobResult"):
        cloud.fail(
            call, Answer(status, {f"{call.lower()}response": error("The given user has reached his limit", 429)})
        )
    volume = here.create(wanted())
    assert volume["device"] is not None
    here.destroy(volume)


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        (error("Maximum number of resources of type 'volume' exceeded", 535), OutsideFailure, "of type 'volume'"),
        (problem("createVolume", 533, "Unable to find suitable primary storage"), OutsideFailure, "primary storage"),
        (problem("createVolume", 531, "Acct does not have permission"), PermissionRefused, "permission. No volume"),
    ],
)
def test_what_cloudstack_refuses_is_told_in_its_own_words(
    here: Storage, cloud: CloudstackServer, how: Any, kind: type[ScalarizrError], words: str
) -> None:
    cloud.fail("createVolume", how)
    with pytest.raises(kind, match=words) as caught:
        here.create(wanted())
    assert "http" not in caught.value.message


def test_a_volume_that_is_attached_elsewhere_is_left_there_and_that_is_named(
    here: Storage, cloud: CloudstackServer
) -> None:
    volume = here.detach(here.create(wanted()))
    cloud.volumes[volume["id"]].server = OTHER_SERVER
    for attempt in (lambda: here.create(volume), lambda: here.destroy(volume, force=True)):
        with pytest.raises(Refused, match=f"attached to the server {OTHER_SERVER}"):
            attempt()
    cloud.volumes[volume["id"]].server = None
    here.destroy(volume)
    with pytest.raises(NotFound, match="gone"):
        here.create({"type": "csvol", "id": volume["id"]})


def test_an_offering_with_a_size_of_its_own_gives_that_size(here: Storage, cloud: CloudstackServer) -> None:
    volume = here.create(wanted(size=None, disk_offering_id=FIXED))
    assert volume["size"] == 5
    with pytest.raises(OutsideFailure, match="as large as before"):
        here.grow(volume, {"size": 6})
    here.destroy(volume)


def test_a_failed_growth_leaves_the_volume_as_it_was(here: Storage, cloud: CloudstackServer) -> None:
    volume = here.create(wanted())
    cloud.fail("resizeVolume", error("Failed to resize volume"))
    with pytest.raises(OutsideFailure, match=r"Failed to resize volume. It is as large as before"):
        here.grow(volume, {"size": 2})
    for growth in ({"size": 1}, {"iops": 4}, {}):
        with pytest.raises(InvalidParameter):
            here.grow(volume, growth)
    here.destroy(volume)


@pytest.mark.parametrize(
    ("keys", "parameter"),
    [
        ({"disk_offering_id": "Custom"}, "disk_offering_id"),
        ({"disk_offering_id": FIXED}, "size"),
        ({"zone_id": CUSTOM}, "zone_id"),
        ({"tags": {"scalarizr-key": "x"}}, "tags.scalarizr-key"),
        ({"size": None}, "size"),
        ({"snap": {"type": "ebs", "id": "snap-1"}}, "snap.type"),
        ({"snap": {"id": "1 or 2"}}, "snap.id"),
        ({"id": "1"}, "id"),
        ({"name": "a"}, "name"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    here: Storage, cloud: CloudstackServer, keys: dict[str, Any], parameter: str
) -> None:
    with pytest.raises(InvalidParameter) as caught:
        here.create(wanted(**keys))
    assert str(caught.value.facts["parameter"]).endswith(parameter)
    assert cloud.volumes_made() == []


@pytest.mark.parametrize(
    ("keys", "kind", "words"),
    [
        ({"secret_key": "a-wrong-secret-key"}, PermissionRefused, "unable to verify user credentials"),
        ({"api_url": "http://127.0.0.1:1/client/api"}, OutsideFailure, "could not be reached"),
        ({"api_url": "gopher://127.0.0.1/"}, InvalidParameter, "api_url"),
        ({"secret_key": ""}, InvalidParameter, "secret_key"),
    ],
)
def test_credentials_that_are_wrong_are_refused_unseen(
    here: Storage, cloud: CloudstackServer, keys: dict[str, str], kind: type[ScalarizrError], words: str
) -> None:
    set_platform_access(PlatformAccess({**cloud.access, **keys}))
    with pytest.raises(kind) as caught:
        here.create(wanted())
    told = f"{caught.value} {caught.value.facts}"
    assert words in told and not any(secret in told for secret in (*KEYS.values(), "a-wrong-secret-key"))


def test_without_credentials_it_says_what_is_missing(here: Storage) -> None:
    set_platform_access(None)
    with pytest.raises(NotConfigured, match="no CloudStack credentials"):
        here.create(wanted())
