"""The Date of a founding message: the text that is signed, and the second it means."""

import re
import time
from datetime import UTC, datetime

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATE = re.compile(
    rf"(?:{'|'.join(_DAYS)}),? ([0-9]{{1,2}}) ({'|'.join(_MONTHS)}) ([0-9]{{4}}) "
    r"([0-9]{2}):([0-9]{2}):([0-9]{2}) (?:UTC|GMT)"
)


def date_text(second: int) -> str:
    """Write a Unix second as the founding document does: English names, whatever the locale."""
    t = time.gmtime(second)
    return (
        f"{_DAYS[t.tm_wday]} {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year} "
        f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} UTC"
    )


def http_date_text(second: int) -> str:
    """Write a Unix second in the form of RFC 9110, section 5.6.7."""
    day, rest = date_text(second).split(" ", 1)
    return f"{day}, {rest.removesuffix('UTC')}GMT"


def read_date(text: str) -> int:
    """Read either form, ending in UTC or GMT.

    :return: the Unix second.
    :raises ValueError: it is neither.
    """
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError("not a date")
    day, month, year, hour, minute, second = match.groups()
    moment = datetime(
        int(year),
        _MONTHS.index(month) + 1,
        int(day),
        int(hour),
        int(minute),
        min(int(second), 59),  # a leap second, RFC 9110
        tzinfo=UTC,
    )
    return int(moment.timestamp())
