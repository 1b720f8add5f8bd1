"""A device's content to a real S3-compatible store and back onto another device, in bounded memory."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from block_devices import MIB, BlockDevices
from private_s3 import PrivateS3
from scalarizr.errors import NotFound
from scalarizr.objectstore.opening import open_store
from scalarizr.platform_access import PlatformAccess
from scalarizr.storage import volume_image

# Keeps and restores 320 MiB that do not compress, and prints how many KiB of memory that took at most.
FRUGAL = """\
import random, sys
from pathlib import Path
from scalarizr.objectstore.files import FileStore
from scalarizr.storage import volume_image
place, size = Path(sys.argv[1]), 320 << 20
chance = random.Random(1)
with open(place / "source", "wb") as file:
    for _ in range(320):
        file.write(chance.randbytes(1 << 20))
with open(place / "target", "wb") as file:
    file.truncate(size)
import zstandard
def kib(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # proc(5): the peak counts from here
before = kib("VmRSS")
store = FileStore(place / "store")
kept = volume_image.keep(store, "volumes/a", place / "source", size, "keeping")
manifest = volume_image.read_manifest(store, "volumes/a", kept.manifest_sha256)
volume_image.restore(store, "volumes/a", manifest, place / "target", "restoring")
print(kib("VmHWM") - before)
"""


@pytest.fixture(scope="module")
def s3() -> Iterator[PrivateS3]:
    with PrivateS3() as running:
        yield running


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[BlockDevices]:
    made = BlockDevices(tmp_path)
    yield made
    made.close()


def content(device: Path, size: int) -> str:
    with open(device, "rb") as file:
        return hashlib.sha256(file.read(size)).hexdigest()


@pytest.mark.root
def test_a_file_system_goes_to_s3_and_comes_back_onto_another_disk(
    s3: PrivateS3, disks: BlockDevices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume_image, "SPAN", 16 * MIB)
    source, target = disks.make(100), disks.make(120)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "data").write_bytes(os.urandom(20 * MIB))
    subprocess.run(["mkfs.ext4", "-q", "-d", tmp_path / "files", source], check=True)
    subprocess.run(["dd", "if=/dev/urandom", f"of={target}", "bs=1M", "status=none"], capture_output=True)
    store = open_store(f"s3://{s3.bucket}/images", s3.endpoint_url, PlatformAccess(s3.access))
    image = volume_image.keep(store, "volumes/a", source, 100 * MIB, "keeping")
    assert 20 * MIB <= image.size < 30 * MIB, "what is empty takes no room"
    manifest = volume_image.read_manifest(store, "volumes/a", image.manifest_sha256)
    volume_image.restore(store, "volumes/a", manifest, target, "restoring")
    assert content(target, 100 * MIB) == content(source, 100 * MIB)
    subprocess.run(["e2fsck", "-fn", target], check=True, capture_output=True)
    volume_image.remove(store, "volumes/a")
    assert store.list() == []
    with pytest.raises(NotFound):
        volume_image.read_manifest(store, "volumes/a", image.manifest_sha256)


def test_memory_does_not_grow_with_the_volume(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FRUGAL, tmp_path], capture_output=True, text=True, check=True)
    assert content(tmp_path / "target", 320 * MIB) == content(tmp_path / "source", 320 * MIB)
    print(f"{done.stdout.strip()} KiB more at most")
    assert 1024 < int(done.stdout) < 100 * 1024
