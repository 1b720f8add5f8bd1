"""Reading postgresql.conf while no server runs that could be asked: the few settings that tell where a cluster is."""

import re
from collections.abc import Iterator
from pathlib import Path

# name = 'value' or name value; a quote in a value is doubled or escaped (PostgreSQL, "Setting Parameters").
_LINE = re.compile(
    r"^\s*(?P<name>[A-Za-z_][\w.]*)\s*(?:=\s*|\s)(?:'(?P<quoted>(?:[^'\\]|''|\\.)*)'|(?P<plain>[^\s#']+))\s*(?:#.*)?$"
)
_DEEPEST = 10


def read_configuration(main: Path, data_dir: Path | None = None, root: Path = Path("/")) -> dict[str, str]:
    """Read the settings of a cluster as its server would: the last value counts, and ALTER SYSTEM's file comes last.

    :param main: postgresql.conf.
    :param data_dir: where postgresql.auto.conf is; None: where the setting `data_directory` says.
    :param root: what absolute paths in the file are looked up under.
    :return: values by lower-case name.
    :raises OSError: `main` cannot be read.
    """
    settings = dict(_lines(main, root, 0))
    if data_dir is None and "data_directory" in settings:
        data_dir = below(root, main.parent / settings["data_directory"])
    automatic = (data_dir or main.parent) / "postgresql.auto.conf"
    if automatic.is_file():
        settings.update(_lines(automatic, root, 0))
    return settings


def below(root: Path, path: Path) -> Path:
    """Give where an absolute path of a host's own is, in a tree that may be a recorded one."""
    if root == Path("/") or path.is_relative_to(root) or not path.is_absolute():
        return path
    return root / path.relative_to("/")


def _lines(path: Path, root: Path, depth: int) -> Iterator[tuple[str, str]]:
    text = path.read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        name = match["name"].lower()
        quoted = match["quoted"]
        value = match["plain"] if quoted is None else re.sub(r"''|\\(.)", lambda m: m[1] or "'", quoted)
        if name not in ("include", "include_if_exists", "include_dir"):
            yield name, value
        elif depth < _DEEPEST:
            for included in _included(name, below(root, path.parent / value)):
                yield from _lines(included, root, depth + 1)


def _included(directive: str, target: Path) -> list[Path]:
    if directive == "include_dir":
        return sorted(file for file in target.glob("*.conf") if file.is_file() and not file.name.startswith("."))
    return [target] if target.is_file() else []
