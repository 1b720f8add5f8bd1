"""Random sequences of calls on volumes, killed and cancelled at random instants, against a model of what must be.

After each the leftovers are undone by whoever is left; then every image, loop device, mount and line of fstab is
one that the model knows, and every volume holds what was written to it.
"""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from private_storage import PrivateStorage, private_storage
from scalarizr.client import AgentError, ClientError

pytestmark = pytest.mark.root


class Model:
    """What is there by rights: volumes with the text that was written to each, and snapshots.

    :param storage: the agent.
    :param dice: decides everything.
    """

    def __init__(self, storage: PrivateStorage, dice: random.Random) -> None:
        self.storage = storage
        self.dice = dice
        self.volumes: dict[str, dict[str, Any]] = {}
        self.texts: dict[str, str] = {}
        self.snapshots: dict[str, tuple[dict[str, Any], str]] = {}
        self.tokens = 0
        self.story: list[str] = []

    def step(self) -> None:
        doable = ["create"]
        if self.volumes:
            doable += ["snapshot", "grow", "detach", "attach", "destroy", "write"]
        if self.snapshots:
            doable += ["restore", "destroy_snapshot"]
        if len(self.volumes) > 3:
            doable = ["destroy"]
        getattr(self, self.dice.choice(doable))()
        self.check()

    def create(self, snap: str | None = None) -> None:
        self.tokens += 1
        token = f"token-{self.tokens}"
        mpoint = self.storage.directory / f"mounted-{self.tokens}"
        config: dict[str, Any] = {"type": "loop", "mpoint": str(mpoint), "client_token": token}
        config |= {"size": 0.02} if snap is None else {"snap": self.snapshots[snap][0]}
        text = "" if snap is None else self.snapshots[snap][1]
        parameters = {"storage_config": config, "mkfs": snap is None, "mount": True, "fstab": self.dice.random() < 0.5}
        self.maybe_killed("create", parameters)
        # Once more with the same token, whatever became of the first: one volume.
        volume = self.storage.call("create", **parameters)
        self.volumes[volume["id"]] = volume
        self.texts[volume["id"]] = text

    def restore(self) -> None:
        self.create(self.dice.choice(sorted(self.snapshots)))

    def write(self) -> None:
        identity = self.any_volume()
        text = str(self.dice.random()) * 1000
        if self.is_mounted(identity):
            with open(Path(self.volumes[identity]["mpoint"]) / "text", "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            self.texts[identity] = text

    def snapshot(self) -> None:
        identity = self.any_volume()
        taken = self.maybe_killed("snapshot", {"volume": self.volumes[identity]})
        if taken is not None:
            self.snapshots[taken["id"]] = (taken, self.texts[identity])

    def grow(self) -> None:
        identity = self.any_volume()
        size = round(self.volumes[identity]["size"] + 0.01, 3)
        self.maybe_killed("grow", {"volume": self.volumes[identity], "growth": {"size": size}})
        listed = next(one for one in self.storage.call("list") if one["id"] == identity)
        self.volumes[identity]["size"] = listed["size"]

    def detach(self) -> None:
        identity = self.any_volume()
        self.maybe_killed("detach", {"volume": self.volumes[identity]})
        self.storage.call("detach", volume=self.volumes[identity])

    def attach(self) -> None:
        identity = self.any_volume()
        parameters = {"storage_config": self.volumes[identity], "mount": True}
        self.maybe_killed("create", parameters)
        self.volumes[identity] = self.storage.call("create", **parameters)

    def destroy(self) -> None:
        identity = self.any_volume()
        self.maybe_killed("destroy", {"volume": self.volumes[identity]})
        self.storage.call("destroy", volume=self.volumes[identity])
        del self.volumes[identity], self.texts[identity]

    def destroy_snapshot(self) -> None:
        identity = self.dice.choice(sorted(self.snapshots))
        taken, _text = self.snapshots.pop(identity)
        self.maybe_killed("destroy_snapshot", {"snapshot": taken})
        self.storage.call("destroy_snapshot", snapshot=taken)

    def any_volume(self) -> str:
        return self.dice.choice(sorted(self.volumes))

    def is_mounted(self, identity: str) -> bool:
        return self.volumes[identity]["mpoint"] in mounts()

    def maybe_killed(self, method: str, parameters: dict[str, Any]) -> Any:
        """Make a call, killed or cancelled somewhere more often than not; gives its result where it came to one."""
        with self.storage.agent.client() as client:
            operation = client.call(f"storage.{method}", **parameters, async_=True).id
        kind = self.dice.choice(["none", "worker", "worker", "both", "cancel"])
        self.story.append(f"{method} {kind}")
        time.sleep(self.dice.uniform(0, 0.5))
        if kind == "cancel":
            with self.storage.agent.client() as client:
                client.call("operation.cancel", operation_id=operation)
        elif kind != "none":
            worker = self.worker_of(operation)
            if kind == "both":
                self.storage.agent.kill()
            if worker is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
            if kind == "both":
                self.storage.agent.start()
        return self.settled(operation)

    def database(self, question: str, operation: str) -> Any:
        path = self.storage.agent.state / "operations" / "operations.db"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as connection:
            return connection.execute(f"SELECT {question} FROM operations WHERE id = ?", (operation,)).fetchone()

    def worker_of(self, operation: str) -> int | None:
        pid: int | None = self.database("pid", operation)[0]
        return pid

    def settled(self, operation: str) -> Any:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            with contextlib.suppress(ClientError), self.storage.agent.client() as client:
                record = client.call("operation.result", operation_id=operation)
                ended = record["status"] in ("completed", "failed", "canceled")
                if ended and self.database("cleaning", operation) == (0,):
                    assert record["error_code"] in (None, -32015), f"{record}: {self.story}"
                    return record["result"]
            time.sleep(0.02)
        known = self.database("status, error, cleaning, pid", operation)
        raise AssertionError(f"{operation} did not end: {known}: {self.story}: {self.complaints()}")

    def complaints(self) -> str:
        lines = self.storage.agent.log_text().splitlines()
        return "\n".join(line for line in lines if " ERROR " in line or " WARNING " in line)[-4000:]

    def check(self) -> None:
        """Compare everything that is there with what is there by rights."""
        images = {Path(volume["file"]).name for volume in self.volumes.values()}
        images |= {Path(taken["file"]).name for taken, _text in self.snapshots.values()}
        assert set(self.storage.files()) == images, self.story
        attached = subprocess.run(["losetup", "-n", "-O", "BACK-FILE", "--list"], capture_output=True, text=True).stdout
        ours = {line.strip() for line in attached.splitlines() if line.strip().startswith(f"{self.storage.images}/")}
        assert ours <= {volume["file"] for volume in self.volumes.values()}, self.story
        places = {volume["mpoint"] for volume in self.volumes.values()}
        mounted = {place for place in mounts() if place.startswith(f"{self.storage.directory}/")}
        assert mounted <= places, self.story
        entries = {line.split()[1] for line in self.storage.fstab.read_text().splitlines() if not line.startswith("#")}
        assert entries - {"/somewhere"} <= places, self.story
        for identity, volume in self.volumes.items():
            if volume["mpoint"] in mounted and self.texts[identity]:
                assert (Path(volume["mpoint"]) / "text").read_text() == self.texts[identity], self.story
                (Path(volume["mpoint"]) / "thawed").write_text("yes")

    def check_all_data(self) -> None:
        for identity in sorted(self.volumes):
            volume = self.storage.call("create", storage_config=self.volumes[identity], mount=True)
            if self.texts[identity]:
                assert (Path(volume["mpoint"]) / "text").read_text() == self.texts[identity], self.story


def mounts() -> set[str]:
    return {line.split(" ")[1] for line in Path("/proc/self/mounts").read_text().splitlines()}


def play(directory: Path, steps: int, seed: int) -> None:
    print(f"seed {seed}")
    with private_storage(directory) as storage:
        model = Model(storage, random.Random(seed))
        for _ in range(steps):
            try:
                model.step()
            except AgentError as failure:
                raise AssertionError(f"{failure.code} {failure.message}: {model.story}") from failure
        model.check_all_data()


def test_killed_at_random_instants_no_volume_is_lost_or_left_over(tmp_path: Path) -> None:
    play(tmp_path, 12, random.randrange(10**6))


@pytest.mark.long
@pytest.mark.parametrize("round_", range(10))
def test_hundreds_of_kills_lose_and_leave_nothing(tmp_path: Path, round_: int) -> None:
    play(tmp_path, 40, random.randrange(10**6))
