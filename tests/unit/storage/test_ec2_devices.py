"""EBS volumes among block devices of all kinds: found by their identity or not at all."""

from pathlib import Path

import pytest

from scalarizr.errors import NotSupported, OutsideFailure
from scalarizr.host.paths import HostPaths
from scalarizr.storage.ec2.device_names import free_names
from scalarizr.storage.ec2.devices import Attachment, Devices

TREES = Path(__file__).parents[2] / "fixtures" / "ec2-devices"
GIGABYTE = 1 << 30
DATA, OTHER = "vol-0123456789abcdef0", "vol-0fedcba987654321f"


def devices_of(tree: str, root: Path) -> Devices:
    for line in (TREES / f"{tree}.tree").read_text().splitlines():
        kind, path, content = line.split(" ", 2)
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if kind == "link":
            place.symlink_to(content)
        else:
            place.write_text(f"{content}\n")
    (root / "sys/class").mkdir()
    (root / "sys/class/block").symlink_to("../block")
    return Devices(root / "dev/disk/by-id", HostPaths(root))


def found(tree: str, root: Path, volume: str = DATA, name: str = "/dev/sdf", size: int = 8) -> str | None:
    device = devices_of(tree, root).find(Attachment(volume, name, size * GIGABYTE))
    return None if device is None else str(device.relative_to(root))


@pytest.mark.parametrize(
    ("tree", "volume", "device"),
    [
        ("nitro-amazon-linux-2", DATA, "dev/nvme1n1"),
        ("nitro-amazon-linux-2", OTHER, "dev/nvme2n1"),
        ("nitro-amazon-linux-2", "vol-0a1b2c3d4e5f60718", "dev/nvme0n1"),
        ("nitro-debian-12", DATA, "dev/nvme1n1"),
        ("nitro-debian-12", OTHER, "dev/nvme2n1"),
        ("nitro-without-links", DATA, "dev/nvme2n1"),
        ("nitro-multipath", DATA, "dev/nvme1n1"),
    ],
)
def test_on_nitro_the_volume_id_tells(tree: str, volume: str, device: str, tmp_path: Path) -> None:
    assert found(tree, tmp_path, volume) == device


@pytest.mark.parametrize("tree", ["nitro-amazon-linux-2", "nitro-debian-12", "nitro-without-links"])
def test_a_volume_that_has_not_appeared_is_no_other_one(tree: str, tmp_path: Path) -> None:
    assert found(tree, tmp_path, "vol-0000000000000dead") is None


def test_a_link_that_is_out_of_date_is_not_followed(tmp_path: Path) -> None:
    assert found("nitro-stale-link", tmp_path) is None
    assert Devices(tmp_path / "dev/disk/by-id", HostPaths(tmp_path)).find(
        Attachment(OTHER, "/dev/sdf", 8 * GIGABYTE)
    ) == (tmp_path / "dev/nvme1n1")


def test_two_devices_with_one_identity_are_neither(tmp_path: Path) -> None:
    with pytest.raises(OutsideFailure, match=r"nvme1n1, .*nvme2n1 all claim"):
        found("nitro-two-claims", tmp_path)


def test_names_mean_nothing_where_ebs_is_nvme(tmp_path: Path) -> None:
    assert found("nitro-names-of-xen", tmp_path) is None


@pytest.mark.parametrize(
    ("tree", "name", "size", "device"),
    [
        ("xen-debian-8", "/dev/xvdf", 8, "dev/xvdf"),
        ("xen-debian-8", "/dev/sdf", 8, "dev/xvdf"),
        ("xen-debian-8", "xvdg", 100, "dev/xvdg"),
        ("xen-sd-names", "/dev/sdf", 8, "dev/xvdf"),
        ("xen-centos-6", "/dev/sdf", 8, "dev/xvdj"),
        ("xen-centos-6", "/dev/sdb", 8, "dev/xvdf"),
        ("xen-instance-store-nvme", "/dev/xvdf", 8, "dev/xvdf"),
        ("xen-without-numbers", "/dev/sdf", 8, "dev/xvdf"),
    ],
)
def test_on_xen_the_disk_that_the_attachment_names_is_it(
    tree: str, name: str, size: int, device: str, tmp_path: Path
) -> None:
    assert found(tree, tmp_path, name=name, size=size) == device


@pytest.mark.parametrize(
    ("tree", "name", "size"),
    [
        ("xen-debian-8", "/dev/sdf", 9),
        ("xen-debian-8", "/dev/sdh", 8),
        ("xen-debian-8", "/dev/sdf1", 8),
        ("xen-debian-8", "", 8),
        ("xen-debian-8", "../../etc/shadow", 8),
        ("xen-without-numbers", "/dev/sdg", 8),
    ],
)
def test_on_xen_another_size_or_name_is_another_volume(tree: str, name: str, size: int, tmp_path: Path) -> None:
    assert found(tree, tmp_path, name=name, size=size) is None


def test_a_link_that_leads_to_no_block_device_is_no_device(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / f"nvme-Amazon_Elastic_Block_Store_{DATA.replace('-', '')}").symlink_to("file")
    (tmp_path / f"nvme-Amazon_Elastic_Block_Store_{DATA.replace('-', '')}_1").symlink_to("nowhere")
    assert Devices(tmp_path, HostPaths()).find(Attachment(DATA, "/dev/sdf", 8 * GIGABYTE)) is None


def test_a_free_name_is_none_that_is_taken_under_either_spelling() -> None:
    names = free_names({"/dev/sda1", "/dev/sdf", "/dev/xvdg", "sdh"}, xen=True)
    assert names == [f"/dev/sd{letter}" for letter in "ijklmnop"]


def test_a_full_server_is_said_to_be_full() -> None:
    taken = {f"/dev/sd{letter}" for letter in "fghijklmnop"}
    with pytest.raises(NotSupported, match="/dev/sdf to /dev/sdp are all taken"):
        free_names(taken, xen=True)
    assert free_names(taken, xen=False)[0] == "/dev/sdq"
    assert len(free_names(set(), xen=False)) > 60


def test_the_names_of_disks_that_are_there_are_taken_on_xen_whatever_ec2_says(tmp_path: Path) -> None:
    assert devices_of("xen-debian-8", tmp_path).names_taken() == {"/dev/sda", "/dev/sdf", "/dev/sdg"}
