"""A real cluster on a loop volume of an agent's own, mounted, for tests that run as root."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from private_postgresql import PrivateCluster
from private_storage import let_go_below
from running_agent import RunningAgent
from scalarizr.client import Client

# As a real one is set: what is committed is on the disk. And the log that a test needs no more of is kept small.
DURABLE = "fsync = on\nfull_page_writes = on\nmax_wal_size = 64MB\n"


class Setup:
    """An agent with a private fstab, a loop volume that is mounted, and a cluster on it.

    :param directory: its own; every account may reach it.
    :param fstype: of the volume.
    :param command: how the agent is started.
    """

    def __init__(self, directory: Path, fstype: str = "ext4", command: list[str] | None = None) -> None:
        self.directory = directory
        self.mpoint = directory / "volume"
        self.images = directory / "images"
        root = directory / "root"
        (root / "etc").mkdir(parents=True)
        (root / "etc" / "fstab").write_text("")
        for tree in ("proc", "sys", "dev", "usr"):
            (root / tree).symlink_to(f"/{tree}")
        self.agent = RunningAgent(directory / "agent", command=command)
        self._paths = f'root = "{root}"\n'
        self.set_settings("")
        self.agent.start()
        self.api: Client = self.agent.client(timeout=120)
        config = {"type": "loop", "size": 0.4, "fstype": fstype, "mpoint": str(self.mpoint)}
        self.volume: dict[str, Any] = self.api.storage.create(storage_config=config, mkfs=True, mount=True)
        self.cluster = PrivateCluster(self.mpoint, DURABLE)

    def set_settings(self, postgresql: str) -> None:
        self.agent.write_settings(f'{postgresql}\n[storage]\nloop_dir = "{self.images}"\n', self._paths)

    def begin(self) -> None:
        self.cluster.make()
        self.set_settings(self.cluster.settings)
        self.agent.stop()
        self.agent.start()
        self.cluster.start()

    def close(self) -> None:
        self.cluster.close()
        self.api.close()
        self.agent.stop()
        let_go_below(self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextmanager
    def restored(self, snapshot: dict[str, Any]) -> Iterator["Restored"]:
        """A server started from a snapshot, on a volume of its own."""
        place = self.directory / "restored"
        config = {"type": "loop", "snap": snapshot, "mpoint": str(place)}
        volume = self.api.storage.create(storage_config=config, mount=True)
        try:
            with Restored(place) as server:
                yield server
        finally:
            self.api.storage.destroy(volume=volume)


class Restored(PrivateCluster):
    """A server on files that are there already, at an address of its own."""

    def make(self) -> None:
        assert (self.data_dir / "PG_VERSION").exists()
        (self.data_dir / "postmaster.pid").unlink(missing_ok=True)
        self.configure(self._place())


@contextmanager
def cluster_on_a_volume(fstype: str = "ext4", command: list[str] | None = None) -> Iterator[Setup]:
    directory = Path(tempfile.mkdtemp(prefix="pgv-", dir="/tmp"))
    directory.chmod(0o755)
    made = None
    try:
        made = Setup(directory, fstype, command)
        made.begin()
        yield made
    finally:
        if made is not None:
            made.close()
