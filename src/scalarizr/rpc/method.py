"""Declaring a method, once: its kind in a decorator, its parameters in annotations, its words in the docstring.

Everything else derives from that: parameter checking, `rpc.discover`, the command line's help and the reference.
A parameter whose wire name is a Python keyword carries a trailing underscore (`async_`).
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, overload

import msgspec

Function = TypeVar("Function", bound=Callable[..., Any])
Resource = str | Callable[[Mapping[str, Any]], str]

_ATTRIBUTE = "__rpc__"


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """What a decorator says of a method.

    :param kind: `query` reads; `command` changes something, one at a time per resource; `operation` is a command that
        takes long: recorded, run in a worker process, waited for or not (`async`).
    :param inline: a query that never waits for anything and returns within a millisecond runs on the event loop
        itself; all others run in a thread.
    :param resource: of a command or operation: what it holds while it runs; a name, or a function of the checked
        parameters that gives it.
    :param together: a command whose calls, where several wait at once, may be made as one change.
    :param dry_run: whether it takes `_dry_run` (and `_confirm_within`).
    :param limit: seconds after which the caller gets an error; None for operations.
    """

    kind: Literal["query", "command", "operation"]
    inline: bool = False
    resource: Resource = ""
    dry_run: bool = False
    together: bool = False
    limit: float | None = None


@overload
def query(function: Function, /) -> Function: ...
@overload
def query(*, inline: bool = False, limit: float = 30) -> Callable[[Function], Function]: ...
def query(
    function: Function | None = None, /, *, inline: bool = False, limit: float = 30
) -> Function | Callable[[Function], Function]:
    """Declare a method that reads."""
    mark = _marker(Declaration(kind="query", inline=inline, limit=limit))
    return mark if function is None else mark(function)


def command(
    *, resource: Resource, dry_run: bool = False, together: bool = False, limit: float = 120
) -> Callable[[Function], Function]:
    """Declare a method that changes something quickly."""
    return _marker(Declaration(kind="command", resource=resource, dry_run=dry_run, together=together, limit=limit))


def operation(*, resource: Resource, dry_run: bool = False) -> Callable[[Function], Function]:
    """Declare a method that changes something and may take long; its signature ends with `async_: bool = False`."""
    return _marker(Declaration(kind="operation", resource=resource, dry_run=dry_run))


def declaration_of(function: object) -> Declaration | None:
    """Give what was declared of a function, or None for one that is no method of the API."""
    return getattr(function, _ATTRIBUTE, None)


def _marker(declaration: Declaration) -> Callable[[Function], Function]:
    def mark(function: Function) -> Function:
        setattr(function, _ATTRIBUTE, declaration)
        return function

    return mark
