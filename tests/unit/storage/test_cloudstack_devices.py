"""Which device a CloudStack volume is: by its serial number, else by the number of the disk and its exact size."""

import os
import stat
from pathlib import Path

import pytest

from scalarizr.host.paths import HostPaths
from scalarizr.storage.cloudstack.devices import device_of

pytestmark = pytest.mark.root

VOLUME = "c1d2e3f4-0a1b-4c2d-8e3f-405162738495"
GIGABYTE = 1 << 30


class Tree:
    """A host's /dev and /sys, with block devices that are nobody's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.by_id = root / "dev" / "disk" / "by-id"
        self.by_id.mkdir(parents=True)
        self._number = 0

    def disk(self, name: str, size: int, serial: str = "") -> Path:
        self._number += 1
        device = self.root / "dev" / name
        # A number that the kernel gives to no driver (LANANA: 240 to 254 are for local use).
        os.mknod(device, stat.S_IFBLK | 0o600, os.makedev(253, 200 + self._number))
        directory = self.root / "sys" / "class" / "block" / name
        directory.mkdir(parents=True)
        (directory / "size").write_text(f"{size // 512}\n")
        (directory / "serial").write_text(serial)
        return device

    def find(self, position: int | None, size: int = 5 * GIGABYTE) -> str | None:
        return device_of(HostPaths(self.root), self.by_id, VOLUME, position, size)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.parametrize("link", ["virtio-c1d2e3f40a1b4c2d8e3f", "scsi-0QEMU_QEMU_HARDDISK_c1d2e3f40a1b4c2d8e3f"])
def test_the_serial_number_counts_before_any_place(tree: Tree, link: str) -> None:
    device = tree.disk("vdz", 5 * GIGABYTE, "c1d2e3f40a1b4c2d8e3f")
    tree.disk("vdb", 5 * GIGABYTE)
    (tree.by_id / link).symlink_to(device)
    assert tree.find(1) == str(device)


def test_a_link_to_what_is_no_device_any_more_is_not_believed(tree: Tree) -> None:
    (tree.by_id / "virtio-c1d2e3f40a1b4c2d8e3f").symlink_to(tree.root / "dev" / "vdc")
    assert tree.find(None) is None
    (tree.root / "dev" / "vdc").write_text("a file")
    assert tree.find(None) is None


@pytest.mark.parametrize(("name", "position"), [("xvdb", 1), ("sdd", 3), ("vdc", 2)])
def test_without_serial_numbers_the_place_and_the_size_name_the_disk(tree: Tree, name: str, position: int) -> None:
    device = tree.disk(name, 5 * GIGABYTE)
    assert tree.find(position) == str(device)
    assert tree.find(position + 1) is None


def test_a_disk_of_another_size_in_that_place_is_another_disk(tree: Tree) -> None:
    tree.disk("xvdb", 5 * GIGABYTE + 512)
    assert tree.find(1) is None


def test_a_disk_in_that_place_with_a_serial_number_of_its_own_is_another_disk(tree: Tree) -> None:
    tree.disk("vdb", 5 * GIGABYTE, "somebody-elses")
    assert tree.find(1) is None


def test_two_disks_that_fit_are_not_chosen_between(tree: Tree) -> None:
    tree.disk("vdb", 5 * GIGABYTE)
    tree.disk("sdb", 5 * GIGABYTE)
    assert tree.find(1) is None


def test_the_root_disk_and_places_beyond_the_alphabet_are_never_taken(tree: Tree) -> None:
    tree.disk("vda", 5 * GIGABYTE)
    assert tree.find(0) is None and tree.find(26) is None and tree.find(None) is None
