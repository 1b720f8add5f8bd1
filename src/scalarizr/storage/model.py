"""What a volume is: a dict of the API, checked key by key against the struct of its type."""

import math
import re
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from scalarizr.errors import InvalidParameter
from scalarizr.rpc.types import checker, shown

GIGABYTE = 1 << 30
# Larger than any file system or provider takes; a typing mistake, not a wish.
_LARGEST = 1 << 20
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?)%([A-Z]{2,4})", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,7}(?:\.[0-9]{1,9})?", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@/-]{0,199}", re.ASCII)
_TOKEN = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
_FSTYPES = ("ext3", "ext4", "xfs", "btrfs")

Size = float | str
Tags = dict[str, str]


class Volume(msgspec.Struct, kw_only=True, frozen=True):
    """What every volume has; a type adds its own keys (API.md, "storage").

    :param type: the name of its type.
    :param id: what identifies it for ever; None: it is to be made.
    :param device: its block device here, None where it is not attached. Told, never believed.
    :param size: GB of 2**30 bytes, or a percentage where the type knows of what.
    :param fstype: its file system; `ext4` where one is made and none is named.
    :param mpoint: where it is mounted.
    :param mount_options: for mount(8), by comma.
    :param tags: kept with it, at the provider too where there is one.
    :param snap: the snapshot that it is made from.
    :param recreate_if_missing: make it anew where the one of this id is gone.
    :param client_token: calls with the same token make one volume.
    :param wipe: format it although it holds something.
    """

    type: str
    id: str | None = None
    device: str | None = None
    size: Size | None = None
    fstype: str | None = None
    mpoint: str | None = None
    mount_options: str | None = None
    tags: Tags | None = None
    snap: dict[str, Any] | None = None
    recreate_if_missing: bool = False
    client_token: str | None = None
    wipe: bool = False


AnyVolume = TypeVar("AnyVolume", bound=Volume)


def parse(kind: type[AnyVolume], data: Mapping[str, Any], path: str) -> AnyVolume:
    """Check a volume's dict.

    :param kind: the struct of its type.
    :param data: what came.
    :param path: the parameter's name, for errors.
    :raises InvalidParameter: a key is unknown, which names the known ones, or a value cannot be right.
    """
    annotations = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in data.items():
        if name not in annotations:
            known = ", ".join(sorted(annotations))
            raise InvalidParameter(
                f"{path}.{name}", shown(value), f"one of the keys that {data['type']} knows: {known}"
            )
        values[name] = checker(annotations[name])(value, f"{path}.{name}")
    volume = kind(**values)
    _check(volume, path)
    return volume


def _check(volume: Volume, path: str) -> None:
    if volume.id is not None and not _ID.fullmatch(volume.id):
        raise InvalidParameter(f"{path}.id", shown(volume.id), "the id of a volume")
    if volume.client_token is not None and not _TOKEN.fullmatch(volume.client_token):
        raise InvalidParameter(f"{path}.client_token", shown(volume.client_token), "1 to 128 visible ASCII characters")
    if volume.fstype is not None and volume.fstype not in _FSTYPES:
        raise InvalidParameter(f"{path}.fstype", shown(volume.fstype), f"one of {', '.join(_FSTYPES)}")
    if volume.size is not None:
        check_size(volume.size, f"{path}.size")
    for name, value in (volume.tags or {}).items():
        if (
            not isinstance(value, str)
            or not 0 < len(name) <= 127
            or len(value) > 255
            or not (name + value).isprintable()
        ):
            raise InvalidParameter(
                f"{path}.tags.{name[:127]}", shown(value), "a printable text of at most 255 characters"
            )


def check_size(size: Size, path: str) -> None:
    """Refuse a size that no volume can have.

    :raises InvalidParameter: with what was expected.
    """
    expected = "a size in GB, more than 0 and at most 1048576"
    if isinstance(size, str) and not _NUMBER.fullmatch(size):
        percentage = _PERCENT.fullmatch(size)
        if percentage is None or not 0 < float(percentage[1]) <= 100:
            raise InvalidParameter(path, shown(size), f'{expected}, or a percentage such as "75%ROOT"')
        return
    number = float(size)
    if not math.isfinite(number) or not 0 < number <= _LARGEST:
        raise InvalidParameter(path, shown(int(number) if number.is_integer() else size), expected)


def size_in_bytes(size: Size, path: str, wholes: Mapping[str, int] | None = None, unit: int = 1 << 20) -> int:
    """Give a checked size in bytes, rounded up to whole `unit` bytes.

    :param size: GB, or a percentage.
    :param path: the parameter's name, for errors.
    :param wholes: what a percentage can be of: bytes by the word behind `%`.
    :raises InvalidParameter: it is a percentage of something else.
    """
    percentage = _PERCENT.fullmatch(size) if isinstance(size, str) else None
    if percentage is None:
        return -(-round(float(size) * GIGABYTE) // unit) * unit
    if not wholes or percentage[2] not in wholes:
        words = " or ".join(f'a percentage such as "75%{word}"' for word in wholes or ())
        raise InvalidParameter(path, shown(size), f"a size in GB{' or ' + words if words else ''}")
    return int(wholes[percentage[2]] * float(percentage[1]) / 100) // unit * unit


def size_in_gigabytes(size: int) -> float | int:
    """Give bytes in GB, a whole number where it is one."""
    gigabytes = size / GIGABYTE
    return int(gigabytes) if gigabytes.is_integer() else round(gigabytes, 6)


def as_dict(volume: Volume) -> dict[str, Any]:
    """Give the dict that the API returns: every key of the type; what is a wish of one call alone is left out."""
    return {name: value for name, value in msgspec.structs.asdict(volume).items() if name not in ("wipe",)}
