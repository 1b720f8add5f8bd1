"""What LVM prints, and what a caller may say of a logical volume; the rest is proved in the virtual machine."""

from pathlib import Path

import pytest

from scalarizr.errors import InvalidParameter, NotSupported, OutsideFailure
from scalarizr.storage import block_copy, lvm_programs
from scalarizr.storage.context import Context
from scalarizr.storage.model import parse
from scalarizr.storage.parts import check_parts
from scalarizr.storage.volumes.lvm import LvmVolumes

RECORDED = Path(__file__).parents[2] / "fixtures" / "storage"
MIB = 1 << 20


# Reports


def test_logical_volumes_and_their_snapshots_are_read() -> None:
    origin, broken, invalid = lvm_programs.parse_logical_volumes((RECORDED / "lvs.json").read_bytes())
    assert origin.full_name == "t/o" and origin.size == 100 * MIB and origin.active and not origin.invalid
    assert origin.path == "/dev/t/o" and origin.mapper_path == "/dev/mapper/t-o" and origin.origin_uuid == ""
    assert not broken.tags and broken.used is None and broken.origin_size == 0
    assert invalid.tags == ["scalarizr.snapshot.abc", "scalarizr.x"]
    assert invalid.invalid and invalid.used == 100.0
    assert invalid.origin_uuid == origin.uuid and invalid.origin_size == 100 * MIB and invalid.size == 20 * MIB


def test_groups_and_physical_volumes_are_read() -> None:
    (group,) = lvm_programs.parse_groups((RECORDED / "vgs.json").read_bytes())
    assert (group.name, group.extent, group.extents, group.free, group.volumes) == ("t", 4 * MIB, 255, 220, 3)
    (physical,) = lvm_programs.parse_physical_volumes((RECORDED / "pvs.json").read_bytes())
    assert physical.device == "/dev/vdg" and physical.group_uuid == group.uuid and not physical.missing


@pytest.mark.parametrize("report", [b"", b"{}", b'{"report": 5}', b'  WARNING: Device missing\n{"report": []}'])
def test_a_report_that_is_none_is_an_error_and_not_an_empty_one(report: bytes) -> None:
    with pytest.raises(OutsideFailure, match="cannot be read"):
        lvm_programs.parse_logical_volumes(report)


# What a caller says


@pytest.mark.parametrize("name", ["a", "vg0", "data_1", "a.b-c+d", "A" * 60, "_x"])
def test_names_that_lvm_takes_pass(name: str) -> None:
    assert lvm_programs.check_name(name, "vg") == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "-a", "--yes", ".", "..", ".a", "a/b", "a b", "a\n", "a;b", "$(x)", "ä", "A" * 61, "@tag"),
        *("snapshot", "snapshot0", "pvmove0", "a_rimage_0", "a_tdata", "a_mlog"),
    ],
)
def test_names_that_lvm_or_a_program_could_misread_are_refused(name: str) -> None:
    with pytest.raises(InvalidParameter):
        lvm_programs.check_name(name, "vg")


@pytest.mark.parametrize(
    "identity",
    ["lv-", "lv-x", "SJq0jm-GSRf-L8KF-zoRg-j7uV-bipN-LK7Ydb", "lv-SJq0jm-GSRf-L8KF-zoRg-j7uV-bipN-LK7Yd", "a"],
)
def test_an_id_that_is_none_of_ours_is_refused_before_any_program_runs(context: Context, identity: str) -> None:
    kind = LvmVolumes(context)
    volume = parse(kind.config, {"type": "lvm", "id": identity}, "volume")
    for method in (kind.find, kind.attach):
        with pytest.raises(InvalidParameter, match="lv-"):
            method(volume)


def test_a_key_of_another_type_is_refused_and_the_known_ones_are_named(context: Context) -> None:
    with pytest.raises(InvalidParameter, match="snapshot_size"):
        parse(LvmVolumes(context).config, {"type": "lvm", "level": 1}, "volume")


def test_parts_are_checked_before_the_first_is_made(context: Context) -> None:
    with pytest.raises(InvalidParameter, match=r"disks\[1\]\.type"):
        check_parts(context, [{"type": "base", "device": "/dev/null"}, {"type": "nonsense"}], "disks")
    with pytest.raises(InvalidParameter, match=r"disks\[0\]\.type.*block device"):
        check_parts(context, [{"type": "tmpfs", "size": 1}], "disks")
    with pytest.raises(InvalidParameter, match=r"disks\[0\]\.mpoint"):
        check_parts(context, [{"type": "base", "device": "/dev/null", "mpoint": "/mnt"}], "disks")
    with pytest.raises(InvalidParameter, match=r"disks\[1\].*another volume"):
        check_parts(
            context, [{"type": "base", "device": "/dev/null"}, {"type": "base", "device": "/dev/../dev/null"}], "disks"
        )
    with pytest.raises(InvalidParameter, match=r"disks\[1\].*another volume"):
        check_parts(context, [{"type": "base", "id": "base-null"}, {"type": "base", "id": "base-null"}], "disks")


@pytest.mark.skipif(Path("/sys/class/misc/device-mapper").exists(), reason="this host has device mapper")
def test_a_host_without_device_mapper_is_told_so_before_anything_is_made(context: Context) -> None:
    kind = LvmVolumes(context)
    volume = parse(kind.config, {"type": "lvm", "pvs": ["/dev/null"], "size": 1}, "storage_config")
    with pytest.raises(NotSupported, match=r"Nothing was changed"):
        kind.check(volume, "storage_config")
    assert context.records.all() == []


# Copying


def test_a_copy_is_the_same_and_zeros_cover_what_lay_there_before(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(5 * MIB) + b"data" * 1000 + bytes(4 * MIB) + b"end")
    size = source.stat().st_size
    target.write_bytes(b"old!" * (3 * MIB))
    block_copy.copy_device(source, target, size, "copying")
    copied = target.read_bytes()
    assert copied[:size] == source.read_bytes()
    assert copied[size:] == (b"old!" * (3 * MIB))[size:], "nothing is written behind it"


@pytest.mark.parametrize("size", [MIB // 2, MIB + 10, 5 * MIB])
def test_both_ends_of_a_new_volume_are_made_zeros(tmp_path: Path, size: int) -> None:
    path = tmp_path / "volume"
    path.write_bytes(b"x" * size)
    block_copy.clear_ends(path)
    expected = bytes(min(MIB, size)) + b"x" * max(size - 2 * MIB, 0) + bytes(max(min(size - MIB, MIB), 0))
    assert path.read_bytes() == expected


def test_a_source_that_ends_too_early_is_an_error(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"x" * 1000)
    target.write_bytes(bytes(5000))
    with pytest.raises(OutsideFailure, match="1000 bytes"):
        block_copy.copy_device(source, target, 5000, "copying")
