"""Backups whose workers are killed at any instant: what is in the store afterwards is a whole backup or nothing."""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from private_postgresql import PrivateCluster
from running_agent import RunningAgent
from scalarizr.client import AgentError, Client, ClientError, Operation
from scalarizr.host.processes import wait_until
from worker_processes import worker_of

pytestmark = [pytest.mark.root, pytest.mark.postgresql, pytest.mark.long]

KILLS = 60


def started(client: Client) -> Operation:
    deadline = time.monotonic() + 40
    while True:
        try:
            operation = client.postgresql.create_backup(async_=True)
        except AgentError as error:
            # What the last one left is just being undone.
            assert error.code == -32010 and time.monotonic() < deadline
            time.sleep(0.2)
        else:
            assert isinstance(operation, Operation)
            return operation


def test_killed_at_any_instant_there_is_a_whole_backup_or_nothing(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    store = tmp_path / "store" / "postgresql"
    whole = 0
    with PrivateCluster() as cluster:
        cluster.psql("CREATE DATABASE other")
        cluster.psql("CREATE TABLE t AS SELECT g AS n, md5(g::text) AS m FROM generate_series(1, 100000) g", "other")
        settings = f'{cluster.settings}[backup]\nstore = "file://{tmp_path}/store"\njobs = 2\n'
        with RunningAgent(tmp_path / "agent", settings) as agent:
            for turn in range(KILLS):
                with agent.client(timeout=100) as client:
                    operation = started(client)
                    assert wait_until(lambda name=operation.id: worker_of(name) is not None, 20)
                    time.sleep(chance.uniform(0, 1.2))
                    both = chance.random() < 0.3
                if both:
                    agent.kill()
                with contextlib.suppress(TypeError, ProcessLookupError):
                    os.kill(worker_of(operation.id), signal.SIGKILL)  # type: ignore[arg-type]
                if both:
                    agent.start()
                with agent.client(timeout=100) as client:
                    again = Operation(client, operation.id)
                    with contextlib.suppress(ClientError):
                        again.wait(timeout=60)
                    listed = {
                        one["manifest"].split("/")[1]: one["complete"] for one in client.postgresql.list_backups()
                    }
                    # What is no backup goes by the agent that finds the worker dead, perhaps a moment later.
                    assert wait_until(
                        lambda known=listed: (
                            {path.name for path in store.glob("*") if any(path.iterdir())} <= set(known)
                        ),
                        30,
                    ), f"turn {turn}"
                    for identity, complete in listed.items():
                        assert complete
                        path = f"postgresql/{identity}/manifest.json"
                        assert client.postgresql.verify_backup(manifest=path, async_=False)["valid"]
                        client.postgresql.delete_backup(manifest=path)
                        whole += 1
    assert whole < KILLS
