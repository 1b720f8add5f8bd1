"""Data bundles cut off in the middle: the file system goes on, and nothing that looks like a snapshot is left."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from cluster_on_a_volume import Setup, cluster_on_a_volume
from scalarizr.client import AgentError, Operation
from waiting import wait_for
from worker_processes import worker_of

pytestmark = [pytest.mark.root, pytest.mark.postgresql]


def begun(setup: Setup) -> tuple[Operation, int]:
    """A bundle whose snapshot is just being taken, or was a moment ago, and its worker."""
    while True:
        operation = wait_for(lambda: bundle_or_busy(setup))
        worker = wait_for(lambda o=operation: worker_of(o, "do") or (-1 if o.record().finished else None))
        if worker > 0:
            wait_for(lambda o=operation: any("taking a snapshot" in line for line in o.record().logs))
            return operation, worker
        # A machine so fast, or this process so slow, that it was over before anybody looked.
        setup.api.storage.destroy_snapshot(snapshot=operation.wait()["snapshot"])


def bundle_or_busy(setup: Setup) -> Operation | None:
    try:
        operation: Operation = setup.api.postgresql.create_databundle(async_=True)
        return operation
    except AgentError as error:
        assert error.code == -32010  # what the last one left is just being undone
        return None


def nothing_is_left(setup: Setup) -> bool:
    return len(list(setup.images.iterdir())) == 1 and not [
        made for made in setup.api.storage.list() if made["kind"] == "snapshot" and made["status"] != "destroyed"
    ]


def with_ballast(setup: Setup) -> None:
    """Make the snapshot, which is a copy here, take a moment."""
    subprocess.run(
        ["dd", "if=/dev/urandom", f"of={setup.mpoint}/ballast", "bs=1M", "count=120"], check=True, capture_output=True
    )
    setup.cluster.psql("CREATE TABLE t (n int)")


def killed_again_and_again(rounds: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with cluster_on_a_volume() as setup:
        with_ballast(setup)
        for number in range(rounds):
            operation, worker = begun(setup)
            time.sleep(chance.uniform(0, 0.3))
            if number % 2:
                setup.agent.kill()
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
            if number % 2:
                setup.agent.start()
            setup.cluster.psql("INSERT INTO t VALUES (1)")
            record = wait_for(lambda o=operation: r if (r := o.record()).status in ("completed", "failed") else None)
            if record.status == "completed":
                setup.api.storage.destroy_snapshot(snapshot=record.result["snapshot"])
            else:
                assert record.error_code == -32015 and "interrupted" in record.error
            assert wait_for(lambda: nothing_is_left(setup))
        result = wait_for(lambda: bundle_or_busy(setup)).wait()
        with setup.restored(result["snapshot"]) as server:
            assert server.psql("SELECT count(*) FROM t") == str(rounds)


def test_whatever_is_killed_the_server_goes_on_and_no_half_snapshot_is_left() -> None:
    killed_again_and_again(2)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_killed_often() -> None:
    killed_again_and_again(60)


def test_one_that_is_cancelled_and_one_whose_server_dies() -> None:
    with cluster_on_a_volume() as setup:
        with_ballast(setup)
        operation = refusing_a_second(setup)
        wait_for(lambda: any("taking a snapshot" in line for line in operation.record().logs))
        operation.cancel()
        record = wait_for(lambda: r if (r := operation.record()).status in ("completed", "canceled") else None)
        if record.status == "completed":
            setup.api.storage.destroy_snapshot(snapshot=record.result["snapshot"])
        assert wait_for(lambda: nothing_is_left(setup))
        setup.cluster.psql("INSERT INTO t VALUES (1)")
        operation, _worker = begun(setup)
        setup.cluster.signal(signal.SIGKILL)
        result = operation.wait()
        # What was on the disk at that instant is a bundle all the same.
        assert result["snapshot"]["id"]
        with setup.restored(result["snapshot"]) as server:
            assert server.psql("SELECT count(*) FROM t") == "1"


def refusing_a_second(setup: Setup) -> Operation:
    """A bundle beside which a second one was refused: its worker stands still for as long as that takes."""
    while True:
        operation = wait_for(lambda: bundle_or_busy(setup))
        worker = wait_for(lambda o=operation: worker_of(o, "do") or (-1 if o.record().finished else None))
        with contextlib.suppress(ProcessLookupError):
            if worker > 0:
                os.kill(worker, signal.SIGSTOP)
                try:
                    if not operation.record().finished:
                        with pytest.raises(AgentError) as caught:
                            setup.api.postgresql.create_databundle(async_=True)
                        assert caught.value.code == -32010 and caught.value.data["operation_id"] == operation.id
                        return operation
                finally:
                    os.kill(worker, signal.SIGCONT)
        setup.api.storage.destroy_snapshot(snapshot=operation.wait()["snapshot"])


def test_a_server_that_was_stopped_for_its_volume_is_started_again_by_whoever_is_left() -> None:
    without = ["setpriv", "--inh-caps=-sys_resource", "--bounding-set=-sys_resource"]
    with cluster_on_a_volume("ext4", [*without, sys.executable, "-m", "scalarizr", "serve"]) as setup:
        setup.cluster.psql("CREATE TABLE t (n int)")
        before = setup.cluster.pid()
        operation = setup.api.postgresql.grow_volume(volume=setup.volume, growth={"size": 0.6}, async_=True)
        worker = wait_for(lambda: worker_of(operation) or (-1 if operation.record().finished else None))
        wait_for(lambda: any("stopping the server" in line for line in operation.record().logs))
        if worker > 0:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        wait_for(lambda: operation.record().status in ("failed", "completed"))
        wait_for(lambda: setup.cluster.pid() not in (None, before))
        wait_for(lambda: setup.cluster.psql("SELECT count(*) FROM t", check=False) == "0")
