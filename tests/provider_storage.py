"""An agent with volumes of a cloud, the cloud being a test server; and what all of their types have to stand alike."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from private_storage import PrivateStorage
from provider_server import CloudServer
from scalarizr.client import AgentError
from scalarizr.errors import Busy
from scalarizr.logs import close_log
from scalarizr.platform_access import PlatformAccess, set_platform_access
from scalarizr.storage.opening import open_storage
from scalarizr.storage.storage import Storage
from waiting import wait_for
from worker_processes import worker_pid


class ProviderStorage(PrivateStorage):
    """An agent whose calls bring a cloud's credentials.

    :param server: the cloud; of its credentials, values with more than twelve characters are to be seen nowhere.
    """

    def __init__(self, directory: Path, server: CloudServer, type_name: str) -> None:
        super().__init__(directory, server.settings)
        self.server = server
        self.access = server.access
        self.type = type_name

    def call(self, method: str, **parameters: Any) -> Any:
        with self.agent.client(timeout=250) as client:
            return client.call(f"storage.{method}", _platform_access_data=self.access, **parameters)

    def failure(self, method: str, **parameters: Any) -> AgentError:
        try:
            self.call(method, **parameters)
        except AgentError as error:
            return error
        raise AssertionError(f"storage.{method} was not refused")

    def config(self, **further: Any) -> dict[str, Any]:
        return {"type": self.type, "size": 1, **further}

    def planted(self, *secrets: str) -> list[str]:
        """Give where secrets are seen that should be nowhere."""
        files = [path for top in (self.agent.state, self.agent.logs) for path in top.rglob("*") if path.is_file()]
        return [f"{secret} in {path}" for path in files for secret in secrets if secret.encode() in path.read_bytes()]

    @contextlib.contextmanager
    def opened(self) -> Iterator[Storage]:
        """Give the same agent's storage in this process, with its credentials."""
        with storage_in_this_process(self.agent.etc, self.access) as opened:
            try:
                yield opened
            finally:
                opened.catalogue.type_of(self.type, "type").close()  # type: ignore[attr-defined]


@contextlib.contextmanager
def provider_storage(directory: Path, server: CloudServer, type_name: str) -> Iterator[ProviderStorage]:
    """Run an agent with a cloud."""
    made = ProviderStorage(directory, server, type_name)
    try:
        with made.agent:
            yield made
    finally:
        made.clean_up()
        server.devices.unmount()


@contextlib.contextmanager
def storage_in_this_process(etc: Path, access: dict[str, Any]) -> Iterator[Storage]:
    """Give an agent's storage as one call has it, without a worker of its own."""
    set_platform_access(PlatformAccess(access))
    opened = open_storage(etc)
    try:
        yield opened
    finally:
        close_log(opened.catalogue.log)
        set_platform_access(None)


class Writer:
    """Appends numbered lines to a file, durably now and then, until it is stopped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        with open(self._path, "w") as file:
            number = 0
            while not self._stopped.is_set():
                file.write(f"{number}\n")
                number += 1
                if number % 500 == 0:
                    file.flush()
                    os.fsync(file.fileno())
                    time.sleep(0.005)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


def live(storage: ProviderStorage, **keys: Any) -> None:
    """Lead a volume through its whole life: what matters through the agent, the rest in this process.

    :param keys: of the type's own, which the volume has to keep.
    """
    mpoint, second = storage.mpoint, storage.directory / "second"
    server = storage.server
    wanted = storage.config(mpoint=str(mpoint), tags={"role": "db"}, client_token="one", **keys)
    volume = storage.call("create", storage_config=wanted, mkfs=True, mount=True, fstab=True)
    assert volume["device"] == next(iter(server.devices.loops.values()))
    assert (volume["size"], volume["fstype"], volume["tags"]) == (1, "ext4", {"role": "db"})
    assert {name: volume[name] for name in keys} == keys
    assert os.path.ismount(mpoint) and str(mpoint) in storage.fstab.read_text()
    (mpoint / "kept").write_text("data")
    with storage.opened() as here:
        # Its own result again, and the first call again: nothing is made.
        assert here.create(volume, mkfs=True, mount=True, fstab=True) == volume
        assert here.create(wanted, mkfs=True, mount=True, fstab=True)["id"] == volume["id"]
        assert len(server.volumes_made()) == 1

        writer = Writer(mpoint / "written")
        try:
            snapshot = storage.call("snapshot", volume=volume, description="before", tags={"a": "b"})
        finally:
            writer.stop()
        assert (snapshot["type"], snapshot["status"], snapshot["size"]) == (storage.type, "completed", 1)
        assert (snapshot["description"], snapshot["tags"]) == ("before", {"a": "b"})

        copy = here.create({"type": storage.type, "snap": snapshot, "size": 1.5, "mpoint": str(second)}, mount=True)
        assert (second / "kept").read_text() == "data" and copy["id"] != volume["id"] and copy["size"] == 2
        lines = (second / "written").read_text().splitlines()
        assert lines == [str(number) for number in range(len(lines))]
        here.destroy(copy)
        here.destroy_snapshot(snapshot)
        here.destroy_snapshot(snapshot)  # gone already
        assert server.snapshots == {}

        before = os.statvfs(mpoint).f_blocks
        grown = here.grow(volume, {"size": 2})
        assert grown["size"] == 2 and os.statvfs(mpoint).f_blocks > before * 1.8

        detached = here.detach(grown)
        assert detached["device"] is None and not os.path.ismount(mpoint)
        assert str(mpoint) not in storage.fstab.read_text() and server.devices.loops == {}
        # Detached it grows, too: attached for as long as its file system takes.
        assert here.grow(detached, {"size": 3})["size"] == 3 and server.devices.loops == {}
        again = here.create({**detached, "size": 3}, mount=True)
        assert again["device"] is not None and (mpoint / "kept").read_text() == "data"
        storage.call("destroy", volume=again)
        here.destroy(again)  # gone already
    assert server.volumes_made() == [] and not os.path.ismount(mpoint)
    secrets = [value for value in storage.access.values() if len(value) > 12 and not value.startswith("http")]
    assert secrets and storage.planted(*secrets) == []


def adopt_after_kill(storage: ProviderStorage, call: str) -> None:
    """Kill a worker at the instant at which the cloud makes what it asked for, then call again with the same token."""
    wanted = storage.config(client_token="killed")
    server = storage.server
    reached, go_on = threading.Event(), threading.Event()

    def watch(name: str) -> None:
        if name == call and not reached.is_set():
            reached.set()
            go_on.wait(120)

    server.watch = watch
    try:
        with storage.agent.client(timeout=250) as client:
            operation = client.call(
                "storage.create", storage_config=wanted, async_=True, _platform_access_data=storage.access
            )
            assert reached.wait(120)
            os.kill(worker_pid(operation.id), signal.SIGKILL)
            go_on.set()
            wait_for(lambda: operation.record().finished)
            assert operation.record().status == "failed"
    finally:
        server.watch = lambda _name: None
        go_on.set()
    # Whoever undoes what the killed one did may be at work on it at the same time.
    with storage.opened() as here:
        volume = wait_for(lambda: created_or_busy(here, wanted))
        assert server.volumes_made() == [volume["id"]]
        wait_for(lambda: not client_has_in_progress(storage))
        assert here.create(wanted) == volume
        assert server.volumes_made() == [volume["id"]]
        here.destroy(volume)
    assert server.volumes_made() == []


def created_or_busy(here: Storage, wanted: dict[str, Any]) -> dict[str, Any] | None:
    try:
        return here.create(wanted)
    except Busy:
        return None


def client_has_in_progress(storage: ProviderStorage) -> bool:
    with storage.agent.client() as client:
        return bool(client.call("operation.has_in_progress"))
