"""What a caller may call, and what of others' work it may see: never more than that.

Names are canonical here: aliases and paths were resolved before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING

import msgspec

from scalarizr.errors import UNCHANGED, PermissionRefused, ScalarizrError
from scalarizr.settings.key_rules import EVERYTHING, READ_ONLY

if TYPE_CHECKING:
    from scalarizr.rpc.registry import Method

# A key may always ask what it may call: the answer holds nothing else.
_SELF_DESCRIPTION = frozenset({"rpc.discover", "rpc.describe"})


class _Given(msgspec.Struct):
    """What was given, and what was decided by it: exchanged as one, since calls in threads ask meanwhile."""

    methods: frozenset[str]
    namespaces: frozenset[str]
    read_only: bool
    decided: dict[str, bool] = {}

    def grant(self, method: Method) -> bool:
        return (
            method.name in self.methods
            or method.name.partition(".")[0] in self.namespaces
            or (self.read_only and method.declaration.kind == "query")
        )

    def allow(self, method: Method) -> bool:
        decided = self.decided.get(method.name)
        if decided is None:
            decided = self.decided[method.name] = method.name in _SELF_DESCRIPTION or self.grant(method)
        return decided

    def reach(self, namespace: str) -> bool:
        return (
            self.read_only
            or namespace in self.namespaces
            or namespace == "rpc"
            or any(name.partition(".")[0] == namespace for name in self.methods)
        )


class Rights:
    """What one key may call.

    :param allow: `*`, `read-only`, `namespace.*`, `namespace.method`.
    :param find: gives a method by its name, as far as some rights allow it; None: others' work is never shown.
    :ivar unlimited: whether it may call everything.
    """

    def __init__(self, allow: Iterable[str] = (), find: Callable[[str, Rights], Method] | None = None) -> None:
        self._find = find
        self.become(allow)

    def become(self, allow: Iterable[str]) -> None:
        """Change them at once, for calls that wait, too; see the class."""
        patterns = frozenset(allow)
        self.unlimited = False
        self._given = _Given(
            methods=frozenset(one for one in patterns if not one.endswith("*")),
            namespaces=frozenset(one[:-2] for one in patterns if one.endswith(".*")),
            read_only=READ_ONLY in patterns,
        )
        self.unlimited = EVERYTHING in patterns

    def reach(self, namespace: str) -> bool:
        """Tell whether there may be a method in a namespace that they allow."""
        return self.unlimited or self._given.reach(namespace)

    def allow(self, method: Method) -> bool:
        """Tell whether they allow a method."""
        return self.unlimited or self._given.allow(method)

    def cover(self, namespace: str) -> bool:
        """Tell whether they allow all that there is in a namespace."""
        return self.unlimited or namespace in self._given.namespaces

    def show(self, names: str) -> bool:
        """Tell whether their holder may see what a call has done: where it may call that method itself.

        :param names: its name; several, with commas between, where calls were made together.
        """
        if self.unlimited or self._find is None:
            return self.unlimited
        try:
            # What every key may call is no reason to be shown who else did.
            return all(self._given.grant(self._find(name, self)) for name in names.split(", "))
        except ScalarizrError:
            return False


FULL_RIGHTS = Rights((EVERYTHING,))
NO_RIGHTS = Rights()


_present: ContextVar[Rights] = ContextVar("present_rights", default=NO_RIGHTS)


def present_rights() -> Rights:
    """Give what the caller of the present call may do; nothing, outside of a call."""
    return _present.get()


def set_rights(rights: Rights) -> None:
    """Put the caller's rights into the present context: for the dispatcher and the worker."""
    _present.set(rights)


def refusal(method: str) -> PermissionRefused:
    """Make the error of a call that is not allowed."""
    shown = method[:100]
    return PermissionRefused(f"This key may not call {shown}. {UNCHANGED}", {"method": shown})
