"""Cinder volumes through the whole agent and openstacksdk, against a server that answers as the references of Keystone,
Cinder and Nova say; the devices are loop devices. It proves how the SDK is used, and nothing of any cloud.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openstack_server import ACCESS, OTHER_SERVER, SERVER, OpenstackServer, problem
from provider_server import Answer, devices_below
from provider_storage import ProviderStorage, adopt_after_kill, live, provider_storage
from scalarizr.errors import (
    InvalidParameter,
    NotConfigured,
    NotFound,
    NotSupported,
    OutsideFailure,
    PermissionRefused,
    Refused,
    ScalarizrError,
    TimedOut,
)
from scalarizr.platform_access import PlatformAccess, set_platform_access
from scalarizr.storage.storage import Storage

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),
    # The SDK warns, in this process too, of what will be removed from itself.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenstackServer]:
    with devices_below(tmp_path_factory.mktemp("openstack") / "devices") as devices:
        server = OpenstackServer(devices)
        try:
            yield server
        finally:
            server.close()


@pytest.fixture(scope="module")
def storage(cloud: OpenstackServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProviderStorage]:
    with provider_storage(tmp_path_factory.mktemp("agent"), cloud, cloud.access, "cinder") as made:
        yield made


@pytest.fixture
def here(storage: ProviderStorage) -> Iterator[Storage]:
    with storage.opened() as opened:
        yield opened


@pytest.fixture(autouse=True)
def nothing_is_left(cloud: OpenstackServer) -> Iterator[None]:
    yield
    left = [cloud.volumes_made(), list(cloud.snapshots), dict(cloud.devices.loops), cloud.problems]
    for name in cloud.volumes_made():
        cloud.devices.detach(name)
    cloud.volumes.clear()
    cloud.snapshots.clear()
    cloud.faults.clear()
    cloud.newest = "3.70"
    assert left == [[], [], {}, []]


def wanted(**keys: Any) -> dict[str, Any]:
    return {"type": "cinder", "size": 1, **keys}


def with_access(**keys: Any) -> None:
    """Make the calls that follow bring other credentials."""
    set_platform_access(PlatformAccess(keys))


def test_a_volume_goes_through_its_whole_life(storage: ProviderStorage, cloud: OpenstackServer) -> None:
    live(storage, name="data", volume_type="ssd", avail_zone="nova")
    made = cloud.calls("POST", "/volumes")[0].body["volume"]
    assert made["availability_zone"] == "nova" and made["metadata"]["role"] == "db"
    assert cloud.calls("POST", "/snapshots")[0].body["snapshot"]["force"] is True
    assert not any(ACCESS["password"] in request.url for request in cloud.requests)


def test_a_volume_whose_maker_was_killed_is_made_once(storage: ProviderStorage) -> None:
    adopt_after_kill(storage, "create volume")


def test_a_volume_that_cannot_be_attached_is_deleted_again(storage: ProviderStorage, cloud: OpenstackServer) -> None:
    cloud.fail("attach", problem(403, "forbidden", "Maximum number of volumes attached to the instance exceeded."))
    mpoint = storage.directory / "never"
    failure = storage.failure("create", storage_config=wanted(mpoint=str(mpoint)), mkfs=True, mount=True)
    assert "Maximum number of volumes attached" in failure.message
    assert cloud.volumes_made() == [] and not mpoint.exists()


def test_a_snapshot_that_ends_in_error_is_deleted_again(
    storage: ProviderStorage, here: Storage, cloud: OpenstackServer
) -> None:
    volume = here.create(wanted())
    cloud.fail("create snapshot", "error")
    failure = storage.failure("snapshot", volume=volume)
    assert failure.code == -32018 and "in the state error" in failure.message and cloud.snapshots == {}
    here.destroy(volume)


def test_a_volume_that_is_gone_is_made_anew_only_where_that_is_wished(here: Storage, cloud: OpenstackServer) -> None:
    volume = here.detach(here.create(wanted()))
    del cloud.volumes[volume["id"]]
    with pytest.raises(NotFound, match="gone"):
        here.create(volume)
    again = here.create({**volume, "recreate_if_missing": True})
    assert cloud.volumes_made() == [again["id"]] and again["device"] is not None
    here.destroy(again)


def test_an_answer_that_was_lost_makes_no_second_volume(here: Storage, cloud: OpenstackServer) -> None:
    cloud.fail("create volume", "lost answer")
    volume = here.create(wanted())
    assert cloud.volumes_made() == [volume["id"]]
    here.destroy(volume)


@pytest.mark.parametrize("status", [429, 503])
def test_what_passes_is_waited_for(here: Storage, cloud: OpenstackServer, status: int) -> None:
    for call in ("create volume", "attach", "get volume"):
        cloud.fail(call, Answer(status, {"overLimit": {"code": status, "message": "Too many requests"}}))
    volume = here.create(wanted())
    assert volume["device"] is not None
    here.destroy(volume)


def test_a_token_that_expires_on_the_way_is_renewed(here: Storage, cloud: OpenstackServer) -> None:
    volume = here.create(wanted())
    logins = cloud.logins
    cloud.fail("expire tokens", "now")
    here.destroy(volume)
    assert cloud.logins == logins + 1


@pytest.mark.parametrize(
    ("call", "how", "kind", "words"),
    [
        (
            "create volume",
            problem(413, "overLimit", "VolumeLimitExceeded: Maximum number of volumes allowed (10) exceeded"),
            OutsideFailure,
            r"allowed \(10\) exceeded. No volume was made",
        ),
        ("create volume", problem(400, "badRequest", "Invalid volume type"), OutsideFailure, "Invalid volume type"),
        ("create volume", "error", OutsideFailure, "in the state error"),
    ],
)
def test_what_cinder_refuses_is_told_in_its_own_words(
    here: Storage, cloud: OpenstackServer, call: str, how: Any, kind: type[ScalarizrError], words: str
) -> None:
    cloud.fail(call, how)
    with pytest.raises(kind, match=words) as caught:
        here.create(wanted())
    assert "http" not in caught.value.message
    # What could not be made is there all the same, until it is deleted.
    assert cloud.volumes_made() == []


def test_a_volume_that_is_attached_elsewhere_is_left_there_and_that_is_named(
    here: Storage, cloud: OpenstackServer
) -> None:
    volume = here.detach(here.create(wanted()))
    there = cloud.volumes[volume["id"]]
    there.status, there.servers = "in-use", [OTHER_SERVER]
    for attempt in (lambda: here.create(volume), lambda: here.destroy(volume, force=True)):
        with pytest.raises(Refused, match=f"attached to the server {OTHER_SERVER}"):
            attempt()
    there.status, there.servers = "available", []
    here.destroy(volume)


@pytest.mark.parametrize("state", ["error", "attaching", "attached"])
def test_what_a_killed_call_made_is_deleted_in_whatever_state_it_is(
    here: Storage, cloud: OpenstackServer, state: str
) -> None:
    kind: Any = here.catalogue.type_of("cinder", "type")
    volume, _ours = kind.make(kind.config(**wanted()), "a-key")
    if state == "error":
        cloud.volumes[volume.id].status = "error"
    elif state == "attaching":
        kind._cloud.attach_volume(volume.id)
    else:
        kind.attach(volume)
    kind.give_up(kind.config(**wanted()), "a-key")
    kind.give_up(kind.config(**wanted()), "a-key")
    assert cloud.volumes_made() == []


def test_what_came_to_nothing_is_replaced_when_the_call_comes_again(here: Storage, cloud: OpenstackServer) -> None:
    kind: Any = here.catalogue.type_of("cinder", "type")
    first, _ours = kind.make(kind.config(**wanted()), "a-key")
    cloud.volumes[first.id].status = "error"
    assert kind.find_made(kind.config(**wanted()), "a-key") is None
    second, _ours = kind.make(kind.config(**wanted()), "a-key")
    assert cloud.volumes_made() == [second.id] != [first.id]
    kind.delete(second, force=False)


def test_an_attachment_that_nova_gives_up_is_told(here: Storage, cloud: OpenstackServer) -> None:
    cloud.fail("attach", "gives up")
    with pytest.raises(OutsideFailure, match="gave it up: it is available"):
        here.create(wanted(client_token="a"))
    here.destroy({"type": "cinder", "id": cloud.volumes_made()[0]})


def test_a_volume_that_this_server_does_not_let_go_of_stays_and_that_is_told(
    here: Storage, cloud: OpenstackServer
) -> None:
    volume = here.create(wanted())
    cloud.fail("detach", "gives up")
    with pytest.raises(OutsideFailure, match="still attached"):
        here.destroy(volume)
    here.destroy(volume)


def test_a_volume_that_is_stuck_is_told_with_its_state(
    here: Storage, cloud: OpenstackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = here.detach(here.create(wanted()))
    cloud.volumes[volume["id"]].status = "attaching"
    monkeypatch.setattr("scalarizr.storage.volumes.cinder.CinderVolumes._settled.__defaults__", (0.5, ("error",)))
    with pytest.raises(TimedOut, match="It is attaching"):
        here.create(volume)
    cloud.volumes[volume["id"]].status = "available"
    here.destroy(volume)


def test_a_cinder_that_cannot_grow_what_is_in_use_is_told_so_and_grows_what_is_detached(
    here: Storage, cloud: OpenstackServer
) -> None:
    volume = here.create(wanted())
    cloud.newest = "3.27"
    here.catalogue.type_of("cinder", "type").close()  # type: ignore[attr-defined]
    with pytest.raises(NotSupported, match="while it is attached"):
        here.grow(volume, {"size": 2})
    assert cloud.volumes[volume["id"]].size == 1
    grown = here.grow(here.detach(volume), {"size": 2})
    assert grown["size"] == 2 and cloud.volumes[volume["id"]].servers == []
    here.destroy(grown)


def test_a_growth_that_cinder_gives_up_is_told(here: Storage, cloud: OpenstackServer) -> None:
    volume = here.create(wanted())
    cloud.fail("extend volume", "fails later")
    with pytest.raises(OutsideFailure, match="it has 1 GB as before"):
        here.grow(volume, {"size": 2})
    for growth in ({"size": 1}, {"iops": 4}, {}):
        with pytest.raises(InvalidParameter):
            here.grow(volume, growth)
    here.destroy(volume)


@pytest.mark.parametrize(
    ("keys", "parameter"),
    [
        ({"name": ""}, "name"),
        ({"avail_zone": "a\nb"}, "avail_zone"),
        ({"tags": {"scalarizr-key": "x"}}, "tags.scalarizr-key"),
        ({"size": None}, "size"),
        ({"snap": {"type": "ebs", "id": "snap-1"}}, "snap.type"),
        ({"snap": {"id": "../volumes/1"}}, "snap.id"),
        ({"zone": "a"}, "zone"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    here: Storage, cloud: OpenstackServer, keys: dict[str, Any], parameter: str
) -> None:
    before = len(cloud.calls("POST", "/volumes"))
    with pytest.raises(InvalidParameter) as caught:
        here.create(wanted(**keys))
    assert str(caught.value.facts["parameter"]).endswith(parameter)
    assert len(cloud.calls("POST", "/volumes")) == before


def test_every_form_of_the_credentials_is_taken(here: Storage, cloud: OpenstackServer) -> None:
    access = dict(cloud.access)
    for ending in ("", "/", "/v2.0", "/v2.0/tokens", "/v3"):
        with_access(**{**access, "keystone_url": f"{cloud.url}/identity{ending}", "ssl_verify_peer": "0"})
        here.destroy({"type": "cinder", "id": SERVER})  # there is none of that id
    password = access.pop("password")
    with_access(**access, api_key=password)
    here.destroy({"type": "cinder", "id": SERVER})


@pytest.mark.parametrize(
    ("keys", "kind", "words"),
    [
        ({"password": "a-wrong-password"}, PermissionRefused, "requires authentication"),
        ({"domain_name": "Nobodys"}, PermissionRefused, "requires authentication"),
        ({"keystone_url": "http://127.0.0.1:1/v3"}, OutsideFailure, "Unable to establish connection"),
        ({"keystone_url": "file:///etc/shadow"}, InvalidParameter, "keystone_url"),
        ({"cloud_location": "Nowhere"}, OutsideFailure, "could not be asked"),
        ({"tenant_name": ""}, InvalidParameter, "tenant_name"),
    ],
)
def test_credentials_that_are_wrong_are_refused_unseen(
    here: Storage, cloud: OpenstackServer, keys: dict[str, str], kind: type[ScalarizrError], words: str
) -> None:
    with_access(**{**cloud.access, **keys})
    with pytest.raises(kind) as caught:
        here.create(wanted())
    told = f"{caught.value} {caught.value.facts}"
    assert words in told and not any(secret in told for secret in (ACCESS["password"], "a-wrong-password"))


def test_without_credentials_it_says_what_is_missing(
    here: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    set_platform_access(None)
    with pytest.raises(NotConfigured, match="no OpenStack credentials"):
        here.create(wanted())
