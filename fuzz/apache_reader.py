"""How Apache itself reads its configuration, line by line: what the agent's own reader is held against.

Written from the rules of ap_cfg_getline, ap_getword_conf and ap_build_config
(https://httpd.apache.org/docs/2.4/configuring.html), and for nothing but fuzzing.
"""

from typing import NamedTuple

_WHITE = b" \t\n\v\f\r"


class Unreadable(Exception):
    """Apache would refuse the text."""


class Line(NamedTuple):
    """A directive, or the beginning of a section.

    :ivar name: in lower case; that of a section with its `<`.
    :ivar rest: everything behind it; of a section up to its `>`.
    :ivar within: the names of the sections around it.
    """

    name: bytes
    rest: bytes
    within: tuple[bytes, ...]


def read(text: bytes) -> list[Line]:
    """Read a whole file.

    :raises Unreadable: it is none.
    """
    found: list[Line] = []
    opened: list[bytes] = []
    for line in _logical(text):
        stripped = line.strip(_WHITE)
        if not stripped or stripped.startswith(b"#"):
            continue
        name, rest = _first_word(stripped)
        if name[:2] == b"</":
            if not name.endswith(b">") or not opened or opened.pop() != name[1:-1].lower().replace(b"/", b"<", 1):
                raise Unreadable("an end without its section")
            continue
        # Of a section's name and of any other alike.
        name = name.removesuffix(b">").lower()
        if not name:
            continue
        if not name.startswith(b"<"):
            found.append(Line(name, rest, tuple(opened)))
            continue
        if name == b"<" or (b">" not in rest and not stripped.endswith(b">")):
            raise Unreadable("a section's line without its name or its >")
        found.append(Line(name, rest.rpartition(b">")[0].strip(_WHITE), tuple(opened)))
        opened.append(name)
    if opened:
        raise Unreadable("a section without its end")
    return found


def _logical(text: bytes) -> list[bytes]:
    """Put lines together that a backslash at the end continues; one that is left at the end of two goes on likewise."""
    lines, joined = [], b""
    for line in text.split(b"\n"):
        joined += line.removesuffix(b"\r")
        if joined.endswith(b"\\"):
            joined = joined[:-1]
            continue
        lines.append(joined)
        joined = b""
    return [*lines, joined] if joined else lines


def _first_word(line: bytes) -> tuple[bytes, bytes]:
    if line[:1] in (b'"', b"'"):
        quote, made, place = line[0], bytearray(), 1
        while place < len(line) and line[place] != quote:
            if line[place] == 0x5C and line[place + 1 : place + 2] in (b"\\", bytes([quote])):
                place += 1
            made.append(line[place])
            place += 1
        return bytes(made), line[place + 1 :].strip(_WHITE)
    for place, mark in enumerate(line):
        if mark in _WHITE:
            return line[:place].replace(b"\\\\", b"\\"), line[place:].strip(_WHITE)
    return line.replace(b"\\\\", b"\\"), b""
