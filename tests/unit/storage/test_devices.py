"""What is found on a device, who uses it, and whether the system rests on it: real loop devices, and recorded trees."""

import os
import signal
import struct
import subprocess
import uuid
import zlib
from pathlib import Path

import pytest

from block_devices import MIB, BlockDevices, said
from scalarizr.errors import InvalidParameter, NotSupported, OutsideFailure, Refused
from scalarizr.host.paths import HostPaths
from scalarizr.storage.devices import (
    contents,
    device_size,
    holders,
    is_system_disk,
    require_block_device,
    uses,
    wipe,
)

HOST = HostPaths()
pytestmark = pytest.mark.root


def write(device: Path, offset: int, data: bytes) -> None:
    with open(device, "r+b", buffering=0) as file:
        file.seek(offset)
        file.write(data)


def mbr(first: int, sectors: int) -> bytes:
    """Make a partition table with one Linux partition."""
    entry = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0x83, b"\0\2\0", first, sectors)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def gpt(sectors: int) -> tuple[bytes, bytes]:
    """Make a GUID partition table without partitions: what is at a disk's beginning, and its copy for the end."""
    entries = bytes(128 * 128)

    def header(own: int, other: int, at: int) -> bytes:
        fields = (own, other, 34, sectors - 34, uuid.uuid4().bytes_le, at, 128, 128, zlib.crc32(entries))
        plain = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, *fields)
        return plain[:16] + struct.pack("<I", zlib.crc32(plain)) + plain[20:] + bytes(512 - 92)

    protective = bytes(446) + struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff" * 3, 1, sectors - 1)
    first = protective + bytes(48) + b"\x55\xaa" + header(1, sectors - 1, 2) + entries
    return first, entries + header(sectors - 1, 1, sectors - 33)


def test_a_device_of_zeros_is_empty(disks: BlockDevices) -> None:
    device = disks.make()
    assert contents(device).empty and device_size(device) == 64 * MIB
    assert uses(HOST, device) == []


@pytest.mark.parametrize("where", [0, 512, MIB - 1])
def test_one_byte_in_the_first_mib_is_found(disks: BlockDevices, where: int) -> None:
    device = disks.make()
    write(device, where, b"\1")
    assert contents(device).found == ["data that is not zeros in its first MiB"]


@pytest.mark.parametrize("where", [63 * MIB, 64 * MIB - 1])
def test_one_byte_in_the_last_mib_is_found(disks: BlockDevices, where: int) -> None:
    device = disks.make()
    write(device, where, b"\1")
    assert contents(device).found == ["data that is not zeros in its last MiB"]


def test_data_in_between_is_not_looked_for(disks: BlockDevices) -> None:
    device = disks.make()
    write(device, 32 * MIB, b"data")
    assert contents(device).empty


def test_a_device_smaller_than_both_ends_is_read_whole(disks: BlockDevices) -> None:
    device = disks.make(1)
    write(device, MIB - 1, b"\1")
    assert contents(device).found == ["data that is not zeros in its first MiB"]


@pytest.mark.parametrize("fstype", ["ext3", "ext4", "xfs", "btrfs"])
def test_a_file_system_is_named_and_can_be_adopted(disks: BlockDevices, fstype: str) -> None:
    device = disks.make(512)
    said(f"mkfs.{fstype}", "-q", device)
    found = contents(device)
    assert found.fstype == fstype
    assert found.uuid == said("blkid", "-p", "-s", "UUID", "-o", "value", device).strip()
    assert found.found == [f"{'a' if fstype == 'btrfs' else 'an'} {fstype} file system (UUID {found.uuid})"]


def test_what_was_written_past_the_kernels_buffers_is_seen(disks: BlockDevices) -> None:
    device = disks.make()
    assert contents(device).empty
    write(disks.image_of(device), 4096, b"written by the machine that hosts the disk")
    assert not contents(device).empty


def test_swap_and_partition_tables_are_named(disks: BlockDevices) -> None:
    swap, table, guids = disks.make(), disks.make(), disks.make()
    said("mkswap", swap)
    write(table, 0, mbr(2048, 4096))
    first, last = gpt(64 * MIB // 512)
    write(guids, 0, first)
    write(guids, 64 * MIB - len(last), last)
    assert contents(swap).found[0].startswith("swap space (UUID ") and contents(swap).fstype is None
    assert contents(table).found == ["a partition table (dos)"]
    assert "a partition table (gpt)" in contents(guids).found


def test_a_member_of_an_array_and_a_physical_volume_are_named(disks: BlockDevices) -> None:
    member, volume = disks.make(), disks.make()
    # Superblock 1.2 (md_p.h): magic, version 1, its own offset in sectors.
    block = bytearray(256)
    struct.pack_into("<II", block, 0, 0xA92B4EFC, 1)
    struct.pack_into("<Q", block, 144, 8)
    total = sum(struct.unpack("<64I", block))
    struct.pack_into("<I", block, 216, ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF)
    write(member, 4096, bytes(block))
    assert contents(member).found[0].startswith("a member of a RAID array"), contents(member)
    assert contents(member).fstype is None
    # LVM2's label in sector 1: libblkid checks its CRC, too.
    label = bytearray(512)
    struct.pack_into("<8sQII8s32s", label, 0, b"LABELONE", 1, 0, 32, b"LVM2 001", b"a" * 32)
    struct.pack_into("<I", label, 16, lvm_checksum(bytes(label[20:])))
    write(volume, 512, bytes(label))
    assert contents(volume).found[0].startswith("an LVM physical volume"), contents(volume)


def lvm_checksum(data: bytes) -> int:
    return zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def test_several_signatures_are_all_named_and_nothing_is_adopted(disks: BlockDevices) -> None:
    device = disks.make(512)
    said("mkfs.ext4", "-q", device)
    swap = bytearray(4096)
    swap[4086:] = b"SWAPSPACE2"
    struct.pack_into("<III", swap, 1024, 1, 1000, 0)
    write(device, 0, bytes(swap[:1024]))
    write(device, 3 * 1024 + 512, bytes(swap[3 * 1024 + 512 :]))
    write(device, 65536 + 64, b"_BHRfS_M")
    found = contents(device)
    assert found.fstype is None and len(found.found) >= 2, found
    assert any("ext4" in words for words in found.found)


def test_a_partition_table_beside_a_file_system_is_named_too(disks: BlockDevices) -> None:
    device = disks.make(512)
    said("mkfs.ext4", "-q", device)
    write(device, 446, mbr(2048, 4096)[446:])
    found = contents(device)
    assert found.fstype is None
    assert any("ext4" in words for words in found.found) and any("partition table" in words for words in found.found)


def test_a_device_without_a_medium_is_refused_not_taken_for_empty(disks: BlockDevices, tmp_path: Path) -> None:
    device = disks.make()
    subprocess.run(["losetup", "--detach", device], check=True)
    with pytest.raises((NotSupported, OutsideFailure)):
        contents(device)


def test_what_is_no_block_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in (tmp_path, tmp_path / "file", Path("/dev/null"), tmp_path / "missing", Path("dev/sda")):
        with pytest.raises(InvalidParameter) as refusal:
            require_block_device(name)
        assert refusal.value.facts["parameter"] == "device"


def test_a_link_to_a_device_is_resolved(disks: BlockDevices, tmp_path: Path) -> None:
    device = disks.make()
    (tmp_path / "by-id").symlink_to(device)
    assert require_block_device(tmp_path / "by-id") == device


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs"])
def test_a_mounted_device_is_in_use_under_any_name(disks: BlockDevices, tmp_path: Path, fstype: str) -> None:
    device = disks.make(512)
    said(f"mkfs.{fstype}", "-q", device)
    other = tmp_path / "another name"
    os.mknod(other, 0o600 | 0o060000, os.stat(device).st_rdev)
    (tmp_path / "mounted here").mkdir()
    said("mount", other, tmp_path / "mounted here")
    try:
        assert uses(HOST, device) == [f"mounted at {tmp_path}/mounted here"]
        assert holders(HOST, device) == []
        with pytest.raises(Refused, match="mounted at"):
            wipe(HOST, device)
        assert contents(device).fstype == fstype
    finally:
        said("umount", tmp_path / "mounted here")
    assert uses(HOST, device) == []


def test_a_device_mounted_in_another_mount_namespace_is_in_use(
    disks: BlockDevices, tmp_path: Path, impatient: None
) -> None:
    device = disks.make()
    said("mkfs.ext4", "-q", device)
    script = f"mount {device} {tmp_path} && echo mounted && exec sleep 60"
    process = subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "mounted\n"
        assert uses(HOST, device) == [
            f"mounted at {tmp_path} in another mount namespace, that of process {process.pid}"
        ]
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def test_a_device_that_a_program_holds_for_itself_is_in_use(disks: BlockDevices, impatient: None) -> None:
    device = disks.make()
    descriptor = os.open(device, os.O_RDONLY | os.O_EXCL)
    try:
        assert uses(HOST, device) == ["held by the kernel or another program, which refused its exclusive use"]
    finally:
        os.close(descriptor)


def test_a_device_that_a_program_writes_to_is_in_use(disks: BlockDevices) -> None:
    device = disks.make()
    script = f"exec 3<>{device}; echo there; exec sleep 60"
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "there\n"
        assert uses(HOST, device) == [f"written to by sleep ({process.pid})"]
        with pytest.raises(Refused, match="written to by sleep"):
            wipe(HOST, device)
    finally:
        process.kill()
        process.communicate()
    with open(device, "rb"):
        assert uses(HOST, device) == []  # who only reads, holds nothing


def test_a_device_under_a_loop_device_is_in_use(disks: BlockDevices) -> None:
    device = disks.make()
    over = disks.over(device)
    assert uses(HOST, device) == [f"shown by {over.name}"]


def test_swap_is_a_use(disks: BlockDevices) -> None:
    device = disks.make()
    said("mkswap", device)
    if subprocess.run(["swapon", device], capture_output=True).returncode != 0:
        pytest.skip("LEFT OUT: this kernel or container does not swap")
    try:
        assert uses(HOST, device) == ["used as swap"]
        assert is_system_disk(HOST, device, Path("/var/lib/scalarizr"))
    finally:
        said("swapoff", device)


def test_a_partitions_use_is_its_disks_use(disks: BlockDevices, tmp_path: Path) -> None:
    device = disks.make(64, "--partscan")
    write(device, 0, mbr(2048, 65536))
    # Told to the kernel as partition programs tell it: not every kernel reads every table by itself.
    said("addpart", device, "1", "2048", "65536")
    partition = Path(f"{device}p1")
    assert contents(device).found == ["a partition table (dos)"]
    assert contents(partition).empty and device_size(partition) == 65536 * 512
    said("mkfs.ext4", "-q", partition)
    (tmp_path / "m").mkdir()
    said("mount", partition, tmp_path / "m")
    try:
        assert uses(HOST, device) == [f"its partition {partition.name} is mounted at {tmp_path}/m"]
        assert is_system_disk(HOST, device, tmp_path / "m" / "state")
        assert is_system_disk(HOST, partition, tmp_path / "m" / "state")
        assert not is_system_disk(HOST, device, Path("/var/lib/scalarizr"))
    finally:
        said("umount", tmp_path / "m")


def test_wiping_leaves_nothing_to_be_found(disks: BlockDevices) -> None:
    device = disks.make(512)
    for fstype in ("ext4", "xfs", "btrfs"):
        said(f"mkfs.{fstype}", "-q", device)
        wipe(HOST, device)
        assert contents(device).empty
    write(device, 512 * MIB - 1, b"\1")
    wipe(HOST, device)
    assert contents(device).empty
    first, last = gpt(512 * MIB // 512)
    write(device, 0, first)
    write(device, 512 * MIB - len(last), last)
    wipe(HOST, device)
    assert contents(device).empty


def test_the_disk_of_this_very_root_is_the_systems(disks: BlockDevices) -> None:
    root = os.stat("/").st_dev
    link = Path("/sys/dev/block") / f"{os.major(root)}:{os.minor(root)}"
    if not link.exists():
        pytest.skip("LEFT OUT: this root lies on no block device")
    assert is_system_disk(HOST, Path("/dev") / link.resolve().name, Path("/var/lib/scalarizr"))
    # An image that lies on the root is no part of what the root lies on.
    assert not is_system_disk(HOST, disks.make(), Path("/var/lib/scalarizr"))


class Tree:
    """A made-up host: its mounts, and block devices that are real nodes of numbers that no driver has."""

    MAJOR = 240  # for local and experimental use (devices.txt)

    def __init__(self, root: Path) -> None:
        self.host = HostPaths(root)
        self._root = root
        self._minor = 0
        self._mounts: list[str] = []
        for directory in ("proc/self", "sys/dev/block", "sys/devices", "dev"):
            (root / directory).mkdir(parents=True)
        self.swaps([])
        self.mount("/", "0:1", "rootfs", "rootfs")

    def device(self, name: str, disk: Path | None = None, built_of: tuple[Path, ...] = ()) -> Path:
        self._minor += 1
        number = f"{self.MAJOR}:{self._minor}"
        parent = self._root / "sys/devices" if disk is None else self._root / "sys/devices" / disk.name
        directory = parent / name
        (directory / "slaves").mkdir(parents=True)
        (directory / "holders").mkdir()
        (directory / "dev").write_text(f"{number}\n")
        if disk is not None:
            (directory / "partition").write_text("1\n")
        (self._root / "sys/dev/block" / number).symlink_to(directory)
        for lower in built_of:
            below = (self._root / "sys/dev/block" / self.number(lower)).resolve()
            (directory / "slaves" / lower.name).symlink_to(below)
            (below / "holders" / name).symlink_to(directory)
        node = self._root / "dev" / name
        os.mknod(node, 0o600 | 0o060000, os.makedev(self.MAJOR, self._minor))
        return node

    def number(self, node: Path) -> str:
        return f"{self.MAJOR}:{os.minor(os.stat(node).st_rdev)}"

    def mount(self, mpoint: str, number: str, fstype: str, source: str, options: str = "rw") -> None:
        self._mounts.append(f"{len(self._mounts) + 20} 1 {number} / {mpoint} rw - {fstype} {source} {options}\n")
        (self._root / "proc/self/mountinfo").write_text("".join(self._mounts))

    def swaps(self, names: list[str]) -> None:
        lines = [f"{name} partition 1024 0 -2\n" for name in names]
        (self._root / "proc/swaps").write_text("Filename Type Size Used Priority\n" + "".join(lines))

    def is_system(self, node: Path) -> bool:
        return is_system_disk(self.host, node, Path("/var/lib/scalarizr"))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalarizr.storage.devices._PATIENCE", 0.1)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_a_root_shown_as_dev_root_is_found_by_its_number(tree: Tree) -> None:
    disk, other = tree.device("sda"), tree.device("sdb")
    part, spare = tree.device("sda1", disk), tree.device("sda2", disk)
    tree.mount("/", tree.number(part), "ext4", "/dev/root")
    assert tree.is_system(disk) and tree.is_system(part) and tree.is_system(spare)
    assert not tree.is_system(other)


@pytest.mark.parametrize("mpoint", ["/boot", "/usr", "/var", "/etc", "/var/lib/scalarizr"])
def test_what_carries_a_part_of_the_system_is_the_systems(tree: Tree, mpoint: str) -> None:
    disk, data = tree.device("nvme0n1"), tree.device("nvme1n1")
    tree.mount(mpoint, tree.number(tree.device("nvme0n1p1", disk)), "xfs", "/dev/nvme0n1p1")
    tree.mount("/srv", tree.number(data), "xfs", "/dev/nvme1n1")
    assert tree.is_system(disk) and not tree.is_system(data)


def test_the_disks_below_a_root_on_arrays_and_logical_volumes_are_the_systems(tree: Tree) -> None:
    one, two, other = tree.device("sda"), tree.device("sdb"), tree.device("sdc")
    array = tree.device("md0", built_of=(tree.device("sda1", one), tree.device("sdb1", two)))
    root = tree.device("dm-0", built_of=(array,))
    data = tree.device("dm-1", built_of=(array,))
    tree.mount("/", tree.number(root), "ext4", "/dev/mapper/vg-root")
    for node in (one, two, array, root):
        assert tree.is_system(node)
    # Beside the root's, on the same disks: to empty it hurts nobody but itself.
    assert not tree.is_system(data) and not tree.is_system(other)
    assert holders(tree.host, array) == ["held by dm-0", "held by dm-1"]


def test_the_layers_of_an_overlay_are_followed(tree: Tree) -> None:
    lower, upper, other = tree.device("sda"), tree.device("sdb"), tree.device("sdc")
    tree.mount("/media/root-ro", tree.number(lower), "ext4", "/dev/sda")
    tree.mount("/media/root-rw", tree.number(upper), "ext4", "/dev/sdb")
    layers = "rw,lowerdir=/media/root-ro,upperdir=/media/root-rw/overlay,workdir=/media/root-rw/work"
    tree.mount("/", "0:40", "overlay", "overlayroot", layers)
    assert tree.is_system(lower) and tree.is_system(upper) and not tree.is_system(other)


def test_all_devices_of_a_btrfs_root_are_the_systems(tree: Tree, tmp_path: Path) -> None:
    one, two, other = tree.device("sda"), tree.device("sdb"), tree.device("sdc")
    devices = tmp_path / "sys/fs/btrfs" / str(uuid.uuid4()) / "devices"
    devices.mkdir(parents=True)
    for node in (one, two):
        (devices / node.name).symlink_to(tmp_path / "sys/devices" / node.name)
    tree.mount("/", "0:33", "btrfs", "/dev/sda")
    assert tree.is_system(one) and tree.is_system(two) and not tree.is_system(other)


def test_a_btrfs_root_of_an_unknown_name_makes_every_btrfs_the_systems(tree: Tree, tmp_path: Path) -> None:
    one, other = tree.device("sda"), tree.device("sdc")
    devices = tmp_path / "sys/fs/btrfs" / str(uuid.uuid4()) / "devices"
    devices.mkdir(parents=True)
    (devices / "sda").symlink_to(tmp_path / "sys/devices/sda")
    tree.mount("/", "0:33", "btrfs", "/dev/root")
    assert tree.is_system(one) and not tree.is_system(other)


def test_swap_partitions_and_swap_files_make_a_disk_the_systems(tree: Tree) -> None:
    one, two, other = tree.device("sda"), tree.device("sdb"), tree.device("sdc")
    tree.device("sda1", one)
    tree.mount("/srv", tree.number(two), "ext4", "/dev/sdb")
    tree.swaps(["/dev/sda1", "/srv/swap\\040file"])
    assert tree.is_system(one) and tree.is_system(two) and not tree.is_system(other)


def test_an_image_that_the_root_lies_on_makes_its_disk_the_systems(tree: Tree, tmp_path: Path) -> None:
    disk, loop = tree.device("sda"), tree.device("loop0")
    (tmp_path / "sys/devices/loop0/loop").mkdir()
    (tmp_path / "sys/devices/loop0/loop/backing_file").write_text("/run/live/medium/root.img\n")
    tree.mount("/run/live/medium", tree.number(disk), "ext4", "/dev/sda")
    tree.mount("/", tree.number(loop), "ext4", "/dev/loop0")
    assert tree.is_system(disk) and tree.is_system(loop)
