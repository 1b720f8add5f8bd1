"""Google's persistent disks through the whole agent and Google's own SDK, against a server that answers as the
reference of Compute Engine says; the devices are loop devices. It proves how the SDK is used, and nothing of Google.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gce_server import ACCOUNT, INSTANCE, ZONE, Account, GceServer, problem
from provider_server import devices_below
from provider_storage import ProviderStorage, adopt_after_kill, live, provider_storage
from scalarizr.errors import InvalidParameter, NotFound, OutsideFailure, PermissionRefused, Refused, ScalarizrError
from scalarizr.platform_access import PlatformAccess, set_platform_access
from scalarizr.storage.storage import Storage

# On a busy machine the SDK alone takes ten seconds to load, in every worker.
pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GceServer]:
    with devices_below(tmp_path_factory.mktemp("gce") / "devices") as devices:
        server = GceServer(devices, Account())
        try:
            yield server
        finally:
            server.close()


@pytest.fixture(scope="module")
def storage(cloud: GceServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProviderStorage]:
    directory = tmp_path_factory.mktemp("agent")
    with provider_storage(directory, cloud, cloud.account.access(), "gce_persistent") as made:
        yield made


@pytest.fixture
def here(storage: ProviderStorage) -> Iterator[Storage]:
    with storage.opened() as opened:
        yield opened


@pytest.fixture(autouse=True)
def nothing_is_left(cloud: GceServer) -> Iterator[None]:
    yield
    left = [cloud.volumes_made(), list(cloud.snapshots), dict(cloud.devices.loops), cloud.problems]
    for name in cloud.volumes_made():
        cloud.devices.detach(name)
        del cloud.disks[name]
    cloud.snapshots.clear()
    cloud.faults.clear()
    assert left == [[], [], {}, []]


def disk(**keys: Any) -> dict[str, Any]:
    return {"type": "gce_persistent", "size": 1, **keys}


def test_a_disk_goes_through_its_whole_life(storage: ProviderStorage, cloud: GceServer) -> None:
    live(storage, name="data", volume_type="pd-ssd", zone=ZONE)
    attached = cloud.calls("POST", "/attachDisk")[0].body
    assert attached["deviceName"] == "data" and attached["autoDelete"] is False
    assert {request.headers["authorization"].split()[0] for request in cloud.calls("POST", "/disks")} == {"Bearer"}


def test_a_disk_whose_maker_was_killed_is_made_once(storage: ProviderStorage) -> None:
    adopt_after_kill(storage, "disks.insert")


def test_a_disk_that_cannot_be_attached_is_deleted_again(storage: ProviderStorage, cloud: GceServer) -> None:
    cloud.fail("instances.attachDisk", problem(400, "invalid", "Exceeded limit 'maximum_persistent_disks'."))
    mpoint = storage.directory / "never"
    failure = storage.failure("create", storage_config=disk(mpoint=str(mpoint)), mkfs=True, mount=True)
    assert failure.code == -32018 and "Exceeded limit 'maximum_persistent_disks'" in failure.message
    assert cloud.volumes_made() == [] and not mpoint.exists()


def test_a_snapshot_that_google_gives_up_leaves_nothing(
    storage: ProviderStorage, here: Storage, cloud: GceServer
) -> None:
    volume = here.create(disk())
    cloud.fail("disks.createSnapshot", {"code": "QUOTA_EXCEEDED", "message": "Quota 'SNAPSHOTS' exceeded. Limit: 0."})
    failure = storage.failure("snapshot", volume=volume)
    assert failure.code == -32018 and "Quota 'SNAPSHOTS' exceeded" in failure.message and cloud.snapshots == {}
    here.destroy(volume)


@pytest.mark.parametrize("attached", [False, True])
def test_what_a_killed_call_made_is_deleted_attached_or_not(here: Storage, cloud: GceServer, attached: bool) -> None:
    kind: Any = here.catalogue.type_of("gce_persistent", "type")
    volume, _ours = kind.make(kind.config(**disk()), "A key of others, long " * 5)
    if attached:
        kind.attach(volume)
    for _twice in range(2):
        kind.give_up(kind.config(**disk()), "A key of others, long " * 5)
    assert cloud.volumes_made() == []


def test_a_volume_that_is_gone_is_made_anew_only_where_that_is_wished(here: Storage, cloud: GceServer) -> None:
    volume = here.detach(here.create(disk()))
    del cloud.disks[volume["id"]]
    with pytest.raises(NotFound, match="gone"):
        here.create(volume)
    again = here.create({**volume, "recreate_if_missing": True})
    assert cloud.volumes_made() == [again["id"]] and again["device"] is not None
    here.destroy(again)


def test_an_answer_that_was_lost_makes_no_second_disk(here: Storage, cloud: GceServer) -> None:
    cloud.fail("disks.insert", "lost answer")
    volume = here.create(disk())
    assert cloud.volumes_made() == [volume["id"]]
    here.destroy(volume)


@pytest.mark.parametrize(
    ("call", "how"),
    [
        ("disks.insert", problem(503, "backendError", "Backend Error")),
        ("disks.insert", problem(429, "rateLimitExceeded", "Rate Limit Exceeded")),
        ("disks.insert", problem(403, "rateLimitExceeded", "Rate Limit Exceeded")),
        ("operations.get", problem(503, "backendError", "Backend Error")),
        ("authenticate", problem(401, "authError", "Request had invalid authentication credentials.")),
    ],
)
def test_what_passes_is_waited_for(here: Storage, cloud: GceServer, call: str, how: Any) -> None:
    cloud.fail(call, how)
    volume = here.create(disk())
    assert volume["device"] is not None
    here.destroy(volume)


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ({"code": "QUOTA_EXCEEDED", "message": "Quota 'SSD_TOTAL_GB' exceeded."}, OutsideFailure, "SSD_TOTAL_GB"),
        ({"code": "ZONE_RESOURCE_POOL_EXHAUSTED", "message": "No room."}, OutsideFailure, "No room. No disk was made."),
        (problem(403, "forbidden", "Required 'compute.disks.create' permission"), PermissionRefused, "compute.disks"),
        (problem(403, "quotaExceeded", "Quota exceeded"), OutsideFailure, "Quota exceeded. No disk was made."),
        (problem(400, "invalid", "Disk size cannot be smaller than 10 GB."), OutsideFailure, "smaller than 10 GB"),
    ],
)
def test_what_google_refuses_is_told_in_its_own_words(
    here: Storage, cloud: GceServer, how: Any, kind: type[ScalarizrError], words: str
) -> None:
    cloud.fail("disks.insert", how)
    with pytest.raises(kind) as caught:
        here.create(disk())
    assert words in caught.value.message and "http" not in caught.value.message


def test_a_disk_that_is_attached_elsewhere_is_left_there_and_that_is_named(here: Storage, cloud: GceServer) -> None:
    volume = here.detach(here.create(disk(name="elsewhere")))
    cloud.disks["elsewhere"].users = [cloud.instance_link.replace(INSTANCE, "web-2")]
    for attempt in (lambda: here.create(volume), lambda: here.destroy(volume, force=True)):
        with pytest.raises(Refused, match=f"attached to zones/{ZONE}/instances/web-2"):
            attempt()
    assert here.catalogue.records.of_id("volume", "elsewhere") is not None
    cloud.disks["elsewhere"].users = []
    here.destroy(volume)


def test_the_disk_that_this_server_boots_from_is_never_detached(here: Storage, cloud: GceServer) -> None:
    for attempt in (here.detach, here.destroy):
        with pytest.raises(Refused, match="never detached"):
            attempt({"type": "gce_persistent", "id": "boot"}, force=True)
    assert cloud.disks["boot"].users == [cloud.instance_link]


def test_a_disk_of_others_is_not_taken_over_by_its_name_but_used_by_its_id(here: Storage, cloud: GceServer) -> None:
    volume = here.detach(here.create(disk(name="of-others")))
    with pytest.raises(ScalarizrError, match="that this call did not make") as caught:
        here.create(disk(name="of-others"))
    assert caught.value.code == -32012
    # What one agent does not know the caller's credentials may delete all the same.
    here.records.forget(next(record for record in here.records.all() if record.id == "of-others"))
    used = here.create({"type": "gce_persistent", "id": "of-others"})
    assert used["device"] is not None and used["size"] == volume["size"]
    here.destroy({"type": "gce_persistent", "id": "of-others"})
    with pytest.raises(NotFound, match="recreate_if_missing"):
        here.create({"type": "gce_persistent", "id": "of-others"})


@pytest.mark.parametrize(
    ("keys", "parameter"),
    [
        ({"name": "Data"}, "name"),
        ({"name": "a/../b"}, "name"),
        ({"zone": "europe-west1-c"}, "zone"),
        ({"zone": "../x"}, "zone"),
        ({"tags": {"Role": "db"}}, "tags.Role"),
        ({"tags": {"scalarizr-key": "x"}}, "tags.scalarizr-key"),
        ({"volume_type": "pd/ssd"}, "volume_type"),
        ({"size": None}, "size"),
        ({"size": "50%ROOT"}, "size"),
        ({"snap": {"type": "ebs", "id": "snap-1"}}, "snap.type"),
        ({"snap": {"id": "../disks/boot"}}, "snap.id"),
        ({"iops": 3}, "iops"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    here: Storage, cloud: GceServer, keys: dict[str, Any], parameter: str
) -> None:
    before = len(cloud.calls("POST", "/disks"))
    with pytest.raises(InvalidParameter) as caught:
        here.create(disk(**keys))
    assert str(caught.value.facts["parameter"]).endswith(parameter)
    assert len(cloud.calls("POST", "/disks")) == before


def test_every_form_of_the_key_is_taken_and_a_wrong_one_is_refused_unseen(here: Storage, cloud: GceServer) -> None:
    account = cloud.account
    for access in (account.access_with_pkcs12(), account.access_with_json_key()):
        set_platform_access(PlatformAccess(access))
        volume = here.create(disk())
        here.destroy(volume)
    wrong = Account().access()
    for access, words in (
        (wrong, "invalid authentication credentials"),
        ({**wrong, "key": "bm8ga2V5"}, "base64 of a private key"),
        ({"service_account_name": ACCOUNT}, "both"),
        ({"json_key": '{"type": "external_account", "credential_source": {"file": "/etc/shadow"}}'}, "service account"),
        ({"json_key": "{"}, "service account"),
        ({"json_key": ["a"]}, "service account"),
        ({**wrong, "project_id": "a/../b"}, "project_id"),
    ):
        set_platform_access(PlatformAccess(access))
        with pytest.raises((PermissionRefused, InvalidParameter)) as caught:
            here.create(disk())
        told = f"{caught.value} {caught.value.facts}"
        assert words in told and not any(text in told for text in (wrong["key"], "PRIVATE", "bm8ga2V5", "/etc/shadow"))


def test_a_disk_whose_device_does_not_appear_is_told_with_the_link_that_was_waited_for(
    here: Storage, cloud: GceServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalarizr.storage.device_links.await_device.__defaults__", (0.5,))
    cloud.fail("instances.attachDisk", "no device")
    with pytest.raises(OutsideFailure, match=f"did not appear .*{Path(cloud.devices.by_id)}/google-unseen"):
        here.create(disk(name="unseen"))
    for attempt in (here.detach, here.destroy):
        with pytest.raises(Refused, match="cannot be told"):
            attempt({"type": "gce_persistent", "id": "unseen"})
    assert cloud.disks["unseen"].users == [cloud.instance_link]
    here.destroy({"type": "gce_persistent", "id": "unseen"}, force=True)


def test_a_failed_growth_leaves_the_disk_as_it_was(here: Storage, cloud: GceServer) -> None:
    volume = here.create(disk())
    cloud.fail("disks.resize", {"code": "QUOTA_EXCEEDED", "message": "Quota 'DISKS_TOTAL_GB' exceeded."})
    with pytest.raises(OutsideFailure, match=r"DISKS_TOTAL_GB.*as large as before"):
        here.grow(volume, {"size": 2})
    for growth in ({"size": 0.5}, {"size": 1}, {"iops": 4}, {}):
        with pytest.raises(InvalidParameter):
            here.grow(volume, growth)
    assert here.create(volume)["size"] == 1
    here.destroy(volume)
