"""Reading `<etc>/keys.toml`: what each key may do, from where, and until when.

The keys themselves lie in `private.d/keys`. A file there is a key only where it has a section here; the one exception
is `default`, which may do everything unless a section says otherwise.
"""

import os
import re
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from scalarizr.errors import nearest
from scalarizr.settings.key_id import DEFAULT, EXPECTED, is_key_id
from scalarizr.settings.key_rules import EVERYTHING, FILE_NAME, READ_ONLY, KeyRules
from scalarizr.settings.load import BadSettings, hint, line_of, place, read_toml, shown

_PATTERN = re.compile(r"([a-z][a-z0-9_]*)\.(\*|[a-z][a-z0-9_]*)", re.ASCII)
_TEXTS = "a list of texts"
_MOMENT = "a moment with its zone, such as 2027-01-31T00:00:00Z"


def load_key_rules(etc: Path, namespaces: Collection[str], aliases: Mapping[str, str]) -> dict[str, KeyRules]:
    """Read the rules of all keys; `default` is always among them.

    :param namespaces: those that there are; a pattern that names another one is a mistake.
    :param aliases: other names of them, which patterns may use, too.
    :raises BadSettings: naming file, line, key and what was expected; also where others than the agent could have
        written the file.
    """
    path = etc / FILE_NAME
    _refuse_writable_by_others(path)
    text, data = read_toml(path)
    return {DEFAULT: KeyRules(), **check_key_rules(path, text, data, namespaces, aliases)}


def check_key_rules(
    path: Path, text: str, data: Mapping[str, Any], namespaces: Collection[str], aliases: Mapping[str, str]
) -> dict[str, KeyRules]:
    """Check what such a file says; parameters and errors as those of `load_key_rules`."""
    rules = {}
    for identity, content in data.items():
        line = line_of(text, identity, None) or line_of(text, "", identity)
        if not isinstance(content, dict):
            raise BadSettings(f"{place(path, line)}: {identity[:60]} stands outside of a key's section [ID].")
        if not is_key_id(identity):
            raise BadSettings(f"{place(path, line)}: [{identity[:80]}] is no id of a key, which is {EXPECTED}.")
        rules[identity] = _Section(path, text, identity, namespaces, aliases).read(content)
    return rules


class _Section:
    """One section, being read."""

    def __init__(
        self, path: Path, text: str, identity: str, namespaces: Collection[str], aliases: Mapping[str, str]
    ) -> None:
        self._path = path
        self._text = text
        self._id = identity
        self._namespaces = namespaces
        self._aliases = aliases

    def read(self, content: dict[str, Any]) -> KeyRules:
        known: dict[str, Callable[[str, object], Any]] = {
            "allow": self._patterns,
            "from": self._networks,
            "expires": self._moment,
            "made": self._moment,
            "previous_until": self._moment,
            "enabled": self._switch,
        }
        values: dict[str, Any] = {}
        for name, value in content.items():
            if name not in known:
                raise BadSettings(f"{self._where(name)} is nothing that a key has; {hint(name, list(known))}")
            values[{"from": "sources"}.get(name, name)] = known[name](name, value)
        if "allow" not in values and self._id != DEFAULT:
            raise BadSettings(
                f"{self._where(None)} lacks allow: what the key may call, such as "
                f'["{READ_ONLY}"], ["nginx.*", "system.uname"] or ["{EVERYTHING}"] for everything.'
            )
        return KeyRules(**values)

    def _where(self, name: str | None) -> str:
        line = (name and line_of(self._text, self._id, name)) or line_of(self._text, self._id, None)
        return f"{place(self._path, line)}: [{self._id}]" + (f" {name[:60]}" if name else "")

    def _bad(self, name: str, value: object, expected: str) -> BadSettings:
        words = str(value) if isinstance(value, datetime) else shown(value)
        return BadSettings(f"{self._where(name)}: got {words}, expected {expected}.")

    def _patterns(self, name: str, value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self._bad(name, value, _TEXTS)
        return tuple(dict.fromkeys(self._canonical(name, one) for one in value))

    def _canonical(self, name: str, pattern: str) -> str:
        if pattern in (EVERYTHING, READ_ONLY):
            return pattern
        match = _PATTERN.fullmatch(pattern)
        if match is None:
            raise self._bad(
                name, pattern, f'"namespace.method", "namespace.*", "{READ_ONLY}", or "{EVERYTHING}" for everything'
            )
        namespace = self._aliases.get(match[1], match[1])
        if namespace not in self._namespaces:
            close = nearest(match[1], [*self._namespaces, *self._aliases])
            there = f"{close}, perhaps" if close else f"one of {', '.join(self._namespaces)}"
            raise self._bad(name, pattern, f"a namespace that there is: {there}")
        return f"{namespace}.{match[2]}"

    def _networks(self, name: str, value: object) -> tuple[str, ...]:
        import ipaddress  # which most agents never need

        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self._bad(name, value, _TEXTS)
        if not value:
            raise self._bad(name, value, "at least one network; without the line it may be used from everywhere")
        networks = []
        for one in value:
            try:
                networks.append(str(ipaddress.ip_network(one)))
            except ValueError as error:
                raise self._bad(
                    name, one, f'an address or a network such as "10.0.0.0/8" or "2001:db8::/32" ({str(error)[:120]})'
                ) from None
        return tuple(networks)

    def _moment(self, name: str, value: object) -> float:
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise self._bad(name, value, _MOMENT)
        return value.timestamp()

    def _switch(self, name: str, value: object) -> bool:
        if not isinstance(value, bool):
            raise self._bad(name, value, "true or false")
        return value


def _refuse_writable_by_others(path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadSettings(f"{path}: cannot be read: {error.strerror}.") from error
    if status.st_mode & 0o022:
        raise BadSettings(
            f"{path}: others may write it (mode {status.st_mode & 0o7777:04o}), and it says who may do what: "
            "chmod 600 it."
        )
    if status.st_uid not in (0, os.geteuid()):
        raise BadSettings(f"{path}: belongs to user {status.st_uid}, and it says who may do what: chown it to root.")
