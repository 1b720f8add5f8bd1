"""What the present call has made, by id: noted where it is made, read where the call's line is written."""

from contextvars import ContextVar

_made: ContextVar[dict[str, str] | None] = ContextVar("made_by_the_call", default=None)


def begin() -> None:
    """Let the present context be that of a call that has made nothing yet."""
    _made.set({})


def note(kind: str, identity: str) -> None:
    """Note that the present call made something; outside of a call nothing is noted.

    :param kind: `change_id` or `operation_id`.
    """
    made = _made.get()
    if made is not None:
        made[kind] = identity


def made() -> dict[str, str]:
    """Give what the present call has made: kind → id."""
    return _made.get() or {}
