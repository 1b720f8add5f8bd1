"""The parameters of a call, from the words of a command line."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click


def read_parameters(words: Sequence[str], json_text: str | None, asked: Sequence[str]) -> dict[str, Any]:
    """Put a call's parameters together.

    :param words: `name=value`, where a value that parses as JSON is that, else a string; `name=@FILE` is what a file
        holds (a file that ends in `.json` is parsed).
    :param json_text: an object; `-` reads it from standard input.
    :param asked: names whose values are asked for, without echo.
    :raises UsageError: what came is no parameter, or a name comes twice.
    """
    parameters: dict[str, Any] = {}
    if json_text is not None:
        parameters = _object(sys.stdin.read() if json_text == "-" else json_text)
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{word!r} is no parameter: write name=value.")
        _add(parameters, name, _value(value))
    for name in asked:
        _add(parameters, name, click.prompt(name, hide_input=True, err=True))
    return parameters


def _add(parameters: dict[str, Any], name: str, value: Any) -> None:
    if name in parameters:
        raise click.UsageError(f"{name} is given twice.")
    parameters[name] = value


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"--params is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise click.UsageError("--params is no JSON object.")
    return value


def _value(text: str) -> Any:
    if text.startswith("@"):
        path = Path(text[1:])
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"{path}: {getattr(error, 'strerror', None) or 'is not UTF-8 text'}.") from None
        if path.suffix != ".json":
            return content
        try:
            return json.loads(content)
        except ValueError as error:
            raise click.UsageError(f"{path} is not JSON: {error}.") from None
    try:
        return json.loads(text)
    except ValueError:
        return text
