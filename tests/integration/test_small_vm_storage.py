"""LVM, MD arrays and local disks on a machine of their own: power cuts, disks that fail, workers killed at any instant.

The machine is emulated (`small_vm.py`): a call that takes 50 ms elsewhere takes seconds in it.
"""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from small_vm import WEB_SERVERS, Image, image_of_the_product, small_vm
from small_vm_agent import last_words_printed
from small_vm_storage import DISKS, MIB, StorageGuest, base

pytestmark = [pytest.mark.long, pytest.mark.root, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    with image_of_the_product(tmp_path_factory.mktemp("image")) as made:
        yield made


@pytest.fixture(scope="module")
def shared(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageGuest]:
    with small_vm(image, tmp_path_factory.mktemp("shared"), [256 * MIB] * len(DISKS), without=WEB_SERVERS) as machine:
        yield StorageGuest(machine)


@pytest.fixture
def guest(shared: StorageGuest) -> Iterator[StorageGuest]:
    """A machine with twelve blank disks of 256 MiB, which each test leaves blank."""
    with last_words_printed(shared):
        yield shared
    shared.as_it_came()


@pytest.fixture
def own_guest(image: Image, tmp_path: Path) -> Iterator[StorageGuest]:
    with small_vm(image, tmp_path, [320 * MIB] * len(DISKS), without=WEB_SERVERS) as machine:
        running = StorageGuest(machine)
        with last_words_printed(running):
            yield running


# Logical volumes


def test_a_logical_volume_is_made_snapshotted_copied_grown_and_given_back(guest: StorageGuest) -> None:
    volume = guest.create(type="lvm", pvs=DISKS[:2], size=0.125, mpoint="/mnt/data")
    assert volume["size"] == 0.125 and len(volume["pvs"]) == 2
    assert guest.call("storage.create", storage_config=volume, mkfs=True, mount=True, fstab=True) == volume
    before = guest.write("/mnt/data/a")

    # A snapshot while it is written to.
    guest.machine.output(
        "systemd-run", "--quiet", "--unit=writer", "sh", "-c",
        "i=0; while :; do i=$((i+1)); echo $i > /mnt/data/n$i; sync -f /mnt/data/n$i; done",
    )  # fmt: skip
    snapshot = guest.call("storage.snapshot", volume=volume, description="while written to")
    guest.machine.output("systemctl", "stop", "writer")
    copy = guest.call(
        "storage.create",
        storage_config={"type": "lvm", "snap": snapshot, "mpoint": "/mnt/copy"},
        mount=True,
    )
    assert copy["id"] != volume["id"] and copy["vg"] == volume["vg"]
    assert guest.read("/mnt/copy/a") == before == guest.read("/mnt/data/a")
    numbers = sorted(int(name[1:]) for name in guest.shell("cd /mnt/copy; ls").split() if name.startswith("n"))
    assert numbers[:-1] == list(range(1, len(numbers))), "what was flushed before the snapshot is in it"
    guest.machine.output("umount", "/mnt/copy")
    guest.machine.output("e2fsck", "-fn", copy["device"])
    guest.call("storage.destroy", volume=copy)

    words = guest.refusal("storage.grow", volume=volume, growth={"size": 0.3})
    assert "has snapshots" in words and "destroy_snapshot" in words
    guest.call("storage.destroy_snapshot", snapshot=snapshot)
    assert "at most" in guest.refusal("storage.grow", volume=volume, growth={"size": 5})
    assert "more than" in guest.refusal("storage.grow", volume=volume, growth={"size": 0.1})
    grown = guest.call("storage.grow", volume=volume, growth={"pvs": [DISKS[2]], "size": "80%VG"})
    assert grown["size"] > 0.55 and len(grown["pvs"]) == 3
    assert int(guest.shell("df --output=size -B1M /mnt/data | tail -n1")) > 500
    assert guest.read("/mnt/data/a") == before

    detached = guest.call("storage.detach", volume=grown)
    assert detached["device"] is None and guest.shell("lvs --noheadings -o lv_active") == ""
    guest.call("storage.create", storage_config=detached, mount=True)
    assert guest.read("/mnt/data/a") == before
    kept = guest.call("storage.snapshot", volume=grown)
    assert "would go with it" in guest.refusal("storage.destroy", volume=grown)
    guest.call("storage.destroy", volume=grown, force=True)
    guest.call("storage.destroy", volume=grown)
    assert "not on this host" in guest.refusal(
        "storage.create", storage_config={"type": "lvm", "pvs": [DISKS[0]], "snap": kept}
    )


def test_a_group_of_others_is_used_and_never_removed(guest: StorageGuest) -> None:
    guest.shell(f"vgcreate -q others {DISKS[0]}; lvcreate -qy -L 40M -n theirs others; mkfs.ext4 -q /dev/others/theirs")
    before = guest.shell("blkid -o value -s UUID /dev/others/theirs")
    try:
        theirs = guest.call("storage.create", storage_config={"type": "lvm", "vg": "others", "name": "theirs"})
        assert "was not made by this agent" in guest.refusal("storage.destroy", volume=theirs, force=True)
        volume = guest.create(type="lvm", vg="others", name="ours", size=0.05, mpoint="/mnt/data")
        words = guest.refusal("storage.grow", volume=volume, growth={"pvs": [DISKS[1]]})
        assert "was not made by this agent" in words
        words = guest.refusal(
            "storage.create", storage_config={"type": "lvm", "vg": "others", "pvs": [DISKS[1]], "size": 0.05}
        )
        assert "does not belong to it" in words
        guest.call("storage.destroy", volume=volume)
        assert guest.names("lv") == ["theirs"] and guest.names("vg") == ["others"]
        assert guest.shell("blkid -o value -s UUID /dev/others/theirs") == before
    finally:
        guest.shell("vgremove -qff -y others; pvremove -q " + DISKS[0])


@pytest.mark.parametrize("kind", ["lvm", "raid"])
def test_a_disk_that_holds_anything_is_never_taken(guest: StorageGuest, kind: str) -> None:
    more = {"pvs": DISKS[:2], "size": "50%VG"} if kind == "lvm" else {"disks": DISKS[:2], "level": 1}
    guest.shell(f"mkfs.ext4 -q {DISKS[1]}")
    uuid = guest.shell(f"blkid -o value -s UUID {DISKS[1]}")
    words = guest.refusal("storage.create", storage_config={"type": kind, **more})
    assert "ext4 file system" in words and DISKS[1] in words
    assert guest.shell(f"blkid -o value -s UUID {DISKS[1]}") == uuid
    guest.shell(f"wipefs -qa {DISKS[1]}")
    guest.blank(DISKS[1])
    guest.shell(f"echo secret | dd of={DISKS[1]} bs=1 seek=777777 conv=notrunc status=none; sync")
    words = guest.refusal("storage.create", storage_config={"type": kind, **more})
    assert "data that is not zeros in its first MiB" in words
    assert guest.shell(f"dd if={DISKS[1]} bs=1 skip=777777 count=6 status=none") == "secret"
    # A disk that was a part of a volume of ours is looked at again like any other.
    guest.blank(DISKS[1])
    volume = guest.call("storage.create", storage_config={"type": kind, **more})
    guest.call("storage.destroy", volume=volume)
    guest.shell(f"echo secret | dd of={DISKS[1]} bs=1 seek=777777 conv=notrunc status=none; sync")
    assert "not zeros" in guest.refusal("storage.create", storage_config={"type": kind, **more})


# Arrays


def test_everything_comes_back_by_uuid_after_a_power_cut_whatever_the_disks_are_called_then(
    own_guest: StorageGuest,
) -> None:
    guest = own_guest
    volumes = {
        "raid0": guest.create(type="raid", level=0, disks=DISKS[0:2], mpoint="/mnt/raid0"),
        "raid1": guest.create(type="raid", level=1, disks=DISKS[2:4], mpoint="/mnt/raid1", fstype="xfs"),
        "raid5": guest.create(type="raid", level=5, disks=DISKS[4:7], mpoint="/mnt/raid5"),
        "raid10": guest.create(type="raid", level=10, disks=DISKS[7:10], mpoint="/mnt/raid10"),
        "lvm": guest.create(type="lvm", pvs=DISKS[10:11], size="80%VG", mpoint="/mnt/lvm"),
        "eph": guest.create(type="eph", disk=DISKS[11], mpoint="/mnt/eph"),
    }
    sums = {name: guest.write(f"/mnt/{name}/a") for name in volumes}
    # The disks get other names, and one of them does not come back.
    guest.machine.cut_power()
    lost = guest.machine.disks.pop(3)
    guest.machine.disks.reverse()
    guest.machine.boot()
    guest.settle()
    try:
        # udev does not start an array that lacks a disk where the initial file system has looked at it before.
        mounted = guest.shell("awk '$2 ~ \"^/mnt/\" {print $2}' /proc/mounts").split()
        assert {f"/mnt/{name}" for name in volumes} - set(mounted) <= {"/mnt/raid1"}, "fstab mounted them"
        guest.shell("while grep -qse resync -e recover /sys/block/md*/md/sync_action; do sleep 0.5; done")
        for name, volume in volumes.items():
            found = guest.call("storage.create", storage_config=volume, mount=True)
            assert guest.read(f"/mnt/{name}/a") == sums[name], name
            assert found["id"] == volume["id"]
            if name.startswith("raid"):
                lacks = name == "raid1"
                assert (found["status"], found["failed_disks"]) == (("degraded", [1]) if lacks else ("clean", []))
        for volume in volumes.values():
            guest.call("storage.destroy", volume=volume)
        assert guest.names("lv") == [] and guest.names("vg") == [] and guest.names("pv") == []
        assert (
            guest.shell("for disk in /dev/vd[b-l]; do wipefs --noheadings $disk; done; ls /sys/block | grep md || true")
            == ""
        )
    finally:
        guest.machine.disks.append(lost)


def test_a_disk_is_replaced_with_progress_and_one_that_failed_too(guest: StorageGuest) -> None:
    volume = guest.create(type="raid", level=1, disks=DISKS[:2], mpoint="/mnt/data")
    before = guest.write("/mnt/data/a")
    guest.shell("while ! grep -q idle /sys/block/md*/md/sync_action; do sleep 0.5; done")
    guest.synchronise_at_most(10)
    operation = guest.call("storage.replace_raid_disk", volume=volume, index=1, disk=base(DISKS[2]), **{"async": True})
    steps = set()
    deadline = time.monotonic() + 600
    while (record := guest.call("operation.result", operation_id=operation))["status"] in ("new", "in-progress"):
        assert time.monotonic() < deadline
        if record["progress"]:
            steps.add(record["progress"]["step"])
    guest.synchronise_at_most(200)
    assert record["status"] == "completed", record
    assert any("copying disk 1" in step and " %, " in step and "MB/s" in step for step in steps), steps
    replaced = record["result"]
    assert [disk["device"] for disk in replaced["disks"]] == [DISKS[0], DISKS[2]] and replaced["status"] == "clean"
    assert guest.read("/mnt/data/a") == before
    guest.blank(DISKS[1])

    # A disk that fails is seen, refused for what it makes impossible, and replaced.
    guest.shell(f"mdadm --fail {replaced['device']} {DISKS[0]} 2>&1")
    seen = guest.call("storage.create", storage_config=replaced)
    assert seen["status"] == "degraded" and seen["failed_disks"] == [0]
    assert "degraded" in guest.refusal("storage.snapshot", volume=replaced)
    assert "degraded" in guest.refusal(
        "storage.grow", volume=replaced, growth={"disks_count": 3, "add_disks": [DISKS[3]]}
    )
    assert "replaced first" in guest.refusal("storage.replace_raid_disk", volume=replaced, index=1, disk=base(DISKS[3]))
    mended = guest.call("storage.replace_raid_disk", volume=replaced, index=0, disk=base(DISKS[3]))
    assert mended["status"] == "clean" and mended["failed_disks"] == []
    assert guest.read("/mnt/data/a") == before
    grown = guest.call("storage.grow", volume=mended, growth={"disks_count": 3, "add_disks": [DISKS[4]]})
    assert len(grown["disks"]) == 3 and grown["status"] == "clean"
    assert guest.read("/mnt/data/a") == before
    guest.call("storage.destroy", volume=grown)


def test_an_array_of_level_5_is_spread_over_another_disk(guest: StorageGuest) -> None:
    volume = guest.create(type="raid", level=5, disks=DISKS[:3], mpoint="/mnt/data")
    before = guest.write("/mnt/data/a", 64)
    guest.shell("while ! grep -q idle /sys/block/md*/md/sync_action; do sleep 0.5; done")
    grown = guest.call("storage.grow", volume=volume, growth={"disks_count": 4, "add_disks": [DISKS[3]]})
    assert grown["size"] > 1.4 * volume["size"] and len(grown["disks"]) == 4
    assert int(guest.shell("df --output=size -B1M /mnt/data | tail -n1")) > 600
    assert guest.read("/mnt/data/a") == before
    guest.call("storage.destroy", volume=grown)


def test_a_snapshot_of_an_array_becomes_one_beside_its_original_and_its_disks_grow(guest: StorageGuest) -> None:
    disks = [{"type": "loop", "size": 0.1} for _disk in range(2)]
    volume = guest.create(type="raid", level=1, disks=disks, mpoint="/mnt/data")
    before = guest.write("/mnt/data/a")
    guest.shell("while ! grep -q idle /sys/block/md*/md/sync_action; do sleep 0.5; done")
    snapshot = guest.call("storage.snapshot", volume=volume)
    assert len(snapshot["disks"]) == 2
    copy = guest.call(
        "storage.create", storage_config={"type": "raid", "snap": snapshot, "mpoint": "/mnt/copy"}, mount=True
    )
    assert copy["id"] != volume["id"] and copy["status"] in ("clean", "resyncing")
    assert guest.read("/mnt/copy/a") == before
    other = guest.write("/mnt/copy/a")
    assert guest.read("/mnt/data/a") == before and guest.read("/mnt/copy/a") == other
    grown = guest.call("storage.grow", volume=volume, growth={"disks": {"size": 0.15}})
    assert grown["size"] > 0.14 and guest.read("/mnt/data/a") == before
    guest.call("storage.detach", volume=copy)
    again = guest.call("storage.create", storage_config=copy, mount=True)
    assert again["id"] == copy["id"] and guest.read("/mnt/copy/a") == other
    guest.call("storage.destroy", volume=copy)
    guest.call("storage.destroy", volume=grown)
    guest.call("storage.destroy_snapshot", snapshot=snapshot)
    assert guest.shell("losetup --list --noheadings") == ""
    assert guest.shell("find /var/lib/scalarizr -name '*.img' -o -name '*.loop'") == ""


# Local disks


def test_local_disks_go_to_an_object_store_and_come_back_from_it_alone(guest: StorageGuest) -> None:
    store = "file:///var/tmp/store"
    volume = guest.create(type="eph", disks=DISKS[:2], mpoint="/mnt/data", cloudfs_dir=store)
    before = guest.write("/mnt/data/a", 32)
    snapshot = guest.call("storage.snapshot", volume=volume)
    assert snapshot["used_size"] < 0.08, "what is empty takes no room"
    assert guest.names("lv") == [volume["name"]]
    guest.call("storage.destroy", volume=volume)
    assert guest.names("vg") == []
    # Another machine knows nothing but the dict.
    guest.shell("systemctl stop scalarizr; rm -rf /var/lib/scalarizr/storage; systemctl start scalarizr")
    guest.blank(*DISKS[:2])
    copy = guest.call(
        "storage.create",
        storage_config={"type": "eph", "disks": DISKS[2:4], "snap": snapshot, "mpoint": "/mnt/copy"},
        mount=True,
    )
    assert guest.read("/mnt/copy/a") == before
    guest.call("storage.destroy", volume=copy)
    part = guest.shell("find /var/tmp/store -name 'part-*' | head -n1")
    guest.shell(f"printf x | dd of={part} bs=1 seek=5000 conv=notrunc status=none")
    words = guest.refusal(
        "storage.create", storage_config={"type": "eph", "disks": DISKS[4:6], "snap": snapshot}, mount=False
    )
    assert "is not what was kept there" in words
    assert guest.names("vg") == []
    guest.shell("rm -rf /var/tmp/store")


# Workers killed


def test_killed_at_any_instant_a_new_volume_is_whole_or_gone(guest: StorageGuest) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    wishes: list[dict[str, Any]] = [
        {"type": "lvm", "pvs": DISKS[:2], "size": "50%VG"},
        {"type": "raid", "level": 5, "disks": DISKS[:3]},
        {"type": "raid", "level": 1, "disks": [{"type": "loop", "size": 0.05}, {"type": "loop", "size": 0.05}]},
    ]
    killed = 0
    takes = dict.fromkeys(range(3), 10.0)  # seconds, until it is known better
    for turn in range(6):
        wish = {**wishes[turn % 3], "mpoint": "/mnt/data", "client_token": f"turn {seed} {turn}".replace(" ", "-")}
        call = {"storage_config": wish, "mkfs": True, "mount": True, "fstab": True}
        record = guest.killed(chance.uniform(0, takes[turn % 3]), "storage.create", **call)
        killed += record["status"] == "failed"
        if record["status"] == "failed":
            assert guest.names("lv") == [] and guest.names("vg") == [], record
            assert "md" not in guest.shell("ls /sys/block"), record
            assert "/mnt/data" not in guest.shell("cat /etc/fstab /proc/mounts"), record
        # The same call again makes it, whatever became of the first.
        begin = time.monotonic()
        volume = guest.call("storage.create", **call)
        takes[turn % 3] = time.monotonic() - begin if record["status"] == "failed" else takes[turn % 3]
        guest.write("/mnt/data/a", 1)
        guest.call("storage.destroy", volume=volume)
        guest.as_it_came()
    assert killed, "no kill came in time"


def test_killed_at_any_instant_growing_and_replacing_lose_nothing(guest: StorageGuest) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    logical = guest.create(type="lvm", pvs=DISKS[:1], size="80%VG", mpoint="/mnt/lvm")
    array = guest.create(type="raid", level=1, disks=DISKS[2:4], mpoint="/mnt/raid")
    sums = {name: guest.write(f"/mnt/{name}/a", 32) for name in ("lvm", "raid")}
    for _turn in range(3):
        record = guest.killed(chance.uniform(0, 6), "storage.grow", volume=logical, growth={"pvs": [DISKS[1]]})
        assert guest.read("/mnt/lvm/a") == sums["lvm"], record
        if len(guest.call("storage.create", storage_config=logical)["pvs"]) == 2:
            break
        assert guest.names("pv") == [DISKS[0]], record
    guest.machine.run("sh", "-c", "umount /mnt/lvm; e2fsck -fp " + logical["device"] + "; mount /mnt/lvm")

    spare, kept = [DISKS[4], DISKS[5]], [DISKS[2], DISKS[3]]
    for turn in range(3):
        guest.shell("while ! grep -q idle /sys/block/md*/md/sync_action; do sleep 0.5; done")
        guest.synchronise_at_most(10)
        record = guest.killed(
            chance.uniform(0, 20), "storage.replace_raid_disk", volume=array, index=turn % 2, disk=base(spare[0])
        )
        guest.synchronise_at_most(200)
        assert guest.read("/mnt/raid/a") == sums["raid"], record
        seen = guest.call("storage.create", storage_config=array)
        assert seen["failed_disks"] == [], (record, seen)
        members = sorted(guest.shell("ls -d /sys/block/md*/md/dev-*/block | sed 's,.*dev-,/dev/,; s,/block,,'").split())
        assert members == sorted(disk["device"] for disk in seen["disks"]) and len(members) == 2, (record, seen)
        left = [disk for disk in [*spare, *kept] if disk not in members]
        guest.blank(*left)
        spare, kept = left, members
    guest.call("storage.destroy", volume=array)
    guest.call("storage.destroy", volume=logical)
