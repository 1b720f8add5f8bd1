"""The chain of the audit log: what a line looks like, and how a removed or altered one is found.

A line is a JSON object. Its `n` counts the lines of the log from its beginning, across rotations; its `previous` is the
SHA-256 of the line before, as it was written, without its line end. Whoever alters, removes or puts in a line breaks
the chain there, unless everything after it is written anew: then the last hash, the chain's head, is another than the
one that went to syslog. A line that a crash cut off stays, and is chained like any other.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import msgspec

BEGINNING = "0" * 64
_NUMBER = re.compile(r"(.+)\.([0-9]{1,6})")


class Link(msgspec.Struct, frozen=True):
    """Where the chain ends.

    :ivar n: number of its last line; 0 before the first.
    :ivar head: the SHA-256 of that line, in hex.
    """

    n: int = 0
    head: str = BEGINNING


class _Chained(msgspec.Struct):
    n: int
    previous: str


def line_of(entry: dict[str, Any], end: Link) -> tuple[bytes, Link]:
    """Write an entry as the next line.

    :param entry: plain data without secrets; its `n` and `previous` are put here.
    :return: the line with its end, and where the chain ends then.
    """
    line = msgspec.json.encode({"n": end.n + 1, "previous": end.head, **entry})
    return line + b"\n", Link(end.n + 1, hash_of(line))


def hash_of(line: bytes) -> str:
    """Give the hash that the next line carries."""
    return hashlib.sha256(line).hexdigest()


def chained(line: bytes) -> Link | None:
    """Give the number of a line and the hash it carries; None where it is not whole."""
    try:
        read = msgspec.json.decode(line, type=_Chained)
    except msgspec.MsgspecError:
        return None
    return Link(read.n, read.previous)


def files_of(path: Path) -> list[Path]:
    """Give the log's files, oldest first: the rotated ones, and the one that is written."""
    rotated = []
    if path.parent.is_dir():
        for other in path.parent.iterdir():
            match = _NUMBER.fullmatch(other.name)
            if match and match[1] == path.name and other.is_file():
                rotated.append((int(match[2]), other))
    return [other for _number, other in sorted(rotated, reverse=True)] + ([path] if path.exists() else [])
