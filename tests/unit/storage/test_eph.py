"""A device's content in an object store and back: every part by its checksum, and nothing of what does not fit it."""

import hashlib
import os
import random
from pathlib import Path

import msgspec
import pytest

from scalarizr.errors import InvalidParameter, NotFound, OutsideFailure
from scalarizr.objectstore.files import FileStore
from scalarizr.storage import volume_image
from scalarizr.storage.context import Context
from scalarizr.storage.model import parse
from scalarizr.storage.volumes.eph import EphemeralVolumes

MIB = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store")


@pytest.fixture(autouse=True)
def small_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume_image, "SPAN", 8 * MIB)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A volume of 37.5 MiB: data, zeros before data in one span, a span of zeros, and an end that fills no span."""
    chance = random.Random(7)
    path = tmp_path / "source"
    with open(path, "wb") as file:
        file.truncate(37 * MIB + 512 * 1024)
        for place, size in ((0, 3 * MIB), (15 * MIB + 1000, 5000), (24 * MIB, 4096), (37 * MIB, 512 * 1024)):
            file.seek(place)
            file.write(chance.randbytes(size))
    return path


def blank(path: Path, size: int) -> Path:
    """Make what a new volume may be made in: old data of others all over it."""
    path.write_bytes(b"old" * (size // 3) + b"o" * (size % 3))
    return path


def digest(path: Path, size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read(size)).hexdigest()


def kept(store: FileStore, source: Path) -> volume_image.Kept:
    return volume_image.keep(store, "volumes/a", source, source.stat().st_size, "keeping")


def restore(store: FileStore, sha256: str, target: Path) -> None:
    manifest = volume_image.read_manifest(store, "volumes/a", sha256)
    volume_image.restore(store, "volumes/a", manifest, target, "restoring")


def test_what_was_kept_comes_back_whatever_lay_there_before(store: FileStore, source: Path, tmp_path: Path) -> None:
    size = source.stat().st_size
    image = kept(store, source)
    names = [entry.path for entry in store.list("volumes/a")]
    assert names == [
        "volumes/a/manifest.json",
        *(f"volumes/a/part-{index:06}.zst" for index in (0, 1, 3, 4)),
    ], "a span of nothing but zeros has no part"
    assert image.size < 4 * MIB
    target = blank(tmp_path / "target", size + 6 * MIB)
    restore(store, image.manifest_sha256, target)
    assert digest(target, size) == digest(source, size)
    with open(target, "rb") as file:
        file.seek(size)
        assert file.read(MIB) == bytes(MIB), "nothing is found behind it that is not its own"
        file.seek(-MIB, os.SEEK_END)
        assert file.read() == bytes(MIB)


@pytest.mark.parametrize("where", ["beginning", "middle", "end"])
def test_a_part_with_one_other_bit_is_refused(store: FileStore, source: Path, tmp_path: Path, where: str) -> None:
    image = kept(store, source)
    path = tmp_path / "store" / "volumes" / "a" / "part-000000.zst"
    data = bytearray(path.read_bytes())
    data[{"beginning": 8, "middle": len(data) // 2, "end": len(data) - 5}[where]] ^= 1
    path.write_bytes(data)
    with pytest.raises(OutsideFailure, match=r"part-000000\.zst is not what was kept there"):
        restore(store, image.manifest_sha256, blank(tmp_path / "target", source.stat().st_size))


def test_a_part_that_is_cut_short_or_missing_is_refused(store: FileStore, source: Path, tmp_path: Path) -> None:
    image = kept(store, source)
    target = blank(tmp_path / "target", source.stat().st_size)
    path = tmp_path / "store" / "volumes" / "a" / "part-000000.zst"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(OutsideFailure, match="is not what was kept there"):
        restore(store, image.manifest_sha256, target)
    path.unlink()
    with pytest.raises(OutsideFailure, match=r"part-000000\.zst is missing"):
        restore(store, image.manifest_sha256, target)


def test_a_part_that_unpacks_to_more_than_its_span_is_stopped(store: FileStore, source: Path, tmp_path: Path) -> None:
    import zstandard

    image = kept(store, source)
    path = tmp_path / "store" / "volumes" / "a" / "part-000001.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(bytes(64 * MIB)))
    target = blank(tmp_path / "target", source.stat().st_size)
    with pytest.raises(OutsideFailure, match="more than its span"):
        restore(store, image.manifest_sha256, target)
    assert target.stat().st_size == source.stat().st_size


def test_another_manifest_than_the_snapshot_s_is_not_believed(store: FileStore, source: Path, tmp_path: Path) -> None:
    image = kept(store, source)
    path = tmp_path / "store" / "volumes" / "a" / "manifest.json"
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(OutsideFailure, match="its SHA-256 differs"):
        volume_image.read_manifest(store, "volumes/a", image.manifest_sha256)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"span": 0},
        {"span": 1},
        {"size": -1},
        {"parts": [{"index": 0, "name": "../../etc/passwd", "size": 1, "sha256": "", "content_sha256": ""}]},
        {"parts": [{"index": 99, "name": "part-000099.zst", "size": 1, "sha256": "", "content_sha256": ""}]},
        {"further": 1},
    ],
)
def test_a_manifest_that_says_what_cannot_be_is_refused(
    store: FileStore, source: Path, change: dict[str, object]
) -> None:
    kept(store, source)
    manifest = msgspec.json.decode(store.get_bytes("volumes/a/manifest.json"))
    data = msgspec.json.encode({**manifest, **change})
    store.put_bytes("volumes/a/manifest.json", data)
    with pytest.raises(OutsideFailure, match=r"cannot be read|can read"):
        volume_image.read_manifest(store, "volumes/a", hashlib.sha256(data).hexdigest())


def test_a_device_that_is_too_small_is_not_touched(store: FileStore, source: Path, tmp_path: Path) -> None:
    image = kept(store, source)
    target = blank(tmp_path / "target", source.stat().st_size - 4096)
    before = target.read_bytes()
    with pytest.raises(InvalidParameter):
        restore(store, image.manifest_sha256, target)
    assert target.read_bytes() == before


def test_what_is_removed_is_no_image_any_more(store: FileStore, source: Path) -> None:
    image = kept(store, source)
    volume_image.remove(store, "volumes/a")
    assert store.list() == []
    with pytest.raises(NotFound):
        volume_image.read_manifest(store, "volumes/a", image.manifest_sha256)


# What a caller may say


@pytest.fixture
def ephemeral(context: Context) -> EphemeralVolumes:
    return EphemeralVolumes(context)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("type", "lvm"),
        ("id", "eph-../../../etc"),
        ("id", None),
        ("id", "eph-" + "A" * 32),
        ("manifest_sha256", "0" * 63),
        ("manifest_sha256", 5),
        ("store", None),
        ("store", "http://169.254.169.254/"),
        ("store", "file:///var/../etc"),
    ],
)
def test_a_snapshot_s_dict_that_cannot_be_ours_is_refused(
    ephemeral: EphemeralVolumes, key: str, value: object, tmp_path: Path
) -> None:
    good = {"type": "eph", "id": "eph-" + "0" * 32, "manifest_sha256": "0" * 64, "store": f"file://{tmp_path}"}
    assert ephemeral.find_snapshot(good) is None
    with pytest.raises(InvalidParameter):
        ephemeral.find_snapshot({**good, key: value})
    with pytest.raises(InvalidParameter):
        ephemeral.delete_snapshot({**good, key: value})


def test_one_disk_and_several_are_two_ways_to_say_it(ephemeral: EphemeralVolumes) -> None:
    one = parse(ephemeral.config, {"type": "eph", "disk": "/dev/vdb"}, "volume")
    assert ephemeral.disks_of(one) == [{"type": "base", "device": "/dev/vdb"}]
    several = parse(ephemeral.config, {"type": "eph", "disks": {"0": "/dev/vdb", "1": {"type": "loop"}}}, "volume")
    assert ephemeral.disks_of(several) == [{"type": "base", "device": "/dev/vdb"}, {"type": "loop"}]
    both = parse(ephemeral.config, {"type": "eph", "disk": "/dev/vdb", "disks": ["/dev/vdc"]}, "volume")
    with pytest.raises(InvalidParameter, match="either disk or disks"):
        ephemeral.disks_of(both)
    with pytest.raises(InvalidParameter, match=r"disks\[0\]"):
        ephemeral.disks_of(parse(ephemeral.config, {"type": "eph", "disks": [5]}, "volume"))
