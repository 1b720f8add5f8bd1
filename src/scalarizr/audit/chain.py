"""The chain of the audit log: what a line looks like, and how a removed or altered one is found.

A line is a JSON object. Its `n` counts the lines of the log from its beginning, across rotations; its `previous` is the
SHA-256 of the line before, as it was written, without its line end. Whoever alters, removes or puts in a line breaks
the chain there, unless everything after it is written anew: then the last hash, the chain's head, is another than the
one that went to syslog. A line that a crash cut off stays, and is chained like any other.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
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


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it was written.

    :ivar file: the file's name.
    :ivar line: the line in it, from 1.
    :ivar words: what is wrong.
    """

    file: str
    line: int
    words: str


class Verification(msgspec.Struct, frozen=True):
    """What reading the whole log showed.

    :ivar lines: how many lines were read.
    :ivar first: number of the first line that is still kept.
    :ivar end: where the chain ends.
    :ivar findings: what is not as it was written; none where all is well.
    :ivar cut_off: lines that a crash cut off, of which nobody altered anything.
    :ivar heads: the hash of every line that was asked for: whether the chain holds it.
    """

    lines: int
    first: int
    end: Link
    findings: list[Finding]
    cut_off: int
    heads: dict[str, bool]


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


def verify(files: Iterable[Path], heads: Iterable[str] = ()) -> Verification:
    """Read the whole log and look whether every line is the one that was written.

    :param files: oldest first.
    :param heads: hashes that are known from elsewhere (syslog) and must be in the chain.
    :raises OSError: a file cannot be read.
    """
    missing = {head.lower(): False for head in heads}
    findings: list[Finding] = []
    end: Link | None = None
    lines = first = cut_off = 0
    for file, number, line in _lines(files):
        lines += 1
        link = chained(line)
        if link is None:
            # Only the next line, which carries its hash, can vouch for it.
            cut_off += 1
            end = Link((end.n if end else 0) + 1, hash_of(line))
        else:
            if end is None:
                first = link.n
                if link.n == 1 and link.head != BEGINNING:
                    findings.append(Finding(file, number, "line 1 of the log says that there was one before it"))
            elif link.n != end.n + 1:
                findings.append(Finding(file, number, f"it is line {link.n} where line {end.n + 1} was expected"))
            elif link.head != end.head:
                findings.append(Finding(file, number, f"the line before it, {end.n}, is not the one that was written"))
            end = Link(link.n, hash_of(line))
        if end.head in missing:
            missing[end.head] = True
    return Verification(lines, first, end or Link(), findings, cut_off, missing)


def _lines(files: Iterable[Path]) -> Iterator[tuple[str, int, bytes]]:
    for path in files:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                yield path.name, number, line.rstrip(b"\n")
