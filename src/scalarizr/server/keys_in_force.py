"""The keys that the agent accepts now and what each may call: read together, put in force together, read again."""

import os
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from scalarizr.envelope.keyring import BadKey, Keyring, keys_directory, read_keyring
from scalarizr.rpc.registry import Method
from scalarizr.rpc.rights import Rights
from scalarizr.settings.key_id import DEFAULT
from scalarizr.settings.key_rules import FILE_NAME, KeyRules
from scalarizr.settings.load import BadSettings, where_set


class KeysInForce:
    """All keys of one agent.

    :param etc: its configuration directory.
    :param default: the file of the key `default`.
    :param namespaces: those that rules may name.
    :param aliases: other names of them.
    :param find: gives a method by its name, as far as some rights allow it.
    :ivar ring: the keys.
    :ivar rights: what each may call, by its id.
    :raises BadSettings: the rules or the keys cannot be used; naming the file, and what was expected.
    """

    def __init__(
        self,
        etc: Path,
        default: Path,
        namespaces: Collection[str],
        aliases: Mapping[str, str],
        find: Callable[[str, Rights], Method],
    ) -> None:
        self._etc = etc
        self._default = default
        self._namespaces = namespaces
        self._aliases = aliases
        self._find = find
        self.rights: dict[str, Rights] = {}
        self.ring: Keyring
        self.read()

    def read(self) -> None:
        """Read rules and keys, and put them in force: all of them, or where one is wrong none.

        Whoever is in the middle of a batch has the new rights for the rest of it, which are none where its key is gone.

        :raises BadSettings: what is in force stays.
        """
        rules = self._read_rules()
        try:
            ring = read_keyring(keys_directory(self._etc), self._default, rules, time.time())
        except BadKey as error:
            raise BadSettings(f"{error}{self._advice(error.identity)}.") from None
        self._put_in_force(rules, ring)

    def _read_rules(self) -> dict[str, KeyRules]:
        if not os.path.lexists(self._etc / FILE_NAME):
            return {DEFAULT: KeyRules()}
        from scalarizr.settings.keys import load_key_rules  # who has one key alone does without

        return load_key_rules(self._etc, self._namespaces, self._aliases)

    def _put_in_force(self, rules: Mapping[str, KeyRules], ring: Keyring) -> None:
        old = self.rights
        self.rights = {identity: old.get(identity) or Rights((), self._find) for identity in ring.identities}
        self.ring = ring
        for identity, rights in old.items():
            if identity not in self.rights:
                rights.become(())
        for identity, rights in self.rights.items():
            rights.become(rules[identity].allow if rules[identity].enabled else ())

    def _advice(self, identity: str) -> str:
        if identity != DEFAULT:
            return ""
        return (
            "; `scalarizr init` makes a good one where there is none. "
            f"It is named by {where_set(self._etc, 'paths', 'key')}"
        )
