"""What Apache says of its live configuration (`apachectl -t -D DUMP_RUN_CFG` and its kin), read."""

import re
from pathlib import Path

import msgspec

from scalarizr.apache.conditions import Conditions

_INCLUDED = re.compile(r"^\s*\([^)]*\)\s+(?P<path>/.*)$", re.MULTILINE)
_DEFINED = re.compile(r"^Define: (?P<name>[^=\s]+)", re.MULTILINE)
_MODULE = re.compile(r"^ (?P<name>\w+_module) ", re.MULTILINE)


class RunConfig(msgspec.Struct, frozen=True):
    """What Apache makes of its configuration (`-D DUMP_RUN_CFG`).

    :param root: its ServerRoot.
    :param document_root: of the main server.
    :param error_log: of the main server; None: no file.
    :param pid_file: its pid file.
    :param user: user and group ids of its workers; None: unknown.
    """

    root: Path
    document_root: Path
    error_log: Path | None
    pid_file: Path
    user: tuple[int, int] | None


class Description(msgspec.Struct, frozen=True):
    """What Apache says of its live configuration.

    :param run: how it runs.
    :param files: all of its files.
    :param modules: the loaded modules, such as `ssl_module`.
    :param defines: what is defined, by `-D` or `Define`.
    :param version: such as `2.4.62`; empty: unknown.
    """

    run: RunConfig
    files: tuple[Path, ...]
    modules: frozenset[str]
    defines: frozenset[str] = frozenset()
    version: str = ""

    @property
    def conditions(self) -> Conditions:
        """What its configuration may ask of it."""
        return Conditions(self.modules, self.defines, self.version)


def read_description(text: str, config_dir: Path) -> Description:
    """Read what Apache said of its live configuration.

    :param config_dir: its ServerRoot where it says none.
    """

    def value(name: str) -> str | None:
        match = re.search(rf'^{name}: "?([^"\n]*?)"?$', text, re.MULTILINE)
        return match[1] if match else None

    def number(name: str) -> int | None:
        match = re.search(rf"^{name}: .*id=(\d+)", text, re.MULTILINE)
        return int(match[1]) if match else None

    root = Path(value("ServerRoot") or config_dir)
    log = value("Main ErrorLog") or ""
    user, group = number("User"), number("Group")
    return Description(
        RunConfig(
            root=root,
            document_root=root / (value("Main DocumentRoot") or ""),
            error_log=root / log if log and not log.startswith(("|", "syslog")) else None,
            pid_file=root / (value("PidFile") or "logs/httpd.pid"),
            user=(user, group) if user is not None and group is not None else None,
        ),
        tuple(Path(match["path"].strip()) for match in _INCLUDED.finditer(text)),
        frozenset(match["name"] for match in _MODULE.finditer(text)),
        frozenset(match["name"] for match in _DEFINED.finditer(text)),
    )
