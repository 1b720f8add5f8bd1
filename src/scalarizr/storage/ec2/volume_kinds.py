"""What each EBS volume type takes: sizes, IOPS, throughput (CreateVolume in Amazon's EC2 API Reference)."""

from typing import Any

import msgspec

from scalarizr.errors import InvalidParameter
from scalarizr.rpc.types import shown

DEFAULT = "gp3"


class Kind(msgspec.Struct, frozen=True):
    """One volume type.

    :param sizes: least and most, GiB.
    :param iops: least and most; None where it takes none.
    :param iops_needed: it cannot be without.
    :param throughput: least and most, MiB/s; None where it takes none.
    """

    sizes: tuple[int, int]
    iops: tuple[int, int] | None = None
    iops_needed: bool = False
    throughput: tuple[int, int] | None = None


KINDS = {
    "gp3": Kind((1, 65536), (3000, 80000), False, (125, 2000)),
    "gp2": Kind((1, 16384)),
    "io1": Kind((4, 16384), (100, 64000), True),
    "io2": Kind((4, 65536), (100, 256000), True),
    "st1": Kind((125, 16384)),
    "sc1": Kind((125, 16384)),
    "standard": Kind((1, 1024)),
}


def check_kind(name: str, path: str) -> Kind:
    """Give what a volume type takes.

    :param path: the parameter's name, for errors.
    :raises InvalidParameter: there is no such type.
    """
    if name not in KINDS:
        raise InvalidParameter(path, shown(name), f"one of {', '.join(KINDS)}")
    return KINDS[name]


def check_value(value: int, limits: tuple[int, int] | None, what: str, kind: str, path: str) -> None:
    """Refuse a value that a volume type does not take.

    :param limits: least and most; None: it takes none at all.
    :param what: its name and unit, as in "a size in GB".
    :param kind: the volume type's name.
    :raises InvalidParameter: with what is taken.
    """
    if limits is None:
        raise InvalidParameter(path, shown(value), f"nothing: a volume of the type {kind} has no {what}")
    if not limits[0] <= value <= limits[1]:
        raise InvalidParameter(path, shown(value), f"{limits[0]} to {limits[1]} as {what} of a {kind} volume")


def whole(value: Any, path: str) -> int:
    """Give a whole number that may come as text.

    :raises InvalidParameter: it is none.
    """
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidParameter(path, shown(value), "a whole number, 1 or more")
    return value
