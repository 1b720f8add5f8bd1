"""Reading the whole audit log, and looking whether every line is the one that was written."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from scalarizr.audit.chain import BEGINNING, Link, chained, hash_of


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
