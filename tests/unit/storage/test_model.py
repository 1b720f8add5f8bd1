"""The dicts of volumes: every key checked, every size understood or refused."""

from typing import Any

import pytest

from scalarizr.errors import InvalidParameter
from scalarizr.storage.model import Volume, as_dict, check_size, parse, size_in_bytes, size_in_gigabytes
from scalarizr.storage.volumes.loop import LoopVolume

GIB = 1 << 30


def test_tolerances_of_the_wire_and_nothing_else() -> None:
    volume = parse(LoopVolume, {"type": "loop", "size": "1.5", "zerofill": "1", "recreate_if_missing": 0}, "volume")
    assert (volume.size, volume.zerofill, volume.recreate_if_missing) == ("1.5", True, False)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id", ""),
        ("id", "../x\n"),
        ("id", 5),
        ("client_token", ""),
        ("client_token", "two words"),
        ("client_token", "x" * 129),
        ("fstype", "ext2"),
        ("tags", {"a": 1}),
        ("tags", {"": "x"}),
        ("tags", {"a\n": "x"}),
        ("tags", ["a"]),
        ("snap", "snap-1"),
        ("size", "1e3"),
        ("size", "nan"),
        ("size", [1]),
        ("size", "0"),
        ("wipe", "perhaps"),
    ],
)
def test_what_cannot_be_right_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse(Volume, {"type": "base", key: value}, "volume")
    assert str(caught.value.facts["parameter"]).startswith(f"volume.{key}")


@pytest.mark.parametrize(
    ("size", "expected"),
    [(1, GIB), (0.5, GIB // 2), ("2", 2 * GIB), (0.0001, 1 << 20), ("50%ROOT", 5 * GIB), ("100%ROOT", 10 * GIB)],
)
def test_sizes_are_gigabytes_or_percentages(size: float | str, expected: int) -> None:
    check_size(size, "size")
    assert size_in_bytes(size, "size", {"ROOT": 10 * GIB}) == expected


@pytest.mark.parametrize("size", ["50%", "0%ROOT", "101%ROOT", "50%root", "-1", "", "50 %ROOT", float("inf"), -0.0])
def test_other_sizes_are_not_guessed(size: float | str) -> None:
    with pytest.raises(InvalidParameter):
        check_size(size, "size")


def test_a_percentage_of_something_else_names_what_can_be() -> None:
    with pytest.raises(InvalidParameter) as caught:
        size_in_bytes("50%VG", "size", {"ROOT": GIB})
    assert "75%ROOT" in str(caught.value.facts["expected"])


def test_a_size_is_shown_as_people_write_it() -> None:
    assert size_in_gigabytes(2 * GIB) == 2 and isinstance(size_in_gigabytes(2 * GIB), int)
    assert size_in_gigabytes(GIB // 2) == 0.5


def test_the_result_has_no_wish_of_the_one_call() -> None:
    shown = as_dict(parse(LoopVolume, {"type": "loop", "size": 1, "wipe": True}, "volume"))
    assert "wipe" not in shown and shown["size"] == 1
