"""What mdadm and the kernel tell of arrays, and what a caller may say of one; a virtual machine proves the rest."""

from pathlib import Path
from typing import Any

import pytest

from scalarizr.errors import InvalidParameter, NotSupported
from scalarizr.storage import md_arrays
from scalarizr.storage.context import Context
from scalarizr.storage.md_arrays import Array, Member
from scalarizr.storage.model import parse
from scalarizr.storage.volumes.raid import RaidVolumes

RECORDED = Path(__file__).parents[2] / "fixtures" / "storage"
UUID = "26081a49:183c66c6:ab0d3b9c:03e4e0b1"


@pytest.fixture
def raid(context: Context) -> RaidVolumes:
    return RaidVolumes(context)


def tree(root: Path, **values: str) -> Path:
    """Make what the kernel showed of an array of level 1 whose first disk failed and is being rebuilt on a third."""
    md = root / "sys" / "block" / "md127" / "md"
    members = {"vdb": ("none", "faulty"), "vdc": ("1", "in_sync"), "vdd": ("0", "spare")}
    for name, (slot, state) in members.items():
        (root / "devices" / name).mkdir(parents=True)
        (md / f"dev-{name}").mkdir(parents=True)
        (md / f"dev-{name}" / "slot").write_text(f"{slot}\n")
        (md / f"dev-{name}" / "state").write_text(f"{state}\n")
        (md / f"dev-{name}" / "block").symlink_to(root / "devices" / name)
    facts = {
        "array_state": "clean", "level": "raid1", "raid_disks": "2", "degraded": "1", "sync_action": "recover",
        "component_size": "1046528", "sync_completed": "2001408 / 2093056",
    }  # fmt: skip
    for name, value in {**facts, **values}.items():
        (md / name).write_text(f"{value}\n")
    return md.parent


def test_an_array_is_read_as_the_kernel_shows_it(tmp_path: Path) -> None:
    array = md_arrays.read_array(tree(tmp_path))
    assert array is not None
    assert (array.name, array.level, array.disks, array.missing, array.action) == ("md127", 1, 2, 1, "recover")
    assert array.component == 1046528 * 1024 and array.running
    first, second = array.member_at(0), array.member_at(1)
    assert first is not None and first.device == "/dev/vdd" and not first.working
    assert second is not None and second.device == "/dev/vdc" and second.working
    failed = array.member_of("/dev/vdb")
    assert failed is not None and failed.place is None and not failed.working


def test_an_array_that_is_not_complete_does_not_run(tmp_path: Path) -> None:
    array = md_arrays.read_array(tree(tmp_path / "one", array_state="inactive", degraded=""))
    assert array is not None and not array.running and array.missing == 0
    assert md_arrays.read_array(tree(tmp_path / "other", array_state="clear")) is None


def test_while_a_disk_is_copied_the_one_that_works_is_the_array_s() -> None:
    copied = Member("/dev/sda", 0, frozenset({"in_sync", "want_replacement"}))
    copy = Member("/dev/sdc", 0, frozenset({"spare", "replacement"}))
    array = Array("md0", UUID, 1, "clean", 2, 0, "recover", 1 << 30, [copy, copied])
    assert array.member_at(0) == copied and array.member_at(1) is None


def test_what_mdadm_exports_is_read() -> None:
    detail = md_arrays.parse_exported((RECORDED / "mdadm-detail-export.txt").read_text())
    examined = md_arrays.parse_exported((RECORDED / "mdadm-examine-export.txt").read_text())
    assert detail["MD_UUID"] == examined["MD_UUID"] == UUID and examined["MD_DEVICES"] == "2"
    assert md_arrays.is_uuid(UUID)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2001408 / 2093056", (2001408 * 512, 2093056 * 512)),
        ("none", (0, 0)),
        ("", (0, 0)),
        ("delayed", (0, 0)),
        ("1 / x", (0, 0)),
    ],
)
def test_how_far_a_synchronisation_is(text: str, expected: tuple[int, int]) -> None:
    assert md_arrays.parse_completed(text) == expected


def test_the_uuid_of_an_array_follows_from_its_key_alone() -> None:
    assert md_arrays.uuid_of_key("a") == md_arrays.uuid_of_key("a") != md_arrays.uuid_of_key("b")
    assert md_arrays.is_uuid(md_arrays.uuid_of_key("a"))


@pytest.mark.parametrize(
    "identity", ["md-uuid-", "md-uuid-x", UUID, f"md-uuid-{UUID}:0", f"md-uuid-{UUID[:-1]}", "md-uuid-" + "0" * 32]
)
def test_an_id_that_is_none_of_ours_is_refused(raid: RaidVolumes, identity: str) -> None:
    volume = parse(raid.config, {"type": "raid", "id": identity}, "volume")
    with pytest.raises(InvalidParameter, match="md-uuid-"):
        raid.find(volume)


@pytest.mark.parametrize(
    ("volume", "where"),
    [
        ({"disks": ["/dev/vdb", "/dev/vdc"]}, "level"),
        ({"level": 6, "disks": ["/dev/vdb"] * 4}, "level"),
        ({"level": -1, "disks": ["/dev/vdb"] * 4}, "level"),
        ({"level": 1}, "disks"),
        ({"level": 1, "disks": ["/dev/vdb"]}, "disks"),
        ({"level": 5, "disks": ["/dev/vdb", "/dev/vdc"]}, "disks"),
        ({"level": 1, "disks": ["/dev/vdb", "/dev/vdc"], "size": 1}, "size"),
        ({"level": 1, "disks": ["/dev/vdb", 7]}, r"disks\[1\]"),
        ({"level": 1, "disks": [{"type": "base", "device": f"/dev/d{n}"} for n in range(65)]}, "disks"),
    ],
)
def test_an_array_that_cannot_be_is_refused(raid: RaidVolumes, volume: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidParameter, match=rf"storage_config\.{where}"):
        raid.check(parse(raid.config, {"type": "raid", **volume}, "storage_config"), "storage_config")


SNAPSHOT = {
    "type": "raid",
    "id": "raid-snap-1",
    "level": 1,
    "array": UUID,
    "disks": [{"type": "loop"}, {"type": "loop"}],
}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"type": "lvm"}, "type"),
        ({"level": True}, "level"),
        ({"level": "1"}, "level"),
        ({"level": [1]}, "level"),
        ({"array": "x"}, "array"),
        ({"array": None}, "array"),
        ({"disks": "ab"}, "disks"),
        ({"disks": [1, 2]}, "disks"),
    ],
)
def test_a_snapshot_s_dict_that_cannot_be_is_refused(raid: RaidVolumes, change: dict[str, Any], where: str) -> None:
    snap = {**SNAPSHOT, **change}
    with pytest.raises(InvalidParameter, match=rf"storage_config\.snap\.{where}"):
        raid.check(parse(raid.config, {"type": "raid", "snap": snap}, "storage_config"), "storage_config")


def test_an_array_made_from_a_snapshot_has_its_level_and_as_many_disks(raid: RaidVolumes) -> None:
    for wish, where in (({"level": 5}, "level"), ({"disks": ["/dev/vdb"] * 3}, "disks")):
        with pytest.raises(InvalidParameter, match=where):
            raid.check(parse(raid.config, {"type": "raid", "snap": SNAPSHOT, **wish}, "volume"), "volume")


@pytest.mark.parametrize(
    ("growth", "where"),
    [
        ({}, "growth"),
        ({"size": 5}, "growth.size"),
        ({"disks": 5}, "growth.disks"),
        ({"disks_count": 1}, "growth.disks_count"),
        ({"disks_count": 2}, "growth.disks_count"),
        ({"disks_count": True}, "growth.disks_count"),
        ({"disks_count": 1000}, "growth.disks_count"),
        ({"disks_count": 3}, "growth.add_disks"),
        ({"disks_count": 4, "add_disks": ["/dev/vdd"]}, "growth.add_disks"),
        ({"disks_count": 3, "add_disks": "/dev/vdd"}, "growth.add_disks"),
    ],
)
def test_a_growth_that_cannot_be_is_refused(raid: RaidVolumes, growth: dict[str, Any], where: str) -> None:
    disks = [{"type": "base", "id": "base-vdb", "device": "/dev/vdb"}, {"type": "base", "id": "base-vdc"}]
    volume = parse(raid.config, {"type": "raid", "id": f"md-uuid-{UUID}", "level": 1, "disks": disks}, "volume")
    with pytest.raises(InvalidParameter) as refused:
        raid.check_growth(volume, growth)
    assert refused.value.facts["parameter"] == where


def test_level_0_neither_grows_nor_has_a_disk_replaced(raid: RaidVolumes) -> None:
    disks = [{"type": "base", "id": "base-vdb"}, {"type": "base", "id": "base-vdc"}]
    volume = parse(raid.config, {"type": "raid", "id": f"md-uuid-{UUID}", "level": 0, "disks": disks}, "volume")
    with pytest.raises(NotSupported, match="Nothing was changed"):
        raid.check_growth(volume, {"disks_count": 3, "add_disks": ["/dev/vdd"]})
    with pytest.raises(NotSupported, match="Nothing was changed"):
        raid.replace_disk(volume, 0, {"type": "base", "device": "/dev/vdd"})


@pytest.mark.skipif(Path("/proc/mdstat").exists(), reason="this host's kernel has MD")
def test_a_host_without_md_is_told_so_before_anything_is_made(raid: RaidVolumes) -> None:
    volume = parse(raid.config, {"type": "raid", "level": 1, "disks": ["/dev/vdb", "/dev/vdc"]}, "storage_config")
    with pytest.raises(NotSupported, match="Nothing was changed"):
        raid.check(volume, "storage_config")
