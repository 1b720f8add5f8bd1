"""How a call ended, for whoever keeps account of calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from scalarizr.errors import ScalarizrError
    from scalarizr.rpc.call import Caller
    from scalarizr.rpc.registry import Method


class CallEnd(NamedTuple):
    """One call that has ended.

    :ivar name: what was called: the canonical name where there is such a method.
    :ivar method: the method; None where there is none of that name.
    :ivar caller: who called.
    :ivar arguments: what it was called with, secrets as `Secret`; None where that could not be read.
    :ivar terms: `dry_run` and `confirm_within`, where the call had them.
    :ivar goes_on: whether it was answered while its operation goes on.
    :ivar seconds: how long it took.
    :ivar error: why it failed, in words without secrets.
    """

    name: str
    method: Method | None
    caller: Caller
    arguments: dict[str, Any] | None
    terms: dict[str, Any]
    goes_on: bool
    seconds: float
    error: ScalarizrError | None


class Account(Protocol):
    """Keeps account of calls."""

    def call_ended(self, end: CallEnd) -> None:
        """Note how a call ended; called in the call's own context."""
