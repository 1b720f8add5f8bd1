"""Writing the settings file of a new installation: every setting, commented, with its meaning and default."""

import textwrap
import typing
from pathlib import Path
from typing import Any

import msgspec

from scalarizr.settings.model import Settings
from scalarizr.settings.quantities import Seconds, Size

_HEAD = """\
# Settings of the scalarizr agent. Each one stands here commented, with its default: uncomment what you change.
# Sizes are written like "8 MiB", durations like "30 s", "10 min", "2 d". Relative paths are below this directory.
# `kill -HUP` makes a running agent read this file again; its log says what needs a restart.
"""


def template() -> str:
    """Give the text of the commented file."""
    parts = [_HEAD]
    for section in msgspec.structs.fields(Settings):
        parts.append(f"\n[{section.name}]\n")
        parts += [_entry(field) for field in msgspec.structs.fields(section.type)]
    return "".join(parts)


def _entry(field: Any) -> str:
    about = "\n".join(textwrap.wrap(f"# {_about(field)}", 100, subsequent_indent="# "))
    default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if default is None:
        return f"\n{about}\n# {field.name} =\n"
    return f"\n{about}\n# {field.name} = {_toml(default)}\n"


def _about(field: Any) -> str:
    metadata = getattr(field.type, "__metadata__", ())
    text = next((note.description for note in metadata if isinstance(note, msgspec.Meta)), "") or ""
    choices = _choices(typing.get_args(field.type)[0] if metadata else field.type)
    return f"{text} One of {', '.join(_toml(choice) for choice in choices)}." if choices else text


def _choices(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation) if typing.get_origin(annotation) is typing.Literal else ()


def _toml(value: object) -> str:
    if isinstance(value, Size):
        return f'"{_largest_unit(value, [(2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")])}"'
    if isinstance(value, Seconds):
        return f'"{_largest_unit(value, [(86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (0.001, "ms")])}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | Path):
        return msgspec.json.encode(str(value)).decode()
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return str(value)


def _largest_unit(amount: float, units: list[Any]) -> str:
    for size, unit in units:
        if amount >= size and amount % size == 0:
            return f"{amount / size:g} {unit}"
    return f"{amount:g} {units[-2][1]}"
