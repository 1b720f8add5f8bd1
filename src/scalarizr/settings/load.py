"""Reading `<etc>/scalarizr.toml`: every mistake is told with file, line, key and what was expected."""

import os
import re
import tomllib
import typing
from pathlib import Path
from typing import Any

import msgspec

from scalarizr.errors import nearest
from scalarizr.settings.address import BadAddress, read_address
from scalarizr.settings.model import Paths, Section, Settings
from scalarizr.settings.quantities import Seconds, Size

FILE_NAME = "scalarizr.toml"
_LARGEST = 1 << 20
_HEADER = re.compile(r"\s*\[([^\[\]]+)\]\s*(?:#.*)?")
_KEY = re.compile(r"\s*([A-Za-z0-9_.\"'-]+?)\s*=")


class BadSettings(Exception):
    """The settings cannot be used; the text is one paragraph with file, line, key and what was expected."""


def default_etc() -> Path:
    """Give the configuration directory where none is named: `$SCALARIZR_ETC`, else `/etc/scalr`."""
    return Path(os.environ.get("SCALARIZR_ETC") or "/etc/scalr")


def load_settings(etc: Path) -> Settings:
    """Read the settings of a configuration directory; without a file they are the defaults.

    Paths in the file that are not absolute are below `etc`.

    :raises BadSettings: naming file, line, key and what was expected.
    """
    path = etc / FILE_NAME
    text, data = read_toml(path)
    return _with_defaults(etc.absolute(), _convert(path, text, data))


def read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """Read a file of settings; one that is not there is empty.

    :return: its text, and what it says.
    :raises BadSettings: naming file, line and what was expected.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(_LARGEST + 1)
    except FileNotFoundError:
        raw = b""
    except OSError as error:
        raise BadSettings(f"{path}: cannot be read: {error.strerror}.") from error
    if len(raw) > _LARGEST:
        raise BadSettings(f"{path}: is larger than 1 MiB, which no settings file is.")
    try:
        text = raw.decode("utf-8")
        return text, tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise BadSettings(f"{path}, line {line}: is not UTF-8 text.") from error
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(_syntax_error(path, raw.decode("utf-8"), str(error))) from error
    except ValueError:  # of int(), which reads no more than some thousand digits
        raise BadSettings(f"{path}: holds a number of thousands of digits, which no setting is.") from None
    except RecursionError:
        raise BadSettings(f"{path}: is nested deeper than any settings file.") from None


def where_set(etc: Path, section: str, key: str) -> str:
    """Say where a setting stands, for an error about what it names: file and line, or that it is the default."""
    path = etc / FILE_NAME
    try:
        line = line_of(path.read_text(encoding="utf-8"), section, key)
    except (OSError, UnicodeDecodeError):
        line = 0
    return f"{path}, line {line}: [{section}] {key}" if line else f"{path}: [{section}] {key} (not set: the default)"


def _syntax_error(path: Path, text: str, message: str) -> str:
    match = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if match:
        return f"{path}, line {match[1]}, column {match[2]}: is not TOML: {message[: match.start()]}."
    return f"{path}, line {text.count(chr(10)) + 1}: is not TOML: {message.removesuffix(' (at end of document)')}."


def _convert(path: Path, text: str, data: dict[str, Any]) -> Settings:
    sections = typing.get_type_hints(Settings)
    for name, content in data.items():
        if name not in sections:
            where = line_of(text, name, None) or line_of(text, "", name)
            raise BadSettings(f"{place(path, where)}: [{name[:60]}] is no section; {hint(name, list(sections))}")
        if not isinstance(content, dict):
            where = line_of(text, "", name)
            raise BadSettings(f"{place(path, where)}: {name} is a section: write [{name}] on a line of its own.")
    built = {name: _section(path, text, name, sections[name], data.get(name, {})) for name in sections}
    _refuse_half_of_tls(path, text, data.get("tls", {}))
    return Settings(**built)  # type: ignore[arg-type]  # each section under its own name


def _section(path: Path, text: str, name: str, kind: type[Section], content: dict[str, Any]) -> Section:
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    values = {}
    for key, value in content.items():
        where = f"{place(path, line_of(text, name, key) or line_of(text, name, None))}: [{name}] {key[:60]}"
        if key not in fields:
            raise BadSettings(f"{where} is no setting; {hint(key, list(fields))}")
        try:
            values[key] = msgspec.convert(value, fields[key].type, dec_hook=_from_toml)
        except msgspec.ValidationError as error:
            expected = _expected(str(error), fields[key].type)
            raise BadSettings(f"{where}: got {_shown(name, key, value)}, expected {expected}.") from None
        problem = _out_of_range(values[key]) or _PROBLEMS.get((name, key), lambda _value: None)(values[key])
        if problem:
            raise BadSettings(f"{where}: got {_shown(name, key, value)}, expected {problem}.")
    return kind(**values)


def _refuse_half_of_tls(path: Path, text: str, given: dict[str, Any]) -> None:
    missing = [key for key in ("listen", "certificate", "key") if key not in given]
    if given and missing:
        where = line_of(text, "tls", None) or line_of(text, "tls", next(iter(given)))
        raise BadSettings(
            f"{place(path, where)}: [tls] lacks {' and '.join(missing)}: TLS needs listen, certificate and key."
        )


def _from_toml(kind: type, value: object) -> object:
    if kind is Size or kind is Seconds:
        return kind.parse(value)
    if kind is Path:
        if not isinstance(value, str) or not value or "\0" in value:
            raise ValueError("a path")
        return Path(value)
    raise TypeError(kind)


def _expected(message: str, annotation: Any) -> str:
    least = re.match(r"Expected `int` >= (\d+)", message)
    if least:
        return f"a whole number, {least[1]} or more"
    match = re.match(r"Expected `(.*?)`, got", message)
    if match:
        words = {"str": "text", "int": "a whole number", "bool": "true or false", "array": "a list"}
        kinds = [part.strip() for part in match[1].split("|")]
        return " or ".join(words.get(kind, kind) for kind in kinds if kind != "null")
    if message.startswith("Invalid enum value"):
        return "one of " + ", ".join(f'"{choice}"' for choice in _choices(annotation))
    return message.partition(" - at `")[0]


def _choices(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) is typing.Literal:
        return typing.get_args(annotation)
    return tuple(choice for part in typing.get_args(annotation) for choice in _choices(part))


def _shown(section: str, key: str, value: object) -> str:
    if (section, key) == ("mongodb", "uri"):
        return "a value that is not shown"
    return shown(value)


def shown(value: object) -> str:
    """Show what stands in a file of settings, short."""
    try:
        text = repr(value)
    except ValueError:  # a hexadecimal number may be longer than what is written in decimal
        return "a number of thousands of digits"
    return text if len(text) <= 80 else text[:79] + "…"


def _out_of_range(value: object) -> str | None:
    if type(value) is int and not 0 <= value < 1 << 31:
        return "a whole number that is not negative"
    return None


def _no_listen(value: object) -> str | None:
    addresses = [str(address) for address in (value if isinstance(value, list) else [value])]
    try:
        for address in addresses:
            read_address(address)
    except BadAddress as error:
        return str(error)
    return None if addresses else "at least one address"


def _at_least_one(value: object) -> str | None:
    return None if isinstance(value, int | float) and value >= 1 else "at least 1"


def _no_envelopes(value: object) -> str | None:
    return None if value else 'at least one of "founding", "sealed"'


def _no_skew(value: object) -> str | None:
    return None if isinstance(value, float) and 1 <= value <= 86400 else "1 s to 1 d"


_PROBLEMS: dict[tuple[str, str], Any] = {
    ("api", "listen"): _no_listen,
    ("tls", "listen"): _no_listen,
    ("api", "envelopes"): _no_envelopes,
    ("api", "clock_skew"): _no_skew,
    **{
        ("api", key): _at_least_one
        for key in ("max_body", "replay_entries", "connections", "bodies_in_memory", "queue", "threads")
    },
    **{("api", key): _at_least_one for key in ("head_timeout", "body_timeout", "idle_timeout", "idle_exit")},
    ("operations", "parallel"): _at_least_one,
    ("logs", "max_size"): _at_least_one,
}


def hint(name: str, known: list[str]) -> str:
    """Name what was perhaps meant, else what there is."""
    close = nearest(name, known)
    return f"did you mean {close}?" if close else f"there are {', '.join(known)}."


def place(path: Path, line: int) -> str:
    """Name a place in a file; the file alone where the line was not found."""
    return f"{path}, line {line}" if line else str(path)


def line_of(text: str, section: str, key: str | None) -> int:
    """Find the line of `[section]`, or of a key in it; 0 where it is written in a form that is not looked for."""
    present = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.fullmatch(line)
        if header:
            present = header[1].strip().strip("\"'")
            if key is None and present == section:
                return number
            continue
        found = _KEY.match(line)
        if found and key is not None:
            name = found[1].strip("\"'")
            if (present == section and name.split(".")[0] == key) or (not present and name == f"{section}.{key}"):
                return number
    return 0


def _with_defaults(etc: Path, settings: Settings) -> Settings:
    """Fill in what depends on `etc`, and make every path absolute."""
    sections: dict[str, Section] = {}
    for field in msgspec.structs.fields(Settings):
        section: Section = getattr(settings, field.name)
        absolute = {
            key.name: etc / value
            for key in msgspec.structs.fields(type(section))
            if isinstance(value := getattr(section, key.name), Path)
        }
        sections[field.name] = msgspec.structs.replace(section, **absolute)
    paths = typing.cast(Paths, sections["paths"])
    if paths.key is None:
        sections["paths"] = msgspec.structs.replace(paths, key=etc / "private.d" / "keys" / "default")
    environment = settings.environment
    if environment.directory is None:
        sections["environment"] = msgspec.structs.replace(environment, directory=etc / "environment")
    return Settings(**sections)  # type: ignore[arg-type]
