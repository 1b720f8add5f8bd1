"""How the present call wants its change: only shown, kept only if confirmed, or together with those of other calls."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from scalarizr.changes.journal import Record

_dry_run: ContextVar[bool] = ContextVar("dry_run", default=False)


class Terms(msgspec.Struct):
    """What a caller who wants to confirm asked for, and what became of it.

    :param within: seconds until the change reverts by itself.
    :param record: the change that waits; None where everything was so already and none does.
    """

    within: float
    record: "Record | None" = None


_terms: ContextVar[Terms | None] = ContextVar("confirmation_terms", default=None)


class DryRun(Exception):
    """Raised by a transaction in place of applying itself.

    :ivar preview: `{changes, valid, validator_output, services}` (API.md, `_dry_run`).
    """

    def __init__(self, preview: dict[str, Any]) -> None:
        super().__init__("dry run")
        self.preview = preview


def is_dry_run() -> bool:
    """Tell whether the present call only wants to see what would change."""
    return _dry_run.get()


def preview(function: Callable[[], Any]) -> dict[str, Any]:
    """Run a function so that its first transaction is only shown.

    :return: what it would change; no changes where it came to its end without any.
    """
    token = _dry_run.set(True)
    try:
        function()
    except DryRun as shown:
        return shown.preview
    finally:
        _dry_run.reset(token)
    return {"changes": [], "valid": True, "validator_output": "", "services": []}


def confirmation_terms() -> Terms | None:
    """Give what the present call asked for; None where its change needs no confirmation."""
    return _terms.get()


def confirmable(within: float, function: Callable[[], Any]) -> dict[str, Any]:
    """Run a function so that its change reverts by itself unless it is confirmed in time.

    :param within: seconds.
    :return: `{result, change_id, confirm_by}`; the last two of the change that waits where all was so already, null
        where none waits.
    """
    terms = Terms(within)
    token = _terms.set(terms)
    try:
        result = function()
    finally:
        _terms.reset(token)
    record = terms.record
    return {
        "result": result,
        "change_id": record.id if record else None,
        "confirm_by": record.confirmation.by if record and record.confirmation else None,
    }
