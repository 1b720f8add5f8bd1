"""Block devices of a test's own: loop devices over sparse files, all taken away again with whatever stands on them."""

import os
import subprocess
import time
from pathlib import Path

MIB = 1 << 20


class BlockDevices:
    """Makes devices over files in a directory; `close` unmounts and frees them, whatever a test left.

    :param directory: of the files; empty.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: list[Path] = []

    def make(self, mib: int = 64, *options: str) -> Path:
        """Make a device of that many MiB.

        :param options: for losetup(8).
        """
        image = self._directory / f"disk-{len(self._made)}.img"
        with open(image, "wb") as file:
            file.truncate(mib * MIB)
        return self.over(image, *options)

    def over(self, image: Path, *options: str) -> Path:
        """Make a device over a file, or another device."""
        device = Path(said("losetup", "--find", "--show", *options, str(image)).strip())
        self._made.append(device)
        return device

    def image_of(self, device: Path) -> Path:
        return Path((Path("/sys/block") / device.name / "loop" / "backing_file").read_text().strip())

    def enlarge(self, device: Path, mib: int) -> None:
        os.truncate(self.image_of(device), mib * MIB)
        said("losetup", "--set-capacity", str(device))

    def free(self, device: Path) -> None:
        subprocess.run(["losetup", "--detach", device], capture_output=True)
        self._made.remove(device)

    def close(self) -> None:
        for device in reversed(self._made):
            unmount_all(device)
            subprocess.run(["losetup", "--detach", device], capture_output=True)
        self._made.clear()


def unmount_all(device: Path) -> None:
    """Unmount a device wherever it is mounted, thawed before."""
    sources = {str(device), *map(str, Path("/dev").glob(f"{device.name}p*"))}
    for _ in range(20):
        mounted = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        places = [columns[1].replace("\\040", " ") for columns in mounted if columns[0] in sources]
        if not places:
            return
        for place in reversed(places):
            subprocess.run(["fsfreeze", "--unfreeze", place], capture_output=True)
            subprocess.run(["umount", place], capture_output=True)
        time.sleep(0.05)
    for place in reversed(places):
        subprocess.run(["umount", "--lazy", place], capture_output=True)


def said(*command: str | os.PathLike[str], data: bytes | None = None) -> str:
    """Run a program that has to succeed; gives what it said."""
    finished = subprocess.run(command, input=data, capture_output=True)
    assert finished.returncode == 0, (command, finished.stdout, finished.stderr)
    return finished.stdout.decode()
