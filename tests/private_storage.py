"""An agent with volumes of its own: its images, its fstab and its mounts below one directory, all taken away again."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from running_agent import RunningAgent
from scalarizr.client import AgentError

MIB = 1 << 20
# Of each file system the smallest that can be made, and grown to twice of it: GB.
SMALLEST = {"ext3": 0.05, "ext4": 0.05, "xfs": 0.3, "btrfs": 0.13}


class PrivateStorage:
    """An agent that keeps its volumes and its fstab below a directory of the test's own.

    :param directory: the test's own.
    :param settings: further ones, beginning with lines of `[storage]`.
    """

    def __init__(self, directory: Path, settings: str = "") -> None:
        self.directory = directory
        self.root = directory / "root"
        (self.root / "etc").mkdir(parents=True)
        for tree in ("proc", "sys", "dev"):
            (self.root / tree).symlink_to(f"/{tree}")
        self.fstab = self.root / "etc" / "fstab"
        self.fstab.write_text("# somebody's own\nUUID=11-22 /somewhere vfat noauto 0 0\n")
        self.images = directory / "images"
        self.agent = RunningAgent(
            directory, f'[storage]\nloop_dir = "{self.images}"\n{settings}', paths=f'root = "{self.root}"\n'
        )
        self.mpoint = directory / "mounted"

    def call(self, method: str, **parameters: Any) -> Any:
        with self.agent.client() as client:
            return client.call(f"storage.{method}", **parameters)

    def refused(self, method: str, **parameters: Any) -> AgentError:
        with self.agent.client() as client, pytest.raises(AgentError) as caught:
            client.call(f"storage.{method}", **parameters)
        return caught.value

    def mounted(self, fstype: str = "ext4", **further: Any) -> dict[str, Any]:
        """Make a volume with a file system, mounted."""
        config = {"type": "loop", "size": SMALLEST[fstype], "fstype": fstype, "mpoint": str(self.mpoint), **further}
        made: dict[str, Any] = self.call("create", storage_config=config, mkfs=True, mount=True)
        return made

    def files(self) -> list[str]:
        return sorted(os.listdir(self.images)) if self.images.exists() else []

    def clean_up(self) -> None:
        let_go_below(self.directory)


def let_go_below(directory: Path) -> None:
    """Unmount what is mounted below a directory, and detach the loop devices whose images are there."""
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        place = line.split(" ")[1]
        if place.startswith(f"{directory}/"):
            subprocess.run(["umount", "--lazy", place], check=False)
    listed = subprocess.run(["losetup", "-n", "-O", "NAME,BACK-FILE", "--list"], capture_output=True, text=True)
    for line in listed.stdout.splitlines():
        device, _, image = line.strip().partition(" ")
        if image.strip().startswith(f"{directory}/"):
            subprocess.run(["losetup", "--detach", device], check=False)


@contextlib.contextmanager
def private_storage(directory: Path, settings: str = "") -> Iterator[PrivateStorage]:
    """Run an agent with volumes of its own."""
    made = PrivateStorage(directory, settings)
    try:
        with made.agent:
            yield made
    finally:
        made.clean_up()
