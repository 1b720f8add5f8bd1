"""Editing /etc/hosts (hosts(5)): one line, all others to the byte as they were."""

import re

_LINE = re.compile(rb"([ \t]*)([^\s#]+)([ \t]+)([^#\r\n]*?)([ \t]*)(#[^\r\n]*)?(\r?\n)?")


def map_address(text: bytes, address: str, names: list[str], replaced: list[str]) -> bytes:
    """Make `names` the names of an address.

    Where the address has a line, they come first on it (behind `localhost`, where that is there), other names and the
    comment stay; else a line is added at the end.

    :param text: the whole file.
    :param names: the canonical name first.
    :param replaced: names of that line that go, with every name that has one of them as its first label.
    """
    lines = text.split(b"\n")
    wanted = [name.encode("ascii") for name in names]
    stale = {name.encode("ascii") for name in replaced if "." not in name} - set(wanted)
    gone = {name.encode("ascii") for name in replaced} | set(wanted)
    for index, line in enumerate(lines):
        if line.split(None, 1)[:1] != [address.encode("ascii")]:
            continue
        match = _LINE.fullmatch(line.rstrip(b"\r"))
        if match is None:
            continue
        present = match[4].split()
        others = [name for name in present if name not in gone and name.partition(b".")[0] not in stale]
        local = b"localhost" in others
        ordered = [*others, *wanted] if local else [*wanted, *others]
        if present == ordered:
            return text
        tail = match[5] + match[6] if match[6] else b""
        ending = b"\r" if line.endswith(b"\r") else b""
        lines[index] = match[1] + match[2] + match[3] + b" ".join(ordered) + tail + ending
        return b"\n".join(lines)
    newline = b"\r\n" if lines[0].endswith(b"\r") else b"\n"
    missing = newline if text and not text.endswith(b"\n") else b""
    return text + missing + address.encode("ascii") + b"\t" + b" ".join(wanted) + newline
