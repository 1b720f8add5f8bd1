"""What a file system says of itself, and which of them this host can make: images in files, no device and no root."""

from pathlib import Path

import pytest

from block_devices import MIB, said
from scalarizr.errors import InvalidParameter, NotSupported, OutsideFailure
from scalarizr.storage.btrfs_identity import change_btrfs_uuid
from scalarizr.storage.filesystems import FSTYPES, grows_online, require_program
from scalarizr.storage.superblocks import btrfs_has_log, ext_features, size_in_superblock, xfs_log_is_of_another


def image(directory: Path, fstype: str, *options: str, mib: int = 400) -> Path:
    path = directory / f"{fstype}.img"
    with open(path, "wb") as file:
        file.truncate(mib * MIB)
    said(f"mkfs.{fstype}", "-q", *options, path)
    return path


def superblock(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(65536)
        return file.read(4096)


def uuid_of(path: Path) -> str:
    return said("blkid", "-p", "-s", "UUID", "-o", "value", path).strip()


@pytest.mark.parametrize("fstype", FSTYPES)
@pytest.mark.parametrize("mib", [400, 1000])
def test_the_size_is_in_the_superblock(tmp_path: Path, fstype: str, mib: int) -> None:
    assert size_in_superblock(image(tmp_path, fstype, mib=mib), fstype) == mib * MIB


@pytest.mark.parametrize("options", [("-b", "1024"), ("-O", "64bit"), ("-O", "^64bit")])
def test_the_size_of_an_ext_is_told_whatever_its_blocks(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert size_in_superblock(image(tmp_path, "ext4", *options, mib=64), "ext4") == 64 * MIB


def test_a_file_system_of_many_terabytes_has_its_size(tmp_path: Path) -> None:
    path = tmp_path / "huge.img"
    with open(path, "wb") as file:
        file.truncate(9 << 40)
    said("mkfs.xfs", "-q", path)
    # A rest that is too small for an allocation group of its own is left out.
    assert 0 <= (9 << 40) - size_in_superblock(path, "xfs") < 64 * MIB


@pytest.mark.parametrize("fstype", FSTYPES)
def test_another_type_or_none_is_told_apart(tmp_path: Path, fstype: str) -> None:
    path = image(tmp_path, "btrfs" if fstype != "btrfs" else "xfs")
    with pytest.raises(OutsideFailure, match=f"holds no {fstype}"):
        size_in_superblock(path, fstype)
    with pytest.raises(InvalidParameter):
        size_in_superblock(path, "ntfs")
    with pytest.raises(OutsideFailure, match="cannot be read"):
        size_in_superblock(tmp_path / "missing", fstype)


def test_features_of_an_ext_are_read(tmp_path: Path) -> None:
    assert ext_features(image(tmp_path, "ext4", mib=64)) == {"metadata_csum"}
    said("tune2fs", "-O", "metadata_csum_seed", tmp_path / "ext4.img")
    assert ext_features(tmp_path / "ext4.img") == {"metadata_csum", "metadata_csum_seed"}
    assert ext_features(image(tmp_path, "ext3", mib=64)) == set()


def test_new_logs_are_nobody_elses_and_empty(tmp_path: Path) -> None:
    path = image(tmp_path, "xfs")
    assert not xfs_log_is_of_another(path)
    said("xfs_db", "-x", "-f", "-c", "uuid generate", path)
    assert not xfs_log_is_of_another(path)
    assert not btrfs_has_log(image(tmp_path, "btrfs"))
    assert not xfs_log_is_of_another(tmp_path / "btrfs.img")


def test_a_btrfs_gets_a_uuid_by_one_write_that_its_programs_accept(tmp_path: Path) -> None:
    path = image(tmp_path, "btrfs")
    seen = {uuid_of(path)}
    for _ in range(3):
        change_btrfs_uuid(path)
        seen.add(uuid_of(path))
        assert "[match]" in said("btrfs", "inspect-internal", "dump-super", path)
    assert len(seen) == 4
    said("btrfs", "check", "--readonly", path)


def test_a_btrfs_whose_superblock_is_broken_is_not_made_whole(tmp_path: Path) -> None:
    path = image(tmp_path, "btrfs")
    with open(path, "r+b") as file:
        file.seek(65536 + 0x70)
        file.write(b"\xff")
    before = superblock(path)
    with pytest.raises(OutsideFailure, match=r"superblock of the btrfs on .* is broken"):
        change_btrfs_uuid(path)
    assert superblock(path) == before
    with pytest.raises(OutsideFailure, match="holds no btrfs"):
        change_btrfs_uuid(image(tmp_path, "ext4"))


def test_a_uuid_that_btrfstune_was_cut_off_at_is_left_to_it(tmp_path: Path) -> None:
    path = image(tmp_path, "btrfs")
    with open(path, "r+b") as file:
        file.seek(65536 + 0x38 + 4)
        file.write(bytes([1 << 3]))  # bit 35 of the flags: its UUID is being changed
    with pytest.raises(OutsideFailure, match="btrfstune"):
        change_btrfs_uuid(path)


def test_a_type_that_is_none_of_ours_is_refused() -> None:
    for fstype in ("vfat", "ext2", "", "ext4;reboot", "../ext4"):
        with pytest.raises(InvalidParameter):
            require_program(fstype)
        assert not grows_online(fstype)


def test_a_missing_program_is_named_with_its_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    require_program("ext4")
    monkeypatch.setenv("PATH", str(tmp_path))
    for fstype, package in (("ext3", "e2fsprogs"), ("xfs", "xfsprogs"), ("btrfs", "btrfs-progs")):
        with pytest.raises(NotSupported, match=f"no mkfs.{fstype}: install the package {package}"):
            require_program(fstype)


def test_what_only_a_capability_allows_is_not_promised_without_it() -> None:
    status = Path("/proc/self/status").read_text()
    capabilities = int(status.split("CapEff:")[1].split()[0], 16)
    assert grows_online("ext4") == grows_online("ext3") == bool(capabilities & 1 << 24)
    assert grows_online("xfs") and grows_online("btrfs")
