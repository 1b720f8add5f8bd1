"""EBS volumes through the whole agent, against moto's server; the devices are loop devices (see `moto_server.py`)."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moto_server import ACCESS, KEY, KEY_ID, TOKEN, ZONE, Answer, Hypervisor, ebs_volume
from provider_storage import storage_in_this_process
from running_agent import RunningAgent
from scalarizr.client import AgentError, Client
from scalarizr.storage.storage import Storage

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def agent(ec2: Hypervisor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    with RunningAgent(tmp_path_factory.mktemp("agent"), ec2.settings) as running:
        yield running


@pytest.fixture
def client(agent: RunningAgent) -> Iterator[Client]:
    with agent.client(timeout=110) as made:
        yield made


@pytest.fixture
def storage(agent: RunningAgent) -> Iterator[Storage]:
    """The same agent's storage, in this process: a call without a worker of its own."""
    with storage_in_this_process(agent.etc, ACCESS) as opened:
        yield opened


@pytest.fixture(autouse=True)
def nothing_is_left(ec2: Hypervisor) -> Iterator[None]:
    yield
    assert ec2.take_back() == []


def create(client: Client, wanted: dict[str, Any], **options: Any) -> Any:
    return client.storage.create(storage_config=wanted, _platform_access_data=ACCESS, **options)


def destroy(client: Client, volume: Any, **options: Any) -> Any:
    return client.storage.destroy(volume=volume, _platform_access_data=ACCESS, **options)


def test_the_example_of_the_founding_document_works(client: Client, ec2: Hypervisor, agent: RunningAgent) -> None:
    volume = client.storage.create(
        storage_config={"type": "ebs", "size": 1}, _platform_access_data={"key_id": KEY_ID, "key": KEY}
    )
    told = ec2.volume(volume["id"])
    assert told["State"] == "in-use" and told["Attachments"][0]["InstanceId"] == ec2.instance_id
    assert volume["device"] == ec2.devices[volume["id"]]
    assert Path(volume["device"]).is_block_device()
    assert (volume["size"], volume["volume_type"], volume["avail_zone"]) == (1, "gp3", ZONE)
    assert client.storage.list()[0]["id"] == volume["id"]
    assert create(client, volume) == volume
    assert len(ec2.volumes()) == 1
    destroy(client, volume)
    assert ec2.volumes() == []
    destroy(client, volume)  # gone already
    assert client.storage.list()[0]["status"] == "destroyed"
    held = b"".join(path.read_bytes() for path in agent.state.rglob("*") if path.is_file()).decode("latin-1")
    for text in (held, agent.log_text()):
        assert not any(secret in text for secret in (KEY, KEY_ID, TOKEN))


def test_the_volume_goes_through_its_whole_life(client: Client, ec2: Hypervisor, tmp_path: Path) -> None:
    mpoint, second = tmp_path / "data", tmp_path / "second"
    volume = create(client, ebs_volume(mpoint=str(mpoint), fstype="ext4"), mkfs=True, mount=True)
    assert os.path.ismount(mpoint) and volume["fstype"] == "ext4"
    try:
        writer = Writer(mpoint)
        try:
            snapshot = client.storage.snapshot(
                volume=volume, description="before the upgrade", tags={"a": "b"}, _platform_access_data=ACCESS
            )
        finally:
            written = writer.stop()
        told = ec2.snapshots()[0]
        assert (snapshot["type"], snapshot["id"], snapshot["status"]) == ("ebs", told["SnapshotId"], "completed")
        assert (snapshot["description"], snapshot["tags"], snapshot["size"]) == ("before the upgrade", {"a": "b"}, 1)

        copy = create(client, ebs_volume(size=None, snap=snapshot, mpoint=str(second)), mount=True)
        assert copy["size"] == 1 and copy["id"] != volume["id"] and os.path.ismount(second)
        blocks = sorted(second.glob("block-*"))
        assert 0 < len(blocks) <= written
        for block in blocks[:-1]:
            assert hashlib.sha256(block.read_bytes()).hexdigest() == Writer.checksum(block.name)
        destroy(client, copy)
        assert not os.path.ismount(second) and [one["VolumeId"] for one in ec2.volumes()] == [volume["id"]]

        grown = client.storage.grow(volume=volume, growth={"size": 3}, _platform_access_data=ACCESS)
        assert grown["size"] == 3 and ec2.volume(volume["id"])["Size"] == 3
        total = os.statvfs(mpoint)
        assert total.f_blocks * total.f_frsize > 2.7 * (1 << 30) and os.path.ismount(mpoint)

        apart = client.storage.detach(volume=volume, _platform_access_data=ACCESS)
        assert apart["device"] is None and not os.path.ismount(mpoint)
        assert ec2.volume(volume["id"])["Attachments"] == [] and ec2.devices == {}
        again = create(client, apart, mount=True)
        assert (again["id"], again["size"], again["fstype"]) == (volume["id"], 3, "ext4") and os.path.ismount(mpoint)
        assert len(list(mpoint.glob("block-*"))) == written

        client.storage.destroy_snapshot(snapshot=snapshot, _platform_access_data=ACCESS)
        client.storage.destroy_snapshot(snapshot=snapshot, _platform_access_data=ACCESS)
        assert ec2.snapshots() == []
        destroy(client, again)
        assert not os.path.ismount(mpoint)
    finally:
        for place in (mpoint, second):
            subprocess.run(["umount", str(place)], capture_output=True)


class Writer:
    """Writes small files, each durable before the next, until it is stopped."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._end = threading.Event()
        self._count = 0
        self._thread = threading.Thread(target=self._write)
        self._thread.start()
        while self._count < 5:
            time.sleep(0.01)

    def _write(self) -> None:
        while not self._end.is_set():
            name = f"block-{self._count:06d}"
            with open(self._directory / name, "wb") as file:
                file.write(self.content(name))
                os.fsync(file.fileno())
            self._count += 1
            time.sleep(0.005)

    def stop(self) -> int:
        self._end.set()
        self._thread.join()
        return self._count

    @staticmethod
    def content(name: str) -> bytes:
        return name.encode() * 1000

    @classmethod
    def checksum(cls, name: str) -> str:
        return hashlib.sha256(cls.content(name)).hexdigest()


def test_many_are_made_at_once_though_ec2_is_overloaded(client: Client, storage: Storage, ec2: Hypervisor) -> None:
    # moto never says this; EC2 does, and as a status 503.
    ec2.fail("CreateVolume", "RequestLimitExceeded", "Request limit exceeded.", 503, times=4)
    ec2.fail("AttachVolume", "RequestLimitExceeded", "Request limit exceeded.", 503, times=4)
    ec2.fail("DescribeVolumes", "Unavailable", "The service is unavailable.", 503, times=2)
    running = [create(client, ebs_volume(), async_=True) for _ in range(6)]
    volumes = [operation.wait(timeout=100) for operation in running]
    assert len({volume["id"] for volume in volumes}) == len({volume["device"] for volume in volumes}) == 6
    names = [one["Attachments"][0]["Device"] for one in ec2.volumes()]
    assert len(set(names)) == 6 and set(names) == {f"/dev/sd{letter}" for letter in "fghijk"}
    for volume in volumes:
        storage.destroy(volume)


def test_every_step_is_told_by_its_name(client: Client, storage: Storage, ec2: Hypervisor) -> None:
    def slow(_request: dict[str, str], pass_on: Callable[[], Answer]) -> Answer:
        status, text = pass_on()
        return status, text.replace(b"<status>attached<", b"<status>attaching<")

    ec2.answer("AttachVolume", lambda _request, pass_on: (ec2.answer("DescribeVolumes", slow, 4), pass_on())[1])
    operation = create(client, ebs_volume(), async_=True)
    seen: set[str] = set()
    volume = operation.wait(lambda record: seen.add((record.progress or {}).get("step", "")), timeout=60)
    assert any(step.startswith(f"attaching {volume['id']} … ") and step.endswith(" s") for step in seen), seen
    lines = operation.record().logs
    assert [line for line in lines if "making" in line] and [line for line in lines if "attaching" in line]
    storage.destroy(volume)


@pytest.mark.parametrize(
    ("code", "words", "number", "told"),
    [
        ("InsufficientInstanceCapacity", "There is not enough capacity.", -32018, "no room"),
        ("AttachmentLimitExceeded", "Maximum of 28 attachments exceeded.", -32013, "can hold no more"),
    ],
)
def test_what_was_made_is_given_back_where_it_cannot_be_attached(
    code: str, words: str, number: int, told: str, client: Client, ec2: Hypervisor
) -> None:
    # moto attaches anything; EC2 has these answers.
    ec2.fail("AttachVolume", code, words)
    asked = ec2.asked("DeleteVolume")
    with pytest.raises(AgentError, match=told) as caught:
        create(client, ebs_volume())
    assert caught.value.code == number
    assert ec2.volumes() == [] and ec2.devices == {} and ec2.asked("DeleteVolume") == asked + 1


def test_an_instance_knows_itself_and_its_role_from_the_metadata_service(
    ec2: Hypervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", ec2.url)
    monkeypatch.setenv("HOME", str(tmp_path))
    # moto's own answer is of an instance that it does not know.
    ec2.answer("GET /latest/meta-data/instance-id", lambda _request, _pass_on: (200, ec2.instance_id.encode()))
    settings = f'[storage]\nby_id_dir = "{ec2.by_id}"\n[ec2]\nendpoint_url = "{ec2.url}"\n'
    with RunningAgent(tmp_path / "agent", settings) as agent, agent.client() as client:
        volume = client.storage.create(storage_config={"type": "ebs", "size": 1})
        assert volume["avail_zone"] == ZONE and volume["device"]
        tokens = [request["Action"] for request in ec2.requests if "/latest/api/token" in request["Action"]]
        assert tokens and set(tokens) == {"PUT /latest/api/token"}
        ec2.answer("GET /latest/meta-data/instance-id", lambda _request, _pass_on: (200, ec2.instance_id.encode()))
        client.storage.destroy(volume=volume)


def test_the_sdk_lives_and_dies_with_the_worker(agent: RunningAgent, client: Client, ec2: Hypervisor) -> None:
    def resident() -> int:
        text = Path(f"/proc/{agent.pid()}/status").read_text()
        return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmRSS:")))

    volume = create(client, ebs_volume())
    before = resident()
    for _ in range(2):
        assert create(client, volume) == volume
    destroy(client, volume)
    # The SDK takes more than 26 MB.
    assert resident() - before < 4 << 10
    code = (
        "import sys, importlib\n"
        "import scalarizr.agent, scalarizr.api.storage, scalarizr.storage.volumes.ebs\n"
        "print([name for name in sys.modules if name.startswith(('boto', 'urllib3', 's3transfer'))])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
