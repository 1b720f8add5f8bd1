"""The worked example of CONTRIBUTING.md: a volume type from another package, by its entry point."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from private_storage import MIB, PrivateStorage

pytestmark = pytest.mark.root
CONTRIBUTING = Path(__file__).parent.parent.parent / "CONTRIBUTING.md"


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateStorage]:
    """An agent beside which the example's package is installed."""
    text = CONTRIBUTING.read_text()
    module = re.search(r"```python\n# images_volume\.py\n(.*?)```", text, re.DOTALL)
    entry = re.search(r"```toml\n\[project\.entry-points\.\"(scalarizr\.volumes)\"\]\nimage = \"(.*?)\"\n```", text)
    assert module and entry
    packages = tmp_path / "packages"
    information = packages / "images_volume-1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: images-volume\nVersion: 1\n")
    (information / "entry_points.txt").write_text(f"[{entry[1]}]\nimage = {entry[2]}\n")
    images = tmp_path / "srv"
    images.mkdir()
    (packages / "images_volume.py").write_text(module[1].replace('"/srv/images"', f'"{images}"'))
    monkeypatch.setenv("PYTHONPATH", str(packages))
    made = PrivateStorage(tmp_path)
    try:
        with made.agent:
            yield made
    finally:
        made.clean_up()


def test_a_type_from_another_package_works_like_one_of_ours(storage: PrivateStorage) -> None:
    image = storage.directory / "srv" / "golden.img"
    image.write_bytes(bytes(32 * MIB))
    config = {"type": "image", "id": "golden", "mpoint": str(storage.mpoint)}
    volume = storage.call("create", storage_config=config, mkfs=True, mount=True)
    assert volume["size"] == 0.03125 and volume["fstype"] == "ext4"
    (storage.mpoint / "file").write_text("kept")
    storage.call("destroy", volume=volume)
    assert image.exists() and not storage.mpoint.is_mount()
    shown = subprocess.run(["debugfs", "-R", "cat file", image], capture_output=True, text=True, check=True)
    assert shown.stdout == "kept"
    assert storage.refused("snapshot", volume=volume).code == -32013


def test_its_name_is_among_the_known_ones(storage: PrivateStorage) -> None:
    refused = storage.refused("create", storage_config={"type": "unheard"})
    assert refused.code == -32602 and "image, loop" in refused.data["expected"]


def test_one_that_cannot_be_loaded_says_so(storage: PrivateStorage) -> None:
    (storage.directory / "packages" / "images_volume.py").write_text("raise RuntimeError('broken')\n")
    refused = storage.refused("create", storage_config={"type": "image", "id": "golden"})
    assert refused.code == -32013 and "broken" in refused.message
