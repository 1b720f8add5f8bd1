"""EBS volumes under fire: workers and agents killed, calls cancelled; no volume or snapshot that nobody knows of."""

import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moto_server import ACCESS, Answer, Hypervisor, Rule
from running_agent import RunningAgent, free_port
from scalarizr.client import AgentError, Client, Operation
from waiting import wait_for
from worker_processes import kill_worker

pytestmark = pytest.mark.root


@pytest.fixture
def agent(ec2: Hypervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningAgent]:
    # Without the request's credentials there are none.
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    with RunningAgent(tmp_path / "agent", ec2.settings) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_is_left(ec2: Hypervisor) -> Iterator[None]:
    yield
    assert ec2.take_back() == []
    assert ec2.snapshots() == []


def begin(client: Client, **keys: Any) -> Operation:
    options = {name: keys.pop(name) for name in ("mkfs", "mount") if name in keys}
    operation = client.storage.create(
        storage_config={"type": "ebs", "size": 1, **keys}, async_=True, _platform_access_data=ACCESS, **options
    )
    assert isinstance(operation, Operation)
    return operation


def made_again(client: Client, token: str) -> Any:
    """Make the call once more, as soon as what the first left is undone."""

    def again() -> Any:
        try:
            return begin(client, client_token=token).wait(timeout=100)
        except AgentError as failure:
            assert failure.code == -32010, failure
            return None

    return wait_for(again, "the second call")


class Held:
    """A request that moto has done and whose answer is kept back."""

    def __init__(self) -> None:
        self.came = threading.Event()
        self.go_on = threading.Event()

    @property
    def rule(self) -> Rule:
        def keep_back(_request: dict[str, str], pass_on: Callable[[], Answer]) -> Answer:
            answer = pass_on()
            self.came.set()
            self.go_on.wait(100)
            return answer

        return keep_back


@pytest.fixture
def held() -> Iterator[Held]:
    made = Held()
    yield made
    made.go_on.set()


def test_what_a_killed_worker_asked_for_and_never_heard_of_is_given_back(
    agent: RunningAgent, ec2: Hypervisor, held: Held
) -> None:
    ec2.answer("CreateVolume", held.rule)
    with agent.client() as client:
        operation = begin(client, client_token="db-1")
        assert held.came.wait(90)
        assert len(ec2.volumes()) == 1
        assert kill_worker(operation)
        record = wait_for(lambda: (record := operation.record()).finished and record, "the end")
        assert record.status == "failed" and record.error_code == -32015
        wait_for(lambda: ec2.volumes() == [], "giving it back")
        wait_for(lambda: client.storage.list() == [], "forgetting it")
        volume = made_again(client, "db-1")
        assert [one["VolumeId"] for one in ec2.volumes()] == [volume["id"]]
        client.storage.destroy(volume=volume, _platform_access_data=ACCESS)


def test_a_call_that_comes_again_after_a_crash_of_everything_adopts_what_the_first_made(
    agent: RunningAgent, ec2: Hypervisor, held: Held
) -> None:
    ec2.answer("CreateVolume", held.rule)
    with agent.client() as client:
        operation = begin(client, client_token="db-2")
        assert held.came.wait(90)
    first = ec2.volumes()[0]["VolumeId"]
    agent.kill()
    assert kill_worker(operation)
    agent.start()
    with agent.client() as client:
        # The credentials were in memory alone: nobody but the caller can go on or take it back.
        again = Operation(client, operation.id)
        record = wait_for(lambda: (record := again.record()).finished and record, "the end")
        assert record.status == "failed" and record.error_code == -32015
        volume = made_again(client, "db-2")
        assert volume["id"] == first and len(ec2.volumes()) == 1 and volume["device"]
        client.storage.destroy(volume=volume, _platform_access_data=ACCESS)


def test_a_cancellation_while_attaching_gives_everything_back(agent: RunningAgent, ec2: Hypervisor) -> None:
    def attaching(_request: dict[str, str], pass_on: Callable[[], Answer]) -> Answer:
        status, text = pass_on()
        return status, text.replace(b"<status>attached<", b"<status>attaching<")

    def stuck(_request: dict[str, str], pass_on: Callable[[], Answer]) -> Answer:
        ec2.answer("DescribeVolumes", attaching, times=3000)
        return pass_on()

    ec2.answer("AttachVolume", stuck)
    with agent.client() as client:
        operation = begin(client)
        wait_for(
            lambda: " … " in str((operation.record().progress or {}).get("step")) and ec2.devices, "the wait for it"
        )
        operation.cancel()
        record = wait_for(lambda: (record := operation.record()).finished and record, "the end")
        assert record.status == "canceled", record
        assert ec2.volumes() == [] and ec2.devices == {}
        assert client.storage.list() == []


def test_a_worker_killed_in_the_stillness_of_a_snapshot_leaves_neither(
    agent: RunningAgent, ec2: Hypervisor, held: Held, tmp_path: Path
) -> None:
    mpoint = tmp_path / "data"
    with agent.client() as client:
        volume = begin(client, mpoint=str(mpoint), mkfs=True, mount=True).wait(timeout=100)
        try:
            ec2.answer("CreateSnapshot", held.rule)
            operation = client.storage.snapshot(volume=volume, async_=True, _platform_access_data=ACCESS)
            assert held.came.wait(90)
            assert len(ec2.snapshots()) == 1
            assert kill_worker(operation)
            # What is still frozen lets nobody write.
            subprocess.run(["touch", str(mpoint / "file")], check=True, timeout=60)
            wait_for(lambda: ec2.snapshots() == [], "giving it back")
            wait_for(lambda: operation.record().finished, "the end")
            held.go_on.set()
            wait_for(lambda: destroyed(client, volume), "destroying it")
        finally:
            held.go_on.set()
            subprocess.run(["umount", str(mpoint)], capture_output=True)


def destroyed(client: Client, volume: Any) -> bool:
    try:
        client.storage.destroy(volume=volume, force=True, _platform_access_data=ACCESS)
    except AgentError as failure:
        assert failure.code == -32010, failure
        return False
    return True


@pytest.mark.parametrize("rounds", [3, pytest.param(60, marks=pytest.mark.long)])
def test_kills_at_any_instant_leave_no_volume_and_no_mount(
    rounds: int, agent: RunningAgent, ec2: Hypervisor, tmp_path: Path
) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    mpoint = tmp_path / "data"
    with agent.client() as client:
        began = time.monotonic()
        volume = begin(client, mpoint=str(mpoint), mkfs=True, mount=True).wait(timeout=100)
        whole = time.monotonic() - began
        wait_for(lambda: destroyed(client, volume), "destroying it")
        for number in range(rounds):
            token = f"killed-{number}"
            operation = begin(client, mpoint=str(mpoint), client_token=token, mkfs=True, mount=True)
            time.sleep(chance.uniform(0, whole))
            kill_worker(operation)
            record = wait_for(lambda operation=operation: (r := operation.record()).finished and r, "the end")
            if record.status == "completed":
                assert destroyed(client, record.result)
            wait_for(lambda: ec2.volumes() == [] and not os.path.ismount(mpoint), f"giving back {number}")
            wait_for(lambda: all(one["status"] == "destroyed" for one in client.storage.list()), "forgetting it")
            assert ec2.devices == {}
