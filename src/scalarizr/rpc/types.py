"""Checking a value from outside against an annotation, with the tolerances of WIRE.md and nothing else guessed.

Booleans may come as `0/1`, `"0"/"1"`, `"true"/"false"`; integers as decimal strings; lists as objects with the keys
`"0"` to `"n-1"`.
"""

import re
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

from scalarizr.errors import InvalidParameter
from scalarizr.secret import Secret

Check = Callable[[Any, str], Any]
_INTEGER = re.compile(r"-?[0-9]{1,40}", re.ASCII)
_BOOLEANS: dict[str, bool] = {"0": False, "1": True, "false": False, "true": True}
_SHOWN = 60


def shown(value: object) -> str:
    """Show a value from outside in an error: as JSON, short."""
    try:
        text = msgspec.json.encode(value).decode("utf-8", "replace")
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def words_of(annotation: Any) -> str:
    """Say in words what an annotation expects."""
    if annotation is Any:
        return "any value"
    if annotation is None or annotation is type(None):
        return "null"
    simple = {bool: "a boolean", int: "an integer", float: "a number", str: "a string", Secret: "a string"}
    if annotation in simple:
        return simple[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        words = [words_of(argument) for argument in arguments]
        # "a list, each an object, or null": what the last `or` belongs to.
        return (", or " if any(", " in one for one in words[:-1]) else " or ").join(words)
    if origin is Literal:
        return "one of " + ", ".join(msgspec.json.encode(choice).decode() for choice in arguments)
    if origin is list:
        return f"a list, each {words_of(arguments[0])}" if arguments[0] is not Any else "a list"
    if origin is tuple:
        return "a list of " + ", ".join(words_of(argument) for argument in arguments)
    return "an object"


def checker(annotation: Any) -> Check:
    """Build the check of an annotation.

    :param annotation: bool, int, float, str, Secret, Any, list[T], dict[str, T], tuple[T, …], Literal, or a union.
    :return: a function of a decoded JSON value and the parameter's path; gives the value as the method wants it.
    :raises TypeError: an annotation that no check is known for: a mistake in a declaration.
    """
    if annotation is Any:
        return lambda value, _path: value
    if annotation in _SIMPLE:
        return _SIMPLE[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _union(annotation, arguments)
    if origin is Literal:
        return _literal(annotation, arguments)
    if origin is list:
        return _list(annotation, checker(arguments[0]))
    if origin is tuple and Ellipsis not in arguments:
        return _tuple(annotation, [checker(argument) for argument in arguments])
    if annotation is dict or origin is dict:
        item = arguments[1] if arguments else Any
        return _mapping(annotation, None if item is Any else checker(item))
    if typing.is_typeddict(annotation):
        return _structure(annotation)
    raise TypeError(f"no check is known for the annotation {annotation!r}")


def _refuse(annotation: Any, value: Any, path: str) -> InvalidParameter:
    return InvalidParameter(path, None if _holds_secret(annotation) else shown(value), words_of(annotation))


def _holds_secret(annotation: Any) -> bool:
    inside = typing.get_type_hints(annotation).values() if typing.is_typeddict(annotation) else get_args(annotation)
    return annotation is Secret or any(map(_holds_secret, inside))


def as_boolean(value: Any) -> bool | None:
    """Give the boolean that a value from outside stands for; None where it stands for none."""
    if isinstance(value, bool):
        return value
    if type(value) is int and value in (0, 1):
        return value == 1
    return _BOOLEANS.get(value) if isinstance(value, str) else None


def _boolean(value: Any, path: str) -> bool:
    found = as_boolean(value)
    if found is None:
        raise _refuse(bool, value, path)
    return found


def _integer(value: Any, path: str) -> int:
    if type(value) is int:
        return value
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    raise _refuse(int, value, path)


def _number(value: Any, path: str) -> float:
    if type(value) is float:
        return value
    if type(value) is int and abs(value) < 1 << 1023:
        return float(value)
    raise _refuse(float, value, path)


def _string(value: Any, path: str) -> str:
    if isinstance(value, str):
        return value
    raise _refuse(str, value, path)


def _secret(value: Any, path: str) -> Secret:
    if isinstance(value, str):
        return Secret(value)
    raise InvalidParameter(path, None, "a string")


def _nothing(value: Any, path: str) -> None:
    if value is not None:
        raise _refuse(None, value, path)


_SIMPLE: dict[Any, Check] = {
    bool: _boolean,
    int: _integer,
    float: _number,
    str: _string,
    Secret: _secret,
    type(None): _nothing,
    None: _nothing,
}


def _union(annotation: Any, arguments: tuple[Any, ...]) -> Check:
    members = [(argument, checker(argument)) for argument in arguments]
    hidden = _holds_secret(annotation)
    exact = {bool: bool, int: int, float: float, str: str, Secret: str, type(None): type(None)}

    def check(value: Any, path: str) -> Any:
        # An exact type first: "1" for `int | str` is the string that it came as.
        for argument, member in members:
            if exact.get(argument) is type(value):
                return member(value, path)
        failures = []
        for argument, member in members:
            try:
                return member(value, path)
            except InvalidParameter as failure:
                if failure.facts["parameter"] != path:
                    failures.append(failure)  # a mistake deeper inside says more than one about the whole
                del argument
        if len(failures) == 1:
            raise failures[0]
        raise InvalidParameter(path, None if hidden else shown(value), words_of(annotation))

    return check


def _literal(annotation: Any, choices: tuple[Any, ...]) -> Check:
    def check(value: Any, path: str) -> Any:
        if isinstance(value, str | int) and value in choices:
            return value
        raise _refuse(annotation, value, path)

    return check


def _as_list(value: Any) -> list[Any] | None:
    """Take a list as it is, or out of an object with the keys "0" … "n-1" in any order (PHP's encoders make them)."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        try:
            return [value[str(index)] for index in range(len(value))]
        except KeyError:
            return None
    return None


def _list(annotation: Any, item: Check) -> Check:
    def check(value: Any, path: str) -> list[Any]:
        items = _as_list(value)
        if items is None:
            raise _refuse(annotation, value, path)
        return [item(one, f"{path}[{index}]") for index, one in enumerate(items)]

    return check


def _tuple(annotation: Any, members: list[Check]) -> Check:
    def check(value: Any, path: str) -> tuple[Any, ...]:
        items = _as_list(value)
        if items is None or len(items) != len(members):
            raise _refuse(annotation, value, path)
        return tuple(
            member(one, f"{path}[{index}]") for index, (member, one) in enumerate(zip(members, items, strict=True))
        )

    return check


def _structure(annotation: Any) -> Check:
    """Check an object whose keys are known.

    One that has a key `private` says by it itself whether the secrets in it are such: where it is false or missing,
    they are given as plain text.
    """
    hints = typing.get_type_hints(annotation)
    members = {name: checker(hint) for name, hint in hints.items()}

    def check(value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _refuse(annotation, value, path)
        for name in value:
            if name not in members:
                known = "one of " + ", ".join(members)
                raise InvalidParameter(f"{path}.{name[:60]}", "a key that this object does not have", known)
        for name in members:
            if name in annotation.__required_keys__ and name not in value:
                raise InvalidParameter(f"{path}.{name}", "nothing", words_of(hints[name]))
        checked = {name: members[name](one, f"{path}.{name}") for name, one in value.items()}
        if "private" in members and not checked.get("private"):
            checked = {name: one.reveal() if isinstance(one, Secret) else one for name, one in checked.items()}
        return checked

    return check


def _mapping(annotation: Any, item: Check | None) -> Check:
    def check(value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _refuse(annotation, value, path)
        return value if item is None else {name: item(one, f"{path}.{name[:60]}") for name, one in value.items()}

    return check
