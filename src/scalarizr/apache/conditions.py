"""What decides which parts of a configuration Apache reads: `<IfModule>`, `<IfDefine>` and `<IfVersion>`.

The rules are those of the server (https://httpd.apache.org/docs/2.4/mod/core.html#ifdefine,
https://httpd.apache.org/docs/2.4/mod/mod_version.html#ifversion).
"""

import re
from collections.abc import Callable
from operator import eq, ge, gt, le, lt
from typing import Any

import msgspec

from scalarizr.apache.syntax import Directive

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {"=": eq, "==": eq, ">": gt, ">=": ge, "<": lt, "<=": le}
_VERSION = re.compile(r"\d+(?:\.\d+){0,2}")


class Conditions(msgspec.Struct, frozen=True):
    """What a running Apache is, as its configuration may ask.

    :param modules: the loaded modules, such as `ssl_module`.
    :param defines: what is defined, by `-D` or `Define`.
    :param version: such as `2.4.62`; empty: unknown.
    """

    modules: frozenset[str] = frozenset()
    defines: frozenset[str] = frozenset()
    version: str = ""

    def hold_around(self, one: Directive) -> bool:
        """Tell whether the conditions around a directive hold; what cannot be told is taken to hold."""
        return all(self._holds(name, arguments.strip()) for name, arguments in one.within)

    def _holds(self, name: str, arguments: str) -> bool:
        negated = arguments.startswith("!")
        wanted = arguments.lstrip("!").strip().strip("\"'")
        if name == "ifmodule":
            # `ssl_module`, or the source file's name `mod_ssl.c`.
            source = f"{wanted.removeprefix('mod_').removesuffix('.c')}_module"
            return (wanted in self.modules or source in self.modules) != negated
        if name == "ifdefine":
            return (wanted in self.defines) != negated
        if name == "ifversion":
            answer = self._is_of_version(wanted)
            return answer is None or answer != negated
        return True

    def _is_of_version(self, asked: str) -> bool | None:
        words = asked.split(None, 1)
        operator, wanted = words if len(words) == 2 else ("=", asked)
        if not _VERSION.fullmatch(self.version):
            return None
        if operator == "~" or (operator in ("=", "==") and wanted.startswith("/")):
            try:
                return re.search(wanted.removeprefix("/").removesuffix("/"), self.version) is not None
            except re.error:
                return None
        if operator not in _OPERATORS or not _VERSION.fullmatch(wanted):
            return None
        return _OPERATORS[operator](_numbers(self.version), _numbers(wanted))


def _numbers(version: str) -> tuple[int, ...]:
    # What a version does not say of itself is 0.
    return tuple([*map(int, version.split(".")), 0, 0][:3])
