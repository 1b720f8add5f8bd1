"""File systems on volumes in a machine of its own: grown while they are written to, and mounted again at each boot.

Containers often lack CAP_SYS_RESOURCE, without which the kernel grows ext3 and ext4 only unmounted: here root has it.
"""

from collections.abc import Iterator

import pytest

from small_vm import WEB_SERVERS, image_of_the_product, small_vm
from small_vm_agent import last_words_printed, wait_for
from small_vm_storage import DISKS, FSTAB, MIB, StorageGuest

pytestmark = [pytest.mark.long, pytest.mark.root, pytest.mark.timeout(3600)]
CAP_SYS_RESOURCE = 24  # linux/capability.h
# Writes blocks that each differ, one durable block after the other, round and round in a file that it never closes, and
# notes in another place what it wrote where; a block that it cannot read back as it was ends it with an error.
WRITER = """\
import hashlib, os, signal, sys
ended = []
signal.signal(signal.SIGTERM, lambda *_signal: ended.append(True))
size, places = 1 << 16, 128
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
sums = {}
with open(sys.argv[2], "w") as notes:
    while not ended:
        place = len(sums) % places if len(sums) < places else (place + 1) % places
        if place in sums:
            was = os.pread(file, size, place * size)
            assert hashlib.sha256(was).hexdigest() == sums[place], f"block {place} is not what was written"
        block = os.urandom(size)
        assert os.pwrite(file, block, place * size) == size
        os.fsync(file)
        sums[place] = hashlib.sha256(block).hexdigest()
        print(place, sums[place], file=notes, flush=True)
"""
SUMS = """\
import hashlib, sys
size, written = 1 << 16, {}
for line in open(sys.argv[2]):
    place, digest = line.split()
    written[int(place)] = digest
with open(sys.argv[1], "rb") as file:
    for place, digest in written.items():
        file.seek(place * size)
        assert hashlib.sha256(file.read(size)).hexdigest() == digest, place
print(len(written))
"""
NOTES = "/run/written"


class Writing:
    """A unit that writes to a file below a mount point, and holds it open."""

    def __init__(self, guest: StorageGuest, mpoint: str) -> None:
        self._guest = guest
        self._file = f"{mpoint}/written"
        guest.machine.output("tee", "/run/writer.py", text=WRITER)
        guest.machine.output(
            *("systemd-run", "--quiet", "--unit=writer", "/usr/bin/python3", "/run/writer.py", self._file, NOTES)
        )
        wait_for(lambda: guest.machine.run("test", "-s", NOTES).status == 0)

    def blocks(self) -> int:
        return int(self._guest.shell(f"wc -l < {NOTES}"))

    def go_on(self) -> None:
        """Wait until it has written what it began to write from now on."""
        before = self.blocks()
        wait_for(lambda: self.blocks() >= before + 2)

    def end(self) -> None:
        """End it; it never met an error."""
        self._guest.machine.output("systemctl", "stop", "writer")
        result = self._guest.machine.run("systemctl", "is-failed", "writer").output.strip()
        assert result == "inactive", self._guest.machine.output("journalctl", "--no-pager", "-u", "writer")

    def is_there(self) -> None:
        """See that on the disk is what was written."""
        self._guest.shell("echo 3 > /proc/sys/vm/drop_caches")
        assert int(self._guest.machine.output("/usr/bin/python3", "-c", SUMS, self._file, NOTES)) > 0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageGuest]:
    with (
        image_of_the_product(tmp_path_factory.mktemp("image")) as image,
        small_vm(image, tmp_path_factory.mktemp("machine"), [256 * MIB] * len(DISKS), without=WEB_SERVERS) as machine,
    ):
        yield StorageGuest(machine)


@pytest.fixture
def guest(shared: StorageGuest) -> Iterator[StorageGuest]:
    with last_words_printed(shared):
        yield shared


def mount_of(guest: StorageGuest, mpoint: str) -> str:
    """Give the kernel's number of a mount, which another mount in the same place would not have."""
    return guest.machine.output("findmnt", "--noheadings", "--output=ID,MAJ:MIN,TARGET", mpoint)


def capacity(guest: StorageGuest, mpoint: str) -> int:
    """Give how many MiB a file system has."""
    return int(guest.shell(f"df --output=size -B1M {mpoint} | tail -n1"))


def resized_mounted(guest: StorageGuest) -> int:
    """Count the kernel's words for an ext file system that grows mounted (linux/fs/ext4/resize.c)."""
    return int(
        guest.shell("journalctl --no-pager --output=cat -k -b | grep -c 'EXT4-fs.*resized filesystem to' || true")
    )


def test_ext_grows_mounted_while_a_program_writes_to_it(guest: StorageGuest) -> None:
    pid = guest.shows("scalarizr.service", "MainPID")
    effective = guest.shell(f"sed -n 's/^CapEff:[[:space:]]*//p' /proc/{pid}/status")
    assert int(effective, 16) >> CAP_SYS_RESOURCE & 1, "the unit takes away what growing ext mounted needs"

    disks = iter(DISKS)
    for kind in ("lvm", "loop"):
        for fstype in ("ext3", "ext4"):
            made_of = {"pvs": [next(disks), next(disks)]} if kind == "lvm" else {}
            volume = guest.create(type=kind, size=0.1, fstype=fstype, mpoint="/mnt/data", **made_of)
            before, mount = capacity(guest, "/mnt/data"), mount_of(guest, "/mnt/data")
            sum_before = guest.write("/mnt/data/a")
            writing, resized = Writing(guest, "/mnt/data"), resized_mounted(guest)
            for size in (0.15, 0.2):
                written = writing.blocks()
                grown = guest.call("storage.grow", volume=volume, growth={"size": size})
                assert writing.blocks() > written, "nothing was written while it grew"
                assert mount_of(guest, "/mnt/data") == mount, "it was mounted anew"
                now = capacity(guest, "/mnt/data")
                assert now > before + 30 and grown["size"] > volume["size"]
                before, volume = now, grown
                writing.go_on()
            writing.end()
            assert resized_mounted(guest) == resized + 2
            assert guest.read("/mnt/data/a") == sum_before
            writing.is_there()
            device = volume["device"]
            guest.shell(f"umount /mnt/data; e2fsck -fn {device}; mount {device} /mnt/data")
            assert guest.read("/mnt/data/a") == sum_before
            writing.is_there()
            guest.call("storage.destroy", volume=volume)
            guest.machine.output("rm", NOTES)
    guest.as_it_came()


def test_after_a_reboot_every_volume_is_mounted_where_fstab_says_and_known_again(guest: StorageGuest) -> None:
    volumes = {
        "base": guest.create(type="base", device=DISKS[0], fstype="ext3", mpoint="/mnt/base"),
        "loop": guest.create(type="loop", size=0.1, mpoint="/mnt/loop"),
        "lvm": guest.create(type="lvm", pvs=DISKS[1:3], size="90%VG", fstype="xfs", mpoint="/mnt/lvm"),
        "eph": guest.create(type="eph", disk=DISKS[3], mpoint="/mnt/eph"),
        "raid": guest.create(type="raid", level=1, disks=DISKS[4:6], mpoint="/mnt/raid"),
    }
    in_memory = {"type": "tmpfs", "size": 0.01, "mpoint": "/mnt/memory"}
    memory = guest.call("storage.create", storage_config=in_memory, mount=True, fstab=True)
    asleep = guest.create(type="base", device=DISKS[6], mpoint="/mnt/asleep")
    guest.call("storage.detach", volume=asleep)
    sums = {name: guest.write(f"/mnt/{name}/a") for name in volumes}
    lines = [line.split() for line in guest.shell("grep /mnt/ /etc/fstab").splitlines()]
    sources = {mpoint: source for source, mpoint, *_more in lines}
    assert set(sources) == {f"/mnt/{name}" for name in [*volumes, "memory"]}
    for name, volume in volumes.items():
        uuid = guest.machine.output("blkid", "-o", "value", "-s", "UUID", volume["device"])
        # An image is no disk to udev: it stands there by its path, and the mount makes a device of it.
        assert sources[f"/mnt/{name}"] == (volume["file"] if name == "loop" else f"UUID={uuid}")
    assert all("nofail" in options.split(",") for _source, _mpoint, _fstype, options, *_numbers in lines)

    guest.reboot()  # after which everything runs: no mount of fstab failed

    mounted = set(guest.shell("awk '$2 ~ \"^/mnt/\" {print $2}' /proc/mounts").split())
    assert mounted == {f"/mnt/{name}" for name in [*volumes, "memory"]}
    mounts = {name: mount_of(guest, f"/mnt/{name}") for name in volumes}
    for name, volume in volumes.items():
        assert guest.read(f"/mnt/{name}/a") == sums[name], name
        found = guest.create(**volume)
        # Names of devices may differ, and how far an array is synchronised.
        assert {**found, "device": None, "status": None} == {**volume, "device": None, "status": None}
        assert mount_of(guest, f"/mnt/{name}") == mounts[name], "it was mounted a second time"
    assert len(guest.shell("losetup --list --noheadings").splitlines()) == 1
    assert [line.split() for line in guest.shell("grep /mnt/ /etc/fstab").splitlines()] == lines

    for volume in (*volumes.values(), memory):
        guest.call("storage.destroy", volume=volume)
    assert guest.shell("cat /etc/fstab") == FSTAB and guest.shell("losetup --list --noheadings") == ""
    assert guest.shell("grep -c ' /mnt/' /proc/mounts || true") == "0"
    assert guest.names("vg") == [] and "md" not in guest.shell("ls /sys/block")
