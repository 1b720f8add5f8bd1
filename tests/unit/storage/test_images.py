"""Files that hold a whole device: whole or not there, holes kept."""

import os
from pathlib import Path

import pytest

from scalarizr.errors import AlreadyExists
from scalarizr.storage import images

MIB = 1 << 20


def test_an_image_is_sparse_private_and_of_its_size(tmp_path: Path) -> None:
    images.make_image(tmp_path / "disk.img", 64 * MIB, filled=False)
    status = (tmp_path / "disk.img").stat()
    assert status.st_size == 64 * MIB and status.st_blocks * 512 < MIB and status.st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["disk.img"]


def test_a_filled_one_has_its_space(tmp_path: Path) -> None:
    images.make_image(tmp_path / "disk.img", 8 * MIB, filled=True)
    assert (tmp_path / "disk.img").stat().st_blocks * 512 >= 8 * MIB


def test_nothing_that_is_there_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_text("precious")
    with pytest.raises(AlreadyExists):
        images.make_image(tmp_path / "disk.img", MIB, filled=False)
    assert (tmp_path / "disk.img").read_text() == "precious" and os.listdir(tmp_path) == ["disk.img"]


def test_a_copy_has_the_same_data_and_the_same_holes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    with open(source, "wb") as file:
        file.truncate(256 * MIB)
        for place in (0, 100 * MIB, 256 * MIB - 5):
            file.seek(place)
            file.write(b"12345")
    images.copy_image(source, tmp_path / "copy", size=300 * MIB)
    copied = (tmp_path / "copy").read_bytes()
    assert copied == source.read_bytes() + bytes(44 * MIB)
    assert (tmp_path / "copy").stat().st_blocks * 512 < MIB


def test_what_was_left_of_a_copy_that_was_cut_off_is_in_nobodys_way(tmp_path: Path) -> None:
    images.partial_of(tmp_path / "disk.img").write_text("half")
    images.make_image(tmp_path / "disk.img", MIB, filled=False)
    assert os.listdir(tmp_path) == ["disk.img"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), images.forming(tmp_path / "disk.img") as descriptor:
        os.write(descriptor, b"half")
        raise RuntimeError
    assert os.listdir(tmp_path) == []
