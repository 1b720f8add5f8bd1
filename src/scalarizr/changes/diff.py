"""Showing what a change does to a file."""

import re
from collections.abc import Iterator

_CONTEXT = 3
# Comparing line by line takes a time that grows with the square of what differs.
_MOST_COMPARED = 20_000
_PLACE = re.compile(r"([-+])([0-9]+)(?=[ ,])")


def unified_diff(path: str, old: bytes | None, new: bytes | None) -> str:
    """Write a unified diff (the form of diff(1) and patch(1)).

    :param path: names both sides.
    :param old: what the file holds; None where there is none.
    :param new: what it shall hold; None where it goes.
    """
    import difflib

    if b"\0" in (old or b"") or b"\0" in (new or b""):
        return f"Binary file {path} changes\n"
    before, after = _lines(old), _lines(new)
    names = "/dev/null" if old is None else path, "/dev/null" if new is None else path
    # What is the same at both ends is left to nobody to compare: the files may be long.
    shortest = min(len(before), len(after))
    head = next((number for number in range(shortest) if before[number] != after[number]), shortest)
    tail = next(
        (number for number in range(shortest - head) if before[-1 - number] != after[-1 - number]), shortest - head
    )
    skipped = max(head - _CONTEXT, 0)
    dropped = max(tail - _CONTEXT, 0)
    before, after = before[skipped : len(before) - dropped], after[skipped : len(after) - dropped]
    if len(before) > _MOST_COMPARED and len(after) > _MOST_COMPARED:
        rows = _replaced_whole(before, after, names)
    else:
        rows = difflib.unified_diff(before, after, *names, n=_CONTEXT)
    moved = (_moved(row, skipped) if skipped and row.startswith("@@") else row for row in rows)
    return "".join(row if row.endswith("\n") else f"{row}\n\\ No newline at end of file\n" for row in moved)


def _replaced_whole(before: list[str], after: list[str], names: tuple[str, str]) -> Iterator[str]:
    """Write a diff of two long texts without looking for what they share."""
    yield f"--- {names[0]}\n"
    yield f"+++ {names[1]}\n"
    yield f"@@ -1,{len(before)} +1,{len(after)} @@\n"
    yield from (f"-{line}" for line in before)
    yield from (f"+{line}" for line in after)


def _moved(row: str, by: int) -> str:
    return _PLACE.sub(lambda match: f"{match[1]}{int(match[2]) + by}", row)


def _lines(content: bytes | None) -> list[str]:
    text = (content or b"").decode("utf-8", "backslashreplace")
    # Only a line feed ends a line here: str.splitlines knows a dozen other ends.
    return [f"{line}\n" for line in text.split("\n")[:-1]] + ([last] if (last := text.rpartition("\n")[2]) else [])
