"""What a command prints: JSON for programs, tables and trees for people."""

import base64
import binascii
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import click

_BYTES, _KILOBYTES = "bytes", "kB"
# What the numbers under these names count; everything else is printed as it is.
_UNITS = {
    "bytes": _BYTES,
    "total": _KILOBYTES,
    "free": _KILOBYTES,
    **dict.fromkeys(
        ("total_swap", "avail_swap", "total_real", "total_free", "shared", "buffer", "cached", "available"), _KILOBYTES
    ),
}
_LOGS = ("system.get_log", "system.get_debug_log", "system.get_update_log")
# What a call with `--confirm-within` gives.
_CONFIRMABLE = {"result", "change_id", "confirm_by"}
_LONGEST_DIFF = 300
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


def for_people(as_json: bool) -> bool:
    """Tell whether a person looks at standard output."""
    return not as_json and sys.stdout.isatty()


def print_json(value: Any) -> None:
    """Print one line of JSON, members in the agent's order."""
    click.echo(json.dumps(value, ensure_ascii=False))


def print_result(method: str, value: Any, *, as_json: bool, options: str = "") -> None:
    """Print a call's result.

    :param method: `namespace.method`: some results are known to be logs or sizes.
    :param options: with which a further command reaches the same agent.
    """
    if not for_people(as_json):
        print_json(value)
    elif isinstance(value, dict) and value.keys() == _CONFIRMABLE:
        print_result(method, value["result"], as_json=as_json)
        _print_waiting(value, options)
    elif method in _LOGS and isinstance(value, str):
        click.echo(_decoded(value), nl=False)
    elif method == "system.get_script_logs" and isinstance(value, dict):
        for stream, text in value.items():
            click.secho(f"── {stream}", bold=True, color=colours())
            click.echo(_decoded(text))
    elif method.startswith("storage.") and _print_storage(method, value):
        pass
    elif isinstance(value, str):
        click.echo(value)
    elif value is None:
        click.echo("done")
    elif isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        click.echo("\n".join(value))
    elif isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        print_json(value)
    elif isinstance(value, dict | list) and value:
        _print_rich(value)
    else:
        print_json(value)


def print_preview(preview: dict[str, Any], *, as_json: bool) -> None:
    """Print what a dry run would have changed: a coloured diff of each file, and what it comes to."""
    if not for_people(as_json):
        print_json(preview)
        return
    print_file_changes(preview["changes"])
    said = preview.get("validator_output", "").strip()
    if not preview.get("valid", True):
        click.secho("The call would be refused, for the result is not valid:", fg="red", color=colours())
        click.echo(said)
        return
    if said:
        click.echo(f"{said}\n")
    if not preview["changes"]:
        click.echo("Nothing would change: everything is so already.")
        return
    steps = [f"{service['action']} {service['name']}" for service in preview.get("services", [])]
    would = listed([*counted(preview["changes"], ("create", "modify", "delete")), *steps])
    click.echo(f"Nothing was changed. The result is valid; the call would {would}.")


def print_file_changes(changes: Sequence[dict[str, Any]]) -> None:
    """Print what is done to files: `{path, action, diff}` each."""
    for change in changes:
        click.secho(f"{change['action']} {change['path']}", bold=True, color=colours())
        _print_diff(change["diff"])
        click.echo()


def counted(changes: Sequence[dict[str, Any]], words: tuple[str, str, str]) -> list[str]:
    """Say how many files are made, changed and removed, with a verb for each."""
    numbers = Counter(change["action"] for change in changes)
    found = [
        (verb, numbers[action])
        for verb, action in zip(words, ("create", "modify", "delete"), strict=True)
        if numbers[action]
    ]
    return [
        f"{verb} {number}" + (f" file{'' if number == 1 else 's'}" if not place else "")
        for place, (verb, number) in enumerate(found)
    ]


def listed(words: Sequence[str]) -> str:
    """Write words as one list: `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def moment(seconds: float) -> str:
    """Write a moment in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def deadline(seconds: float) -> str:
    """Write until when something waits, and how long that still is."""
    left = max(round(seconds - time.time()), 0)
    today = time.localtime(seconds)[:3] == time.localtime()[:3]
    when = time.strftime("%H:%M:%S", time.localtime(seconds)) if today else moment(seconds)
    return f"{when} ({left} s)" if left < 120 else f"{when} ({left // 60} min)"


def _print_waiting(made: dict[str, Any], options: str) -> None:
    identity = made["change_id"]
    if identity is None:
        click.echo(
            "Everything was so already: this call left nothing to confirm. `scalarizr changes` shows what waits."
        )
        return
    click.secho(
        f"The change {identity} is taken back at {deadline(made['confirm_by'])} unless you confirm it:",
        fg="yellow",
        color=colours(),
    )
    click.echo(f"  scalarizr changes confirm {identity}{options}")


def _print_diff(diff: str) -> None:
    """Print a unified diff of a file whose name was printed already, coloured where that is wanted."""
    colour = {"+": "green", "-": "red", "@": "cyan"}
    lines = diff.split("\n")[:-1]
    if len(lines) > 2 and lines[0].startswith("--- ") and lines[1].startswith("+++ "):
        del lines[:2]
    for line in lines[:_LONGEST_DIFF]:
        # What a file holds does not get to move the cursor about.
        shown = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", line)
        click.secho(shown, fg=colour.get(line[:1]), color=colours())
    if len(lines) > _LONGEST_DIFF:
        click.echo(f"… {len(lines) - _LONGEST_DIFF} more lines; --json prints them all.")


def colours() -> bool | None:
    """Tell whether to colour (https://no-color.org); None leaves it to whether this is a terminal."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def human_size(amount: float) -> str:
    """Write a number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def make_console(*, to_stderr: bool = False) -> Any:
    """Make a rich console that respects NO_COLOR and dumb terminals: no escape sequence for how a text looks."""
    from rich.console import Console

    return Console(stderr=to_stderr, highlight=False, color_system=None if colours() is False else "auto")


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return text


def _print_storage(method: str, value: Any) -> bool:
    """Print a result of the namespace `storage` that has a form of its own; tells whether it has."""
    from scalarizr.cli import volumes

    name = method.removeprefix("storage.")
    if name == "list" and isinstance(value, list):
        volumes.print_list(value)
    elif name in volumes.SHOWN_AS_CARD and volumes.is_volume(value):
        volumes.print_card(value)
    else:
        return False
    return True


def _print_rich(value: Any) -> None:
    console = make_console()
    rows = _rows(value)
    console.print(_tree_of(value) if rows is None else _table_of(rows))


def _rows(value: Any) -> list[dict[str, Any]] | None:
    """Take a value as rows of a table: a list of objects, an object of objects; None where it is neither."""
    if isinstance(value, list) and all(isinstance(item, dict) and not _is_deep(item) for item in value):
        return list(value)
    if isinstance(value, dict) and all(
        isinstance(item, dict | None) and not _is_deep(item or {}) for item in value.values()
    ):
        return [{"": name, **(_flat(item) if item else {})} for name, item in value.items()]
    if isinstance(value, dict) and not any(isinstance(item, dict | list) for item in value.values()):
        return [{"name": name, "value": _shown(name, item)} for name, item in value.items()]
    return None


def _is_deep(item: dict[str, Any]) -> bool:
    return any(
        isinstance(member, list)
        or (isinstance(member, dict) and any(isinstance(x, dict | list) for x in member.values()))
        for member in item.values()
    )


def _flat(item: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, member in item.items():
        if isinstance(member, dict):
            flat.update({f"{name} {inner}": value for inner, value in member.items()})
        else:
            flat[name] = member
    return flat


def _table_of(rows: list[dict[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table

    rows = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if len(columns) > 12:  # too wide for any terminal: each row as a block of its own
        return _tree_of(rows)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        numeric = all(isinstance(row.get(column), int | float | None) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_shown(column, row.get(column)) for column in columns))
    return table


def _tree_of(value: Any, label: str = "") -> Any:
    from rich.markup import escape
    from rich.tree import Tree

    tree = Tree(escape(label), hide_root=not label)
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for name, item in entries:
        if isinstance(item, dict | list) and item:
            tree.add(_tree_of(item, str(name)))
        else:
            tree.add(f"[dim]{escape(str(name))}[/dim] {escape(_shown(str(name), item))}")
    return tree


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "–"
    unit = _UNITS.get(name.rpartition(" ")[2])
    if unit and isinstance(value, int) and not isinstance(value, bool):
        return human_size(value * (1024 if unit == _KILOBYTES else 1))
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
