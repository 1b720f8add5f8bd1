"""Numbers in texts that others wrote: configuration files, answers of servers."""

import re

_NUMERAL = re.compile("[0-9]{1,18}", re.ASCII)


def numeral(text: str) -> int | None:
    """Give the number that a text of nothing but ASCII digits stands for; None for any other text.

    `str.isdigit` says yes to `²`, too, and `int` refuses numbers of thousands of digits.
    """
    return int(text) if _NUMERAL.fullmatch(text) else None
