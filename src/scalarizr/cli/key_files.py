"""Making, rotating and revoking keys: their files and what is laid down of them, changed so that a crash at any instant
leaves either the old state or the new one."""

import contextlib
import os
import re
import stat
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scalarizr.api.namespaces import ALIASES, NAMESPACES
from scalarizr.envelope.key import make_key_text
from scalarizr.envelope.keyring import key_file, keys_directory, previous_file
from scalarizr.errors import AlreadyExists, InvalidParameter, NotFound, Refused, ScalarizrError
from scalarizr.host.files import fsync_directory, make_private_directory, write_file
from scalarizr.host.locks import locked
from scalarizr.settings.key_id import DEFAULT, EXPECTED, is_key_id
from scalarizr.settings.key_rules import FILE_NAME, KeyRules
from scalarizr.settings.keys import check_key_rules, load_key_rules
from scalarizr.settings.keys_file import add_section, moment, remove_section, set_value
from scalarizr.settings.load import BadSettings
from scalarizr.settings.model import Settings


class KeyFiles:
    """All keys of one configuration directory.

    :param etc: the directory.
    :param settings: its settings.
    """

    def __init__(self, etc: Path, settings: Settings) -> None:
        assert settings.paths.key is not None
        self._rules_file = etc / FILE_NAME
        self._etc = etc
        self._directory = keys_directory(etc)
        self._default = settings.paths.key

    def rules(self) -> dict[str, KeyRules]:
        """Give what is laid down of each key.

        :raises BadSettings: the file is not right.
        """
        return load_key_rules(self._etc, NAMESPACES, ALIASES)

    def file_of(self, identity: str) -> Path:
        """Give the file of a key."""
        return key_file(self._directory, self._default, identity)

    def add(self, identity: str, allow: Sequence[str], sources: Sequence[str], expires: float | None) -> KeyRules:
        """Make a key.

        :raises InvalidParameter: the id, or what it shall be allowed, is none.
        :raises AlreadyExists: there is such a key, or a file in its place.
        """
        if not is_key_id(identity):
            raise InvalidParameter("ID", repr(identity[:80]), EXPECTED)
        with self._changing() as text:
            path = self.file_of(identity)
            if identity in self.rules() or os.path.lexists(path):
                raise AlreadyExists(f"{path} is there already, left as it is. `scalarizr key rotate` renews a key.")
            now = time.time()
            values: dict[str, Any] = {"allow": list(allow)}
            if sources:
                values["from"] = list(sources)
            if expires is not None:
                values["expires"] = moment(expires)
            values["made"] = moment(now)
            changed = add_section(text, identity, values)
            rules = self._checked(changed, identity)
            _write_key(path)
            self._write_rules(changed)
            return rules

    def rotate(self, identity: str, overlap: float) -> KeyRules:
        """Put a new key in the place of a key.

        :param overlap: seconds in which the old one is accepted, too; 0: not any more.
        :raises NotFound: there is no such key.
        :raises Refused: an earlier rotation's time is not over.
        """
        with self._changing() as text:
            rules = self._known(identity)
            now = time.time()
            earlier = rules.previous_until
            if overlap and earlier is not None and now < earlier:
                raise Refused(
                    f"The predecessor of {identity} is accepted until {moment(earlier):%F %T} UTC, and a key has one "
                    "at most. Nothing was changed; wait, or rotate with --overlap 0, which ends both old keys at once."
                )
            path = self.file_of(identity)
            previous = previous_file(path)
            if overlap:
                write_file(previous, path.read_bytes(), mode=0o600)
            until = moment(now + overlap) if overlap else None
            if identity not in tomllib.loads(text):
                text = add_section(text, identity, {})
            changed = set_value(set_value(text, identity, "previous_until", until), identity, "made", moment(now))
            rules = self._checked(changed, identity)
            # Until the key itself is replaced its predecessor is its equal, or is accepted no more.
            self._write_rules(changed)
            _write_key(path)
            if not overlap:
                _remove(previous)
            return rules

    def revoke(self, identity: str) -> None:
        """End a key, and remove it.

        :raises NotFound: there is no such key.
        """
        with self._changing() as text:
            self._known(identity)
            if identity != DEFAULT:
                changed = remove_section(text, identity)
            else:
                # Without a word about it the default key would be accepted as soon as there is one again.
                there = identity in tomllib.loads(text)
                changed = set_value(text if there else add_section(text, identity, {}), identity, "enabled", False)
            self._write_rules(changed)
            path = self.file_of(identity)
            _remove(path)
            _remove(previous_file(path))

    @contextlib.contextmanager
    def _changing(self) -> Iterator[str]:
        """Be the only one who changes keys; gives the text of the rules, which are right."""
        make_private_directory(self._directory.parent)
        make_private_directory(self._directory)
        with locked(self._directory.parent / "keys.lock", what="the keys", timeout=10):
            self.rules()
            yield self._rules_file.read_text(encoding="utf-8") if self._rules_file.exists() else ""

    def _known(self, identity: str) -> KeyRules:
        rules = self.rules()
        if identity not in rules or (identity == DEFAULT and not rules[identity].enabled):
            there = ", ".join(name for name, rule in rules.items() if rule.enabled or name != DEFAULT)
            raise NotFound(f"There is no key {identity[:80]}; there are: {there or 'none'}.")
        return rules[identity]

    def _checked(self, text: str, identity: str) -> KeyRules:
        try:
            data: Mapping[str, Any] = tomllib.loads(text)
            rules = check_key_rules(self._rules_file, text, data, NAMESPACES, ALIASES)[identity]
        except BadSettings as error:
            # What is wrong is what the command was told, and the line that it names was never written.
            raise ScalarizrError(re.sub(r"^.*?, line \d+: \[[^]]*\] ", "--", str(error))) from None
        _check_methods(rules.allow)
        return rules

    def _write_rules(self, text: str) -> None:
        write_file(self._rules_file, text.encode(), mode=0o600)


def kinds_of(allow: Sequence[str]) -> dict[str, str]:
    """Give the kind (`query`, `command`, `operation`) of each method that is allowed by its own name."""
    from scalarizr.rpc.method import declaration_of

    kinds: dict[str, str] = {}
    for name in allow:
        namespace, _, method = name.partition(".")
        if method and method != "*":
            declaration = declaration_of(getattr(_class_of(namespace), method, None))
            if declaration is not None:
                kinds[name] = declaration.kind
    return kinds


def _check_methods(allow: Sequence[str]) -> None:
    import difflib

    from scalarizr.rpc.method import declaration_of

    known = kinds_of(allow)
    for name in allow:
        namespace, _, method = name.partition(".")
        if method and method != "*" and name not in known:
            kind = _class_of(namespace)
            methods = [one for one in dir(kind) if declaration_of(getattr(kind, one))]
            close = difflib.get_close_matches(method, methods, 1)
            raise InvalidParameter(
                "--allow", name, f"{namespace}.{close[0]}, perhaps" if close else f"one of {', '.join(methods)}"
            )


def _class_of(namespace: str) -> type:
    import importlib

    module, _, name = NAMESPACES[namespace].partition(":")
    kind: type = getattr(importlib.import_module(module), name)
    return kind


def _write_key(path: Path) -> None:
    write_file(path, make_key_text(), mode=0o600)


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        fsync_directory(path.parent)


def problem_of(path: Path) -> str | None:
    """Tell what is wrong with a key's file; None where nothing is."""
    from scalarizr.envelope.key import ServerKey, WeakKey

    try:
        ServerKey.from_file(path)
        mode = stat.S_IMODE(path.stat().st_mode)
    except WeakKey as error:
        return str(error)
    except OSError as error:
        return str(error.strerror)
    return f"readable by others (mode {mode:04o}): chmod 600 it, and rotate it" if mode & 0o077 else None
