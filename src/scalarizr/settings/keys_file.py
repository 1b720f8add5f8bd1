"""Changing `<etc>/keys.toml` in place: one section or one line of it, the rest left as a person wrote it.

Each function gives the new text, read back and found to say what it should.
"""

import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from scalarizr.settings.load import BadSettings

HEAD = """\
# What each key of this server may do; see "Keys" in the guide. `scalarizr key` writes here, and so may you: the agent
# reads it again on SIGHUP. A key's own text lies in private.d/keys under its id.
"""


def add_section(text: str, identity: str, values: Mapping[str, Any]) -> str:
    """Add a key's section at the end.

    :param values: texts, lists of texts, datetimes and booleans by name.
    """
    lines = "".join(f"{name} = {_written(value)}\n" for name, value in values.items())
    ending = "" if not text or text.endswith("\n") else "\n"
    new = f"{text or HEAD}{ending}\n[{identity}]\n{lines}"
    return _checked(new, {**tomllib.loads(text), identity: dict(values)})


def remove_section(text: str, identity: str) -> str:
    """Take a key's section out."""
    lines = text.splitlines(keepends=True)
    first, last = _span(lines, identity)
    expected = {name: content for name, content in tomllib.loads(text).items() if name != identity}
    return _checked("".join(lines[:first] + lines[last:]).rstrip("\n") + "\n", expected)


def set_value(text: str, identity: str, name: str, value: Any) -> str:
    """Put one line of a key's section in the place of the old one, or at its beginning; None takes it out."""
    expected: dict[str, Any] = tomllib.loads(text)
    expected[identity] = {key: old for key, old in expected[identity].items() if key != name}
    lines = text.splitlines(keepends=True)
    first, last = _span(lines, identity)
    old = [number for number in range(first + 1, last) if lines[number].partition("=")[0].strip().strip("\"'") == name]
    if value is not None:
        expected[identity][name] = value
        new = f"{name} = {_written(value)}\n"
        if old:
            lines[old[0]] = new
        else:
            if not lines[first].endswith("\n"):
                lines[first] += "\n"
            lines.insert(first + 1, new)
    else:
        for number in reversed(old):
            del lines[number]
    return _checked("".join(lines), expected)


def moment(second: float) -> datetime:
    """Give a Unix time as the file has it: in whole seconds, in UTC."""
    return datetime.fromtimestamp(int(second), UTC)


def _span(lines: list[str], identity: str) -> tuple[int, int]:
    """Find the lines of a section, from its header to before the next one."""
    headers = [number for number, line in enumerate(lines) if line.lstrip().startswith("[")]
    for place, number in enumerate(headers):
        name = lines[number].partition("#")[0].strip()
        if name.startswith("[") and name.endswith("]") and name[1:-1].strip().strip("\"'") == identity:
            return number, headers[place + 1] if place + 1 < len(headers) else len(lines)
    raise _by_hand()


def _written(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_written(one) for one in value) + "]"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _checked(text: str, expected: dict[str, Any]) -> str:
    try:
        if tomllib.loads(text) == expected:
            return text
    except tomllib.TOMLDecodeError:
        pass
    raise _by_hand()


def _by_hand() -> BadSettings:
    return BadSettings(
        "The keys' file is written in a form that is not changed by a program. Nothing was changed; edit it by hand."
    )
