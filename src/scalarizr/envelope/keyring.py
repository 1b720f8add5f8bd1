"""All keys of a server: which of them a message may have been made with, without telling a stranger which there are.

Whoever names a key that is unknown, expired, switched off or used from elsewhere meets a key of nobody's in its place:
the same work is done, and the same refusal follows (WIRE.md: one text until the signature holds).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scalarizr.envelope.key import ServerKey, WeakKey
from scalarizr.settings.key_id import DEFAULT
from scalarizr.settings.key_rules import KeyRules

if TYPE_CHECKING:
    import ipaddress

PREVIOUS = ".previous"
NOBODY = "-"
_NONE: frozenset[str] = frozenset()
_REMEMBERED = 1024


class BadKey(Exception):
    """A key cannot be used; the text names its file and says why, without showing it.

    :ivar identity: its id.
    """

    def __init__(self, identity: str, text: str) -> None:
        super().__init__(text)
        self.identity = identity


class Offer(NamedTuple):
    """What a message is tried with.

    :ivar identity: the key's id; `-` where no such key is accepted.
    :ivar keys: as many as for any other id.
    :ivar problem: why nothing that they open may be accepted, for the log; None where it may.
    """

    identity: str
    keys: tuple[ServerKey, ...]
    problem: str | None


class NamedKey:
    """One key with what is laid down of it.

    :param identity: its id.
    :param rules: from where and until when it is accepted.
    :param key: the key.
    :param previous: the one before its last rotation, where that is still accepted.
    """

    def __init__(self, identity: str, rules: KeyRules, key: ServerKey, previous: ServerKey | None = None) -> None:
        self.identity = identity
        self.rules = rules
        self.key = key
        self.previous = previous
        self.enabled = rules.enabled
        self.expires = sys.float_info.max if rules.expires is None else rules.expires
        self.previous_until = rules.previous_until or 0.0
        self.networks = _networks(rules.sources)


class Keyring:
    """The keys that are accepted. Never changed: another one takes its place.

    :param keys: all of them.
    """

    def __init__(self, keys: Collection[NamedKey]) -> None:
        self._keys = {one.identity: one for one in keys}
        self._nobody = NamedKey(NOBODY, KeyRules(enabled=False), ServerKey(os.urandom(40)))
        # While one key has a predecessor, two are tried for every id, so that the time tells nothing of any.
        self._two = any(one.previous is not None for one in keys)
        if len(keys) > 1:
            # Derived now: the first message of a key takes no longer than those that follow, or one of nobody's.
            for one in (self._nobody, *keys):
                for key in filter(None, (one.key, one.previous)):
                    _ = key.mac, key.aes_gcm
        self._restricted = {one.identity: one.networks for one in keys if one.networks}
        self._refused_by_address: dict[str, frozenset[str]] = {}
        # The same answer for every message, where neither time nor place decide.
        self._always = {
            one.identity: Offer(one.identity, (one.key,), None)
            for one in keys
            if one.rules.enabled and one.rules.expires is None and not one.networks and not self._two
        }

    @property
    def identities(self) -> list[str]:
        """The ids of all keys, also of those that have expired."""
        return list(self._keys)

    def offer(self, identity: str | None, address: str, now: float) -> Offer:
        """Give what a message is to be tried with.

        :param identity: the id that it names; None for one that names none. Anything may come here: it is looked up,
            and nothing else.
        :param address: where it comes from.
        :param now: Unix time.
        """
        # Looked at for every id, or for none: how long it takes says nothing of the one that was named.
        elsewhere = self._not_from(address) if self._restricted else _NONE
        always = self._always.get(DEFAULT if identity is None else identity)
        if always is not None:
            return always
        named = self._keys.get(DEFAULT if identity is None else identity, self._nobody)
        if not named.enabled or now >= named.expires or named.identity in elsewhere:
            spare = self._nobody.key
            return Offer(named.identity, (spare, spare) if self._two else (spare,), self._problem(named, now))
        if not self._two:
            return Offer(named.identity, (named.key,), None)
        previous = named.previous if now < named.previous_until else None
        return Offer(named.identity, (named.key, previous or self._nobody.key), None)

    def _not_from(self, address: str) -> frozenset[str]:
        """Give the keys that are not accepted from an address; remembered for those that were seen lately."""
        refused = self._refused_by_address.get(address)
        if refused is None:
            if len(self._refused_by_address) >= _REMEMBERED:
                self._refused_by_address.clear()
            refused = frozenset(name for name, there in self._restricted.items() if not _is_within(address, there))
            self._refused_by_address[address] = refused
        return refused

    def _problem(self, named: NamedKey, now: float) -> str:
        if named is self._nobody:
            return "no such key"
        if not named.enabled:
            return "the key is switched off"
        return "the key has expired" if now >= named.expires else "the key is not accepted from this address"


def keys_directory(etc: Path) -> Path:
    """Give the directory of the keys, by the configuration directory."""
    return etc / "private.d" / "keys"


def key_file(directory: Path, default: Path, identity: str) -> Path:
    """Give the file of a key.

    :param directory: where the keys lie.
    :param default: the file of the key `default`, which a setting may put elsewhere.
    :param identity: its id, checked.
    """
    return default if identity == DEFAULT else directory / identity


def previous_file(path: Path) -> Path:
    """Give the file of the key before the last rotation, by the file of the present one."""
    return path.with_name(path.name + PREVIOUS)


def read_keyring(directory: Path, default: Path, rules: Mapping[str, KeyRules], now: float) -> Keyring:
    """Read all keys that have rules.

    :param directory: where they lie; see `key_file`.
    :param default: the file of the key `default`.
    :param rules: by id.
    :param now: Unix time: a predecessor whose time is over is not read.
    :raises BadKey: one cannot be read or is weak, or two ids have the same key.
    """
    keys = []
    owners: dict[bytes, str] = {}
    for identity, rule in rules.items():
        if identity == DEFAULT and not rule.enabled:
            continue
        path = key_file(directory, default, identity)
        key = _read(identity, path)
        overlaps = rule.previous_until is not None and now < rule.previous_until
        previous = _read(identity, previous_file(path)) if overlaps else None
        for one in (key, previous):
            # HMAC fills a key up with zero bytes: such as differ only in them are one.
            if one is not None and owners.setdefault(one.raw.rstrip(b"\0"), identity) != identity:
                raise BadKey(
                    identity,
                    f"{path}: {owners[one.raw.rstrip(bytes(1))]} has the same key as {identity}: give each its own "
                    f"(`scalarizr key rotate {identity}`)",
                )
        keys.append(NamedKey(identity, rule, key, previous))
    return Keyring(keys)


def _read(identity: str, path: Path) -> ServerKey:
    try:
        return ServerKey.from_file(path)
    except WeakKey as error:
        raise BadKey(identity, f"{path}: {error}") from None
    except OSError as error:
        raise BadKey(identity, f"{path}: the key cannot be read: {error.strerror}") from None


def _networks(sources: Collection[str]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    if not sources:
        return ()
    import ipaddress  # which most agents never need

    return tuple(ipaddress.ip_network(source) for source in sources)


def _is_within(address: str, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> bool:
    import ipaddress

    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a Unix socket has none
        return False
    mapped = getattr(parsed, "ipv4_mapped", None) or parsed
    return any(one in network for one in (parsed, mapped) for network in networks)
