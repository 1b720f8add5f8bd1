"""Dry runs: the same code as the change itself, up to the journal."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

# Whether the present call only wants to see. One call's, by the context that it runs in.
_dry_run: ContextVar[bool] = ContextVar("dry_run", default=False)


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
