"""What EC2 answers, and what is made of it: refusals, delays, contradictions, of moto or in moto's place."""

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moto_server import (
    ACCESS,
    KEY,
    KEY_ID,
    REGION,
    TOKEN,
    ZONE,
    Answer,
    Hypervisor,
    ebs_volume,
    error_text,
)
from provider_storage import storage_in_this_process
from running_agent import RunningAgent, free_port
from scalarizr.errors import NotConfigured, Refused, ScalarizrError, TimedOut
from scalarizr.host.paths import HostPaths
from scalarizr.platform_access import PlatformAccess
from scalarizr.settings.model import Ec2 as Ec2Settings
from scalarizr.storage.ec2 import attaching, instance, modifying, snapshots
from scalarizr.storage.ec2.client import Ec2
from scalarizr.storage.ec2.devices import Devices
from scalarizr.storage.ec2.this_server import ThisServer
from scalarizr.storage.storage import Storage

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def agent(ec2: Hypervisor, tmp_path_factory: pytest.TempPathFactory) -> RunningAgent:
    return RunningAgent(tmp_path_factory.mktemp("agent"), ec2.settings)


@pytest.fixture
def storage(agent: RunningAgent) -> Iterator[Storage]:
    """The storage of an agent that is not running."""
    with storage_in_this_process(agent.etc, ACCESS) as opened:
        yield opened


@pytest.fixture(autouse=True)
def nothing_is_left(ec2: Hypervisor) -> Iterator[None]:
    yield
    assert ec2.take_back() == []


def refused(storage: Storage, wanted: dict[str, Any]) -> ScalarizrError:
    with pytest.raises(ScalarizrError) as caught:
        storage.create(wanted)
    shown = f"{caught.value.message} {caught.value.facts}"
    assert not any(secret in shown for secret in (KEY, TOKEN, KEY_ID))
    return caught.value


def test_its_tags_are_there_from_the_first_moment_with_one_of_the_agents_own(storage: Storage, ec2: Hypervisor) -> None:
    tagged = {"farm": "12", "env": "prod"}
    volume = storage.create(ebs_volume(name="data", tags=tagged, size=1.5, volume_type="gp3", iops="4000"))
    assert (volume["name"], volume["tags"], volume["size"], volume["iops"]) == ("data", tagged, 2, 4000)
    asked = next(request for request in ec2.requests[::-1] if request.get("Action") == "CreateVolume")
    tags = {
        asked[f"TagSpecification.1.Tag.{number}.Key"]: asked[f"TagSpecification.1.Tag.{number}.Value"]
        for number in range(1, 5)
    }
    own = tags.pop("scalarizr")
    assert tags == {"farm": "12", "env": "prod", "Name": "data"} and own == asked["ClientToken"]
    storage.destroy(volume)


def test_growth_changes_what_is_asked_for_and_nothing_else(storage: Storage, ec2: Hypervisor) -> None:
    volume = storage.create(ebs_volume(volume_type="gp2", size=2))

    def grow(**growth: Any) -> Any:
        return storage.grow(volume=volume, growth=growth)

    for growth, words in (
        ({"size": 1}, "never shrinks"),
        ({"size": 2}, "other than what it is now"),
        ({"size": 20000}, "1 to 16384"),
        ({"volume_type": "gp9"}, "one of gp3"),
        ({"iops": 4000}, "has no IOPS"),
        ({"disks": 2}, "size, iops, throughput, volume_type"),
        ({}, "size, iops, throughput, volume_type"),
    ):
        with pytest.raises(ScalarizrError) as caught:
            grow(**growth)
        assert caught.value.code == -32602 and words in f"{caught.value.message} {caught.value.facts}", growth
    assert ec2.asked("ModifyVolume") == 0
    grown = grow(volume_type="gp3", iops="5000", throughput=300)
    assert (grown["volume_type"], grown["iops"], grown["throughput"], grown["size"]) == ("gp3", 5000, 300, 2)

    ec2.fail(
        "ModifyVolume",
        "VolumeModificationRateExceeded",
        "You've reached the maximum modification rate per volume limit. Wait at least 6 hours between modifications "
        "per EBS volume.",
    )
    with pytest.raises(ScalarizrError, match="6 h as a rule") as late:
        grow(size=5)
    assert late.value.code == -32018 and ec2.volume(volume["id"])["Size"] == 2
    ec2.fail("ModifyVolume", "IncorrectModificationState", "Volume is currently being modified.")
    with pytest.raises(ScalarizrError, match="still under way") as busy:
        grow(size=5)
    assert busy.value.code == -32010
    storage.destroy(volume)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"size": None}, "a size in GB, or a snapshot"),
        ({"size": 0}, "more than 0"),
        ({"size": -1}, "more than 0"),
        ({"size": 70000}, "1 to 65536"),
        ({"size": "50%VG"}, "a size in GB"),
        ({"size": 1, "volume_type": "st1"}, "125 to 16384"),
        ({"volume_type": "floppy"}, "one of gp3, gp2"),
        ({"volume_type": "io2", "size": 10}, "needs one"),
        ({"iops": 100}, "3000 to 80000"),
        ({"volume_type": "gp2", "throughput": 200}, "has no throughput"),
        ({"kms_key_id": "k", "encrypted": False}, "kms_key_id"),
        ({"tags": {"aws:x": "1"}}, "Amazon's or the agent's own"),
        ({"tags": {"scalarizr": "1"}}, "Amazon's or the agent's own"),
        ({"avail_zone": "us-east-1b"}, f"{ZONE}, where this server is"),
        ({"snap": {"type": "loop", "id": "/x"}}, "ebs, like the volume"),
        ({"snap": {"type": "ebs", "id": "/x"}}, "snap-0123"),
        ({"id": "vol-../../x"}, "vol-0123456789abcdef0"),
        ({"disk": 1}, "one of the keys that ebs knows"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    keys: dict[str, Any], words: str, storage: Storage, ec2: Hypervisor
) -> None:
    asked = ec2.asked("CreateVolume")
    failure = refused(storage, ebs_volume(**keys))
    assert failure.code == -32602 and words in f"{failure.message} {failure.facts}"
    assert ec2.asked("CreateVolume") == asked


def test_ec2_may_forget_for_a_moment_what_it_has_just_made(storage: Storage, ec2: Hypervisor) -> None:
    # moto is consistent at once; EC2 is eventually.
    missing = error_text("InvalidVolume.NotFound", "The volume 'vol-x' does not exist.")

    def forgetful(_request: dict[str, str], _pass_on: Callable[[], Answer]) -> Answer:
        return 400, missing

    def make(_request: dict[str, str], pass_on: Callable[[], Answer]) -> Answer:
        answer = pass_on()
        ec2.answer("DescribeVolumes", forgetful, times=2)
        return answer

    ec2.answer("CreateVolume", make)
    ec2.answer("AttachVolume", forgetful)
    ec2.fail("AttachVolume", "IncorrectState", "Volume 'vol-x' is in the state 'creating'.")
    volume = storage.create(ebs_volume())
    assert volume["device"] is not None and len(ec2.volumes()) == 1
    storage.destroy(volume)


def test_a_name_that_somebody_else_took_meanwhile_is_left_to_him(storage: Storage, ec2: Hypervisor) -> None:
    words = "Invalid value '/dev/sdf' for unixDevice. Attachment point /dev/sdf is already in use"
    ec2.fail("AttachVolume", "InvalidParameterValue", words)
    volume = storage.create(ebs_volume())
    assert ec2.volume(volume["id"])["Attachments"][0]["Device"] == "/dev/sdg"
    storage.destroy(volume)


@pytest.mark.parametrize(
    ("action", "code", "words", "number", "told"),
    [
        ("CreateVolume", "RequestExpired", "Request has expired.", -32017, "expired"),
        ("CreateVolume", "ExpiredToken", f"The token {TOKEN} is expired", -32017, "expired"),
        ("DescribeVolumes", "AuthFailure", f"AWS was not able to validate {KEY_ID}", -32017, "not accepted"),
        (
            "CreateVolume",
            "UnauthorizedOperation",
            "You are not authorized. Encoded authorization failure message: AbC",
            -32017,
            "do not allow it",
        ),
        ("CreateVolume", "InsufficientVolumeCapacity", "There is not enough capacity.", -32018, "no room"),
        ("CreateVolume", "VolumeLimitExceeded", "You have exceeded your maximum volume limit.", -32018, "a quota"),
        ("CreateVolume", "InvalidParameterValue", "Value (x) is invalid.", -32602, "what EC2 accepts"),
        ("CreateVolume", "UnsupportedOperation", "Not in this zone.", -32013, "Not in this zone"),
    ],
)
def test_a_refusal_of_ec2s_is_told_and_leaves_nothing(
    action: str, code: str, words: str, number: int, told: str, storage: Storage, ec2: Hypervisor
) -> None:
    ec2.fail(action, code, words)
    failure = refused(storage, ebs_volume())
    assert failure.code == number and told in f"{failure.message} {failure.facts}"
    assert "AbC" not in failure.message
    assert ec2.volumes() == [] and ec2.devices == {}


def test_a_volume_that_ends_in_an_error_while_it_is_made_is_given_back(storage: Storage, ec2: Hypervisor) -> None:
    def broken(_request: dict[str, str], pass_on: Callable[[], Answer]) -> Answer:
        status, text = pass_on()
        return status, text.replace(b"<status>available<", b"<status>error<")

    # The first look at the names taken, then that at the new volume.
    ec2.answer("CreateVolume", lambda _request, pass_on: (ec2.answer("DescribeVolumes", broken), pass_on())[1])
    failure = refused(storage, ebs_volume())
    assert failure.code == -32018 and "ended in the state error" in failure.message


def test_one_that_is_attached_elsewhere_is_named_with_where(storage: Storage, ec2: Hypervisor) -> None:
    other = ec2.make_instance()
    volume = ec2.api.create_volume(Size=1, AvailabilityZone=ZONE)["VolumeId"]
    ec2.api.attach_volume(VolumeId=volume, InstanceId=other, Device="/dev/sdk")
    failure = refused(storage, {"type": "ebs", "id": volume})
    assert failure.code == -32014 and f"attached to {other} as /dev/sdk" in failure.message
    with pytest.raises(ScalarizrError, match=f"attached to {other} as /dev/sdk"):
        storage.destroy({"type": "ebs", "id": volume}, force=True)
    ec2.api.detach_volume(VolumeId=volume, InstanceId=other)
    storage.destroy({"type": "ebs", "id": volume})  # not ours, and the credentials' business
    assert ec2.volumes() == []


def test_one_of_another_zone_is_refused(storage: Storage, ec2: Hypervisor) -> None:
    volume = ec2.api.create_volume(Size=1, AvailabilityZone="us-east-1b")["VolumeId"]
    failure = refused(storage, {"type": "ebs", "id": volume})
    assert failure.code == -32013 and f"is in us-east-1b and this server in {ZONE}" in failure.message
    storage.destroy({"type": "ebs", "id": volume})


def test_the_root_disk_is_never_detached_or_deleted(storage: Storage, ec2: Hypervisor) -> None:
    described = ec2.api.describe_instances(InstanceIds=[ec2.instance_id])["Reservations"][0]["Instances"][0]
    root = described["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    for method in (storage.detach, storage.destroy):
        with pytest.raises(ScalarizrError, match="root disk") as caught:
            method(volume={"type": "ebs", "id": root}, force=True)
        assert caught.value.code == -32014
    assert ec2.volume(root)["State"] == "in-use"


def test_what_cannot_be_seen_to_be_unused_is_not_detached_without_force(storage: Storage, ec2: Hypervisor) -> None:
    volume = storage.create(ebs_volume())
    link = next(ec2.by_id.iterdir())
    hidden = link.rename(ec2.directory / "hidden")
    for method in (storage.detach, storage.destroy):
        with pytest.raises(ScalarizrError, match="no device of this server is known to be it") as caught:
            method(volume=volume)
        assert caught.value.code == -32014
    hidden.rename(link)
    storage.destroy(volume)


def test_a_client_token_makes_one_volume_and_after_its_end_another(storage: Storage, ec2: Hypervisor) -> None:
    first = storage.create(ebs_volume(client_token="the-data-of-db-1"))
    assert storage.create(ebs_volume(client_token="the-data-of-db-1"))["id"] == first["id"]
    assert len(ec2.volumes()) == 1
    storage.destroy(first)


def test_a_token_whose_volume_ec2_deleted_long_ago_makes_another(storage: Storage, ec2: Hypervisor) -> None:
    # moto ignores ClientToken; EC2 refuses one that was used with other parameters.
    ec2.fail("CreateVolume", "IdempotentParameterMismatch", "The client token was used with other parameters.")
    volume = storage.create(ebs_volume())
    storage.destroy(volume)


def test_a_snapshot_that_is_not_finished_is_waited_for(storage: Storage, ec2: Hypervisor) -> None:
    volume = storage.create(ebs_volume())
    snapshot = storage.snapshot(volume=volume)

    ec2.answer("DescribeSnapshots", lambda _request, pass_on: pending(pass_on()), times=2)
    copy = storage.create(ebs_volume(snap=snapshot))
    assert ec2.volume(copy["id"])["SnapshotId"] == snapshot["id"]
    asked = ec2.asked("CreateVolume")
    failure = refused(storage, ebs_volume(snap={**snapshot, "id": "snap-0000000000000dead"}))
    assert failure.code == -32011 and "snap-0000000000000dead" in failure.message
    assert ec2.asked("CreateVolume") == asked
    for one in (volume, copy):
        storage.destroy(one)
    storage.destroy_snapshot(snapshot=snapshot)


def test_an_overloaded_ec2_keeps_no_file_system_frozen(storage: Storage, ec2: Hypervisor, tmp_path: Path) -> None:
    mpoint = tmp_path / "data"
    volume = storage.create(ebs_volume(mpoint=str(mpoint)), mkfs=True, mount=True)
    writers: list[threading.Thread] = []
    seen: list[list[bool]] = []

    def look(answer: Answer | None) -> Callable[[dict[str, str], Callable[[], Answer]], Answer]:
        def rule(_request: dict[str, str], pass_on: Callable[[], Answer]) -> Answer:
            for one in writers:
                one.join(60)
            waiting_since_before = [one.is_alive() for one in writers]
            writers.append(threading.Thread(target=write, args=(mpoint / f"file-{len(writers)}",)))
            writers[-1].start()
            writers[-1].join(0.3)
            seen.append([*waiting_since_before, writers[-1].is_alive()])
            return answer or pass_on()

        return rule

    try:
        ec2.answer("CreateSnapshot", look((503, error_text("RequestLimitExceeded", "Request limit exceeded."))))
        ec2.answer("CreateSnapshot", look((400, error_text("SnapshotCreationPerVolumeRateExceeded", "Too often."))))
        ec2.answer("CreateSnapshot", look(None))
        snapshot = storage.snapshot(volume)
        for writer in writers:
            writer.join(10)
        # Frozen while each request was under way, and only then.
        assert seen == [[True], [False, True], [False, False, True]]
        assert len(ec2.snapshots()) == 1
        storage.destroy_snapshot(snapshot)
        storage.destroy(volume)
    finally:
        subprocess.run(["umount", str(mpoint)], capture_output=True)


def write(path: Path) -> None:
    with open(path, "w") as file:
        file.write("x")
        os.fsync(file.fileno())


def test_the_snapshot_of_a_part_is_not_waited_for_while_the_whole_stands_still(ec2: Hypervisor) -> None:
    volume = ec2.api.create_volume(Size=1, AvailabilityZone=ZONE)["VolumeId"]
    ec2.answer("CreateSnapshot", lambda _request, pass_on: pending(pass_on()))
    ec2.answer("DescribeSnapshots", lambda _request, pass_on: pending(pass_on()), times=100)
    api = server_of(ec2).ec2
    asked = ec2.asked("DescribeSnapshots")
    part = snapshots.take(api, volume, "a-key", "of a part", {"a": "b"}, contextlib.nullcontext, 60, part=True)
    assert part["status"] == "pending" and part["tags"] == {"a": "b"} and part["size"] == 1
    assert ec2.asked("DescribeSnapshots") == asked
    snapshots.give_up(api, "a-key")
    assert ec2.snapshots() == []
    ec2.api.delete_volume(VolumeId=volume)


def pending(answer: Answer) -> Answer:
    return answer[0], answer[1].replace(b"completed<", b"pending<").replace(b"100%", b"42%")


def server_of(ec2: Hypervisor, host: HostPaths | None = None) -> ThisServer:
    settings = Ec2Settings(endpoint_url=ec2.url, region=REGION, instance_id=ec2.instance_id, avail_zone=ZONE)
    return ThisServer(settings, PlatformAccess(ACCESS), Devices(ec2.by_id, host or HostPaths()))


def in_state(state: bytes) -> Callable[[dict[str, str], Callable[[], Answer]], Answer]:
    def rule(_request: dict[str, str], pass_on: Callable[[], Answer]) -> Answer:
        status, text = pass_on()
        return status, text.replace(b"<status>attached<", b"<status>" + state + b"<")

    return rule


def test_one_that_hangs_is_given_up_with_where_it_hangs(ec2: Hypervisor, tmp_path: Path) -> None:
    server = server_of(ec2)
    volume = ec2.api.create_volume(Size=1, AvailabilityZone=ZONE)["VolumeId"]
    with open(ec2.images / volume, "wb") as image:
        image.truncate(1 << 30)
    ec2.answer("DescribeVolumes", in_state(b"attaching"), times=30)
    with pytest.raises(TimedOut) as caught:
        attaching.attach(server, volume, tmp_path / "lock", 2)
    assert f"Attaching {volume} did not end within" in caught.value.message
    assert f"still attaching to {ec2.instance_id} as /dev/sdf" in caught.value.message
    ec2.as_it_is()
    busy = b"<DetachVolumeResponse><status>busy</status></DetachVolumeResponse>"
    ec2.answer("DetachVolume", lambda _request, _pass_on: (200, busy))
    ec2.answer("DescribeVolumes", in_state(b"busy"), times=30)
    with pytest.raises(Refused, match="calls it busy"):
        attaching.detach(server, volume, 2, force=True)
    ec2.as_it_is()
    attaching.attach(server, volume, tmp_path / "lock", 20)

    def hanging(_request: dict[str, str], _pass_on: Callable[[], Answer]) -> Answer:
        ec2.answer("DescribeVolumes", in_state(b"detaching"), times=30)
        return 200, b"<DetachVolumeResponse><status>detaching</status></DetachVolumeResponse>"

    ec2.answer("DetachVolume", hanging)
    with pytest.raises(TimedOut, match=f"still detaching from {ec2.instance_id}"):
        attaching.detach(server, volume, 2, force=False)
    ec2.as_it_is()
    attaching.detach(server, volume, 20, force=False)
    ec2.api.delete_volume(VolumeId=volume)


def test_on_xen_names_are_those_of_disks_and_sizes_follow(ec2: Hypervisor, tmp_path: Path) -> None:
    root = tmp_path / "root"
    disk = root / "sys/block/xvdh"
    for name in ("xvda", "xvdf", "xvdg", "xvdh"):
        (root / "sys/block" / name).mkdir(parents=True)
    disk.rmdir()
    (root / "sys/class").mkdir()
    (root / "sys/class/block").symlink_to("../block")
    (root / "sys/hypervisor").mkdir()
    (root / "sys/hypervisor/type").write_text("xen\n")

    def appear(_request: dict[str, str], pass_on: Callable[[], Answer]) -> Answer:
        (disk / "device").mkdir(parents=True)
        (disk / "device/nodename").write_text("device/vbd/2160\n")
        (disk / "size").write_text(f"{8 << 21}\n")
        return pass_on()

    def become_larger(_request: dict[str, str], pass_on: Callable[[], Answer]) -> Answer:
        threading.Timer(0.5, lambda: (disk / "size").write_text(f"{9 << 21}\n")).start()
        return pass_on()

    server = server_of(ec2, HostPaths(root))
    volume = server.ec2.call("create_volume", Size=8, AvailabilityZone=ZONE)["VolumeId"]
    ec2.answer("AttachVolume", appear)
    ec2.answer("ModifyVolume", become_larger)
    ec2.links = False
    try:
        facts = attaching.attach(server, volume, tmp_path / "lock", 20)
    finally:
        ec2.links = True
    assert server.attachment(facts)["Device"] == "/dev/sdh"  # type: ignore[index]
    assert server.device(facts) == root / "dev/xvdh"
    grown = modifying.modify(server, facts, modifying.modification(facts, {"size": 9}))
    assert grown["Size"] == 9 and server.device(grown) == root / "dev/xvdh"
    attaching.detach(server, volume, 20, force=False)
    server.ec2.call("delete_volume", VolumeId=volume)


def test_a_server_that_is_no_instance_names_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(NotConfigured, match="`region`, `instance_id` and `avail_zone` in the section \\[ec2\\]"):
        instance.this_instance(Ec2Settings())


def test_the_credentials_of_a_request_are_those_that_ec2_is_asked_with(ec2: Hypervisor) -> None:
    for access, words in (
        ({"key_id": KEY_ID}, "key"),
        ({"key": KEY}, "key_id"),
        ({**ACCESS, "key": "a\r\nb: c"}, "key"),
        ({**ACCESS, "proxy": {"host": "a b"}}, "proxy.host"),
    ):
        with pytest.raises(ScalarizrError) as caught:
            Ec2(REGION, ec2.url, PlatformAccess(access)).call("describe_volumes")
        assert caught.value.facts["parameter"] == f"_platform_access_data.{words}"


def test_an_endpoint_that_is_none_is_named_with_its_setting() -> None:
    with pytest.raises(NotConfigured, match="`endpoint_url` and `region`"):
        Ec2(REGION, "localhost:5000", PlatformAccess(ACCESS)).call("describe_volumes")


def test_a_proxy_is_gone_through_and_its_password_stays_secret(ec2: Hypervisor) -> None:
    host, port = ec2.url.removeprefix("http://").split(":")
    proxy = {"host": host, "port": port, "user": "me", "pass": "proxy/pass word", "type": 0}
    before = len(ec2.requests)
    # The endpoint does not exist: only the proxy, which the hypervisor plays, can answer.
    through = Ec2(REGION, "http://ec2.invalid", PlatformAccess({**ACCESS, "proxy": proxy}))
    assert through.call("describe_volumes", Filters=[])["Volumes"] is not None
    assert len(ec2.requests) == before + 1
    gone = {**proxy, "port": free_port()}
    with pytest.raises(ScalarizrError) as caught:
        Ec2(REGION, "http://ec2.invalid", PlatformAccess({**ACCESS, "proxy": gone})).call_once("describe_volumes", 2)
    assert caught.value.code == -32018
    assert "proxy/pass" not in caught.value.message and "proxy%2Fpass" not in caught.value.message
    socks = {**proxy, "type": "socks5"}
    with pytest.raises(ScalarizrError, match="socks5"):
        Ec2(REGION, ec2.url, PlatformAccess({**ACCESS, "proxy": socks})).call("describe_volumes")
