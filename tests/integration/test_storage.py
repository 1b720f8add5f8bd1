"""Volumes through the whole agent: loop files with real file systems, really mounted."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from private_storage import MIB, SMALLEST, PrivateStorage, private_storage
from scalarizr.client import Client
from waiting import wait_for

pytestmark = pytest.mark.root


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[PrivateStorage]:
    with private_storage(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def unused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateStorage]:
    """One in which nothing is ever made: for what is refused beforehand."""
    with private_storage(tmp_path_factory.mktemp("storage")) as made:
        yield made


def is_mounted(place: Path) -> bool:
    return any(line.split(" ")[1] == str(place) for line in Path("/proc/self/mounts").read_text().splitlines())


def shell(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("fstype", ["ext3", "ext4", "xfs", "btrfs"])
def test_a_volume_is_made_formatted_mounted_entered_grown_and_given_back(storage: PrivateStorage, fstype: str) -> None:
    volume = storage.call(
        "create",
        storage_config={"type": "loop", "size": SMALLEST[fstype], "fstype": fstype, "mpoint": str(storage.mpoint)},
        mkfs=True,
        mount=True,
        fstab=True,
    )
    assert shell("findmnt", "-n", "-o", "SOURCE,FSTYPE", storage.mpoint).split() == [volume["device"], fstype]
    (storage.mpoint / "kept").write_text("data")
    entry = storage.fstab.read_text().splitlines()
    assert entry[:2] == ["# somebody's own", "UUID=11-22 /somewhere vfat noauto 0 0"]
    source, place, kind, options, *_rest = entry[2].split()
    assert (source, place, kind) == (volume["file"], str(storage.mpoint), fstype)
    assert {"nofail", "loop"} <= set(options.split(","))

    before = os.statvfs(storage.mpoint).f_blocks
    grown = storage.call("grow", volume=volume, growth={"size": SMALLEST[fstype] * 2})
    assert grown["size"] == SMALLEST[fstype] * 2
    assert os.statvfs(storage.mpoint).f_blocks > before * 1.5
    assert (storage.mpoint / "kept").read_text() == "data"

    detached = storage.call("detach", volume=grown)
    assert detached["device"] is None and not is_mounted(storage.mpoint)
    assert storage.fstab.read_text() == "# somebody's own\nUUID=11-22 /somewhere vfat noauto 0 0\n"
    again = storage.call("create", storage_config=detached, mount=True)
    assert (storage.mpoint / "kept").read_text() == "data" and again["fstype"] == fstype
    assert storage.call("destroy", volume=again) is None
    assert storage.files() == [] and not is_mounted(storage.mpoint)
    assert storage.call("destroy", volume=again) is None  # gone already


def test_create_with_its_own_result_changes_nothing(storage: PrivateStorage) -> None:
    volume = storage.mounted()
    (storage.mpoint / "kept").write_text("data")
    times = [(storage.images / name).stat().st_ino for name in storage.files()]
    assert storage.call("create", volume=volume, mkfs=True, mount=True) == volume
    assert storage.call("create", storage_config=volume) == volume
    assert [(storage.images / name).stat().st_ino for name in storage.files()] == times
    assert (storage.mpoint / "kept").read_text() == "data"


def test_two_calls_make_two_volumes_and_a_token_makes_them_one(storage: PrivateStorage) -> None:
    config = {"type": "loop", "size": 0.01}
    assert storage.call("create", storage_config=config)["id"] != storage.call("create", storage_config=config)["id"]
    once = storage.call("create", storage_config={**config, "client_token": "order 17".replace(" ", "-")})
    twice = storage.call("create", storage_config={**config, "client_token": "order-17"})
    assert once == twice and len(storage.files()) == 3


def test_a_failure_half_way_leaves_nothing_behind(storage: PrivateStorage) -> None:
    shutil.copy("/bin/true", storage.directory / "file")
    refused = storage.refused(
        "create",
        # XFS is refused by mkfs, behind everything that can be checked beforehand.
        storage_config={"type": "loop", "size": 0.01, "fstype": "xfs", "mpoint": str(storage.mpoint)},
        mkfs=True,
        mount=True,
        fstab=True,
    )
    assert refused.code == -32018 and "xfs" in refused.message
    assert storage.files() == [] and not storage.mpoint.exists() and storage.call("list") == []
    assert "loop" not in storage.fstab.read_text()
    assert str(storage.images) not in shell("losetup", "--list")


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs"])
def test_a_snapshot_of_what_is_being_written_to_is_whole_and_stands_beside_its_original(
    storage: PrivateStorage, fstype: str
) -> None:
    volume = storage.mounted(fstype)
    script = (
        "import os, sys, itertools\n"
        "for n in itertools.count():\n"
        "    with open(f'{sys.argv[1]}/{n % 40}.new', 'w') as file:\n"
        "        file.write(f'{n}\\n' * 500); file.flush(); os.fsync(file.fileno())\n"
        "    os.rename(f'{sys.argv[1]}/{n % 40}.new', f'{sys.argv[1]}/{n % 40}')\n"
    )
    with subprocess.Popen(["python3", "-c", script, str(storage.mpoint)]) as writer:
        try:
            wait_for(lambda: len(list(storage.mpoint.iterdir())) > 5)
            snapshot = storage.call("snapshot", volume=volume, description="before the flood", tags={"by": "test"})
            done = sorted(path.name for path in storage.mpoint.iterdir())
            wait_for(lambda: sorted(path.name for path in storage.mpoint.iterdir()) != done)
        finally:
            writer.kill()
    assert snapshot["description"] == "before the flood" and snapshot["tags"] == {"by": "test"}
    copy_at = storage.directory / "copy"
    copied = storage.call(
        "create", storage_config={"type": "loop", "snap": snapshot, "mpoint": str(copy_at)}, mount=True
    )
    files = [path for path in copy_at.iterdir() if path.name.isdigit()]
    assert len(files) >= 5
    for file in files:
        lines = file.read_text().splitlines()
        assert len(lines) == 500 and len(set(lines)) == 1
    uuids = {shell("blkid", "-p", "-o", "value", "-s", "UUID", one["device"]) for one in (volume, copied)}
    assert len(uuids) == 2
    assert storage.call("destroy_snapshot", snapshot=snapshot) is None
    assert storage.call("destroy_snapshot", snapshot=snapshot) is None
    assert storage.refused("create", storage_config={"type": "loop", "snap": snapshot}).code == -32011


def test_a_larger_volume_from_a_snapshot_has_a_file_system_of_its_size(storage: PrivateStorage) -> None:
    snapshot = storage.call("snapshot", volume=storage.mounted())
    place = storage.directory / "larger"
    config = {"type": "loop", "snap": snapshot, "size": 0.1, "mpoint": str(place)}
    assert storage.call("create", storage_config=config, mount=True)["size"] == 0.1
    assert os.statvfs(place).f_blocks * os.statvfs(place).f_frsize > 85 * MIB
    smaller = storage.refused("create", storage_config={**config, "size": 0.01})
    assert smaller.code == -32602 and "0.05" in str(smaller.data)


def test_what_holds_anything_is_not_formatted(storage: PrivateStorage) -> None:
    image = storage.directory / "disk.img"
    image.write_bytes(bytes(8 * MIB))
    with open(image, "r+b") as file:
        file.seek(700_000)
        file.write(b"somebody's data")
    config = {"type": "loop", "file": str(image)}
    refused = storage.refused("create", storage_config=config, mkfs=True)
    assert refused.code == -32014 and "first MiB" in refused.message
    assert b"somebody's data" in image.read_bytes()
    wiped = storage.call("create", storage_config={**config, "wipe": True}, mkfs=True)
    assert wiped["fstype"] == "ext4" and "wipe" not in wiped
    # It is not ours, and stays when it is given back.
    assert storage.refused("destroy", volume=wiped, force=True).code == -32014
    storage.call("detach", volume=wiped)
    assert image.stat().st_size == 8 * MIB


def test_a_file_system_that_is_there_is_adopted(storage: PrivateStorage) -> None:
    image = storage.directory / "disk.img"
    image.write_bytes(bytes(32 * MIB))
    shell("mkfs.ext3", "-q", image)
    adopted = storage.call("create", storage_config={"type": "loop", "file": str(image), "fstype": "xfs"}, mkfs=True)
    assert adopted["fstype"] == "ext3"


def test_a_dict_made_up_by_a_caller_deletes_nothing(storage: PrivateStorage) -> None:
    precious = storage.directory / "precious"
    precious.write_text("secret")
    for made_up in (
        {"type": "loop", "file": str(precious)},
        {"type": "loop", "id": "loop-vol-0123456789ab", "file": str(precious), "device": "/dev/vda"},
    ):
        assert storage.refused("destroy", volume=made_up, force=True).code == -32602
    volume = storage.mounted()
    storage.call("destroy", volume={**volume, "file": str(precious), "mpoint": "/", "device": "/dev/vda"})
    assert precious.read_text() == "secret" and not is_mounted(storage.mpoint)
    assert storage.refused("create", storage_config={"type": "loop", "file": "/etc/shadow"}).code == -32602


def test_busy_is_refused_with_who_and_forced_on_wish(storage: PrivateStorage) -> None:
    volume = storage.mounted()
    with subprocess.Popen(["sleep", "60"], cwd=storage.mpoint) as sleeper:
        try:
            for method in ("detach", "destroy"):
                refused = storage.refused(method, volume=volume)
                assert refused.code == -32014 and f"sleep ({sleeper.pid}" in refused.message.replace("pid ", "")
            assert is_mounted(storage.mpoint)
            assert storage.call("detach", volume=volume, force=True)["device"] is None
        finally:
            sleeper.kill()
    assert not is_mounted(storage.mpoint)


def test_what_is_mounted_elsewhere_is_not_given_back(storage: PrivateStorage) -> None:
    volume = storage.mounted()
    other = storage.directory / "other"
    other.mkdir()
    shell("mount", volume["device"], other)
    refused = storage.refused("destroy", volume=volume)
    assert refused.code == -32014 and str(other) in refused.message
    shell("umount", other)
    storage.call("destroy", volume=volume)


@pytest.mark.parametrize(
    ("config", "parameter", "words"),
    [
        ({"type": "loop", "size": 0}, "size", "more than 0"),
        ({"type": "loop", "size": -1}, "size", "more than 0"),
        ({"type": "loop", "size": 1e9}, "size", "at most"),
        ({"type": "loop", "size": 500_000}, "size", "at most"),
        ({"type": "loop", "size": "75%"}, "size", "75%ROOT"),
        ({"type": "loop", "size": "101%ROOT"}, "size", "75%ROOT"),
        ({"type": "loop", "size": True}, "size", "a number"),
        ({"type": "loop"}, "size", "a size"),
        ({"type": "loop", "size": 0.01, "colour": "red"}, "colour", "mpoint"),
        ({"type": "floppy", "size": 1}, "type", "loop"),
        ({"size": 1}, "type", "loop"),
        ({"type": "loop", "size": 0.01, "fstype": "ntfs"}, "fstype", "ext4"),
        ({"type": "loop", "size": 0.01, "file": "relative"}, "file", "absolute"),
        ({"type": "loop", "size": 0.01, "file": "/etc/../etc/x"}, "file", "absolute"),
        ({"type": "loop", "size": 0.01, "mount_options": "rw;reboot"}, "mount_options", ""),
        ({"type": "base", "device": "/etc/passwd"}, "device", "block device"),
        ({"type": "base"}, "device", "block device"),
        ({"type": "base", "device": "/dev/null"}, "device", "block device"),
        ({"type": "tmpfs", "size": 1}, "mpoint", "mount point"),
        ({"type": "tmpfs", "size": 100_000, "mpoint": "/mnt/x"}, "size", "memory"),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(
    unused: PrivateStorage, config: dict[str, Any], parameter: str, words: str
) -> None:
    refused = unused.refused("create", storage_config=config)
    assert refused.code == -32602
    assert refused.data["parameter"].endswith(parameter) and words in refused.data["expected"]
    assert unused.files() == [] and unused.call("list") == []


@pytest.mark.parametrize("mpoint", ["relative", "/", "/etc", "/proc/x", "/mnt/../etc", "/usr/bin", "/mnt/a\nb"])
def test_bad_mount_points_are_refused(unused: PrivateStorage, mpoint: str) -> None:
    config = {"type": "loop", "size": 0.05, "mpoint": mpoint}
    refused = unused.refused("create", storage_config=config, mkfs=True, mount=True)
    assert refused.code == -32602 and refused.data["parameter"] == "storage_config.mpoint"
    assert unused.files() == []


def test_a_mount_point_that_holds_files_or_is_mounted_is_refused(storage: PrivateStorage) -> None:
    storage.mpoint.mkdir()
    (storage.mpoint / "file").touch()
    config = {"type": "loop", "size": 0.05, "mpoint": str(storage.mpoint)}
    assert storage.refused("create", storage_config=config, mkfs=True, mount=True).code == -32602
    (storage.mpoint / "file").unlink()
    storage.mounted()
    assert storage.refused("create", storage_config=config, mkfs=True, mount=True).code == -32602
    assert len(storage.files()) == 1


def test_a_broken_fstab_is_reported_before_anything_is_made(storage: PrivateStorage) -> None:
    storage.fstab.write_text("not a line of fstab at all\nx\n")
    config = {"type": "loop", "size": 0.05, "mpoint": str(storage.mpoint)}
    refused = storage.refused("create", storage_config=config, mkfs=True, mount=True, fstab=True)
    assert refused.code == -32014 and "fstab" in refused.message
    assert storage.files() == [] and storage.fstab.read_text() == "not a line of fstab at all\nx\n"


def test_growing_to_what_it_has_or_less_is_an_error(storage: PrivateStorage) -> None:
    volume = storage.call("create", storage_config={"type": "loop", "size": 0.05})
    for growth in ({"size": 0.05}, {"size": 0.01}, {"size": 0}, {"size": 10**6}, {}, {"iops": 3}, {"size": None}):
        assert storage.refused("grow", volume=volume, growth=growth).code == -32602
    assert (storage.images / storage.files()[0]).stat().st_size == 53_690_368


def test_memory_is_a_volume_too(storage: PrivateStorage) -> None:
    config = {"type": "tmpfs", "size": 0.02, "mpoint": str(storage.mpoint)}
    volume = storage.call("create", storage_config=config, mount=True, fstab=True)
    assert os.statvfs(storage.mpoint).f_blocks * os.statvfs(storage.mpoint).f_frsize == 5243 * 4096
    assert "tmpfs" in storage.fstab.read_text() and "size=" in storage.fstab.read_text()
    assert storage.call("create", storage_config=volume, mount=True) == volume
    storage.call("grow", volume=volume, growth={"size": 0.04})
    assert os.statvfs(storage.mpoint).f_blocks * os.statvfs(storage.mpoint).f_frsize == 10486 * 4096
    assert storage.refused("snapshot", volume=volume).code == -32013
    storage.call("destroy", volume=volume)
    assert not is_mounted(storage.mpoint) and "tmpfs" not in storage.fstab.read_text()


def test_a_device_that_is_there_is_used_and_let_go(storage: PrivateStorage) -> None:
    image = storage.directory / "disk.img"
    image.write_bytes(bytes(32 * MIB))
    device = shell("losetup", "--find", "--show", image)
    config = {"type": "base", "device": device, "mpoint": str(storage.mpoint)}
    volume = storage.call("create", storage_config=config, mkfs=True, mount=True, fstab=True)
    uuid = shell("blkid", "-p", "-o", "value", "-s", "UUID", device)
    assert f"UUID={uuid}" in storage.fstab.read_text()
    (storage.mpoint / "kept").write_text("data")
    storage.call("destroy", volume=volume)
    assert not is_mounted(storage.mpoint) and uuid not in storage.fstab.read_text()
    assert shell("blkid", "-p", "-o", "value", "-s", "UUID", device) == uuid
    storage.call("create", storage_config=config, mount=True)
    assert (storage.mpoint / "kept").read_text() == "data"


def test_the_root_disk_is_never_detached(storage: PrivateStorage) -> None:
    device = shell("findmnt", "-n", "-o", "SOURCE", "/")
    if not device.startswith("/dev/") or not os.path.exists(device):
        pytest.skip(f"LEFT OUT: / is on {device}")
    for method in ("detach", "destroy"):
        refused = storage.refused(method, volume={"type": "base", "device": device}, force=True)
        assert refused.code == -32014 and "this system" in refused.message
    assert is_mounted(Path("/"))


def test_the_list_tells_what_became_of_each(storage: PrivateStorage) -> None:
    first = storage.call("create", storage_config={"type": "loop", "size": 0.01})
    second = storage.call("create", storage_config={"type": "loop", "size": 0.01})
    snapshot = storage.call("snapshot", volume=first)
    storage.call("destroy", volume=first)
    storage.call("detach", volume=second)
    became = {listed["id"]: (listed["kind"], listed["status"]) for listed in storage.call("list")}
    assert became == {
        first["id"]: ("volume", "destroyed"),
        second["id"]: ("volume", "detached"),
        snapshot["id"]: ("snapshot", "present"),
    }


def test_a_record_outlives_the_agent(storage: PrivateStorage) -> None:
    volume = storage.mounted()
    storage.agent.kill()
    storage.agent.start()
    assert storage.call("create", storage_config=volume, mount=True) == volume
    storage.call("destroy", volume=volume)
    assert storage.files() == []


def test_workers_find_the_settings_of_an_agent_that_was_started_with_a_relative_path(storage: PrivateStorage) -> None:
    storage.agent.stop()
    storage.agent.start(etc="etc", directory=storage.directory)
    volume = storage.call("create", storage_config={"type": "loop", "size": 0.01})
    assert Path(volume["file"]).parent == storage.images
    assert [listed["id"] for listed in storage.call("list")] == [volume["id"]]


def test_as_an_operation_it_tells_its_steps(storage: PrivateStorage) -> None:
    with storage.agent.client() as client:
        operation = started(client, {"type": "loop", "size": 0.05, "mpoint": str(storage.mpoint)})
        operation.wait()
        lines = operation.record().logs
    assert [line.partition(" ")[0] for line in lines] == ["making", "attaching", "making", "mounting"]


def started(client: Client, config: dict[str, Any]) -> Any:
    return client.storage.create(storage_config=config, mkfs=True, mount=True, async_=True)
