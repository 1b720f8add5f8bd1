"""Sizes and durations as people write them in a settings file: `"8 MiB"`, `"2 d"`, `300`."""

import re

_SIZE_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_DURATION_UNITS = {"": 1, "ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", re.ASCII)


class Size(int):
    """A number of bytes."""

    @classmethod
    def parse(cls, value: object) -> "Size":
        """Read a size: a whole number of bytes, or text with a unit (B, KB, MB, GB, KiB, MiB, GiB).

        :raises ValueError: with what was expected.
        """
        amount = _amount(value, _SIZE_UNITS)
        if amount is None or amount != int(amount):
            raise ValueError('a size such as "8 MiB" or a whole number of bytes')
        return cls(int(amount))


class Seconds(float):
    """A duration in seconds."""

    @classmethod
    def parse(cls, value: object) -> "Seconds":
        """Read a duration: a number of seconds, or text with a unit (ms, s, min, h, d, w).

        :raises ValueError: with what was expected.
        """
        amount = _amount(value, _DURATION_UNITS)
        if amount is None:
            raise ValueError('a duration such as "30 s", "10 min", "2 d", or a number of seconds')
        return cls(amount)


def _amount(value: object, units: dict[str, int] | dict[str, float] | dict[str, int | float]) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value if 0 <= value < 10**18 else None
    if not isinstance(value, str) or not (match := _QUANTITY.fullmatch(value.strip())):
        return None
    number, unit = match.groups()
    return float(number) * units[unit] if unit in units and len(number) < 18 else None
