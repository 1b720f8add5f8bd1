"""Volumes and snapshots for people: one as a card, many as a table."""

import json
from typing import Any

from scalarizr.cli.output import make_console, moment

SHOWN_AS_CARD = ("create", "snapshot", "detach", "grow", "replace_raid_disk")
# In this order; what else a type has follows under its own name.
_LABELS = {
    "device": "device",
    "mpoint": "mount point",
    "fstype": "file system",
    "mount_options": "mount options",
    "status": "status",
    "description": "description",
}
_IN_TITLE = ("id", "type", "size")
# Columns of a terminal that has room for times.
_WIDE = 110
_NOT_SHOWN = ("recreate_if_missing", "client_token")


def is_volume(value: Any) -> bool:
    """Tell whether a result is a volume or a snapshot."""
    return isinstance(value, dict) and isinstance(value.get("type"), str) and isinstance(value.get("id"), str)


def print_card(value: dict[str, Any]) -> None:
    """Print one volume or snapshot."""
    from rich import box
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    rows = [(label, _words(value[name])) for name, label in _LABELS.items() if value.get(name) not in (None, "")]
    for name, item in value.items():
        if name not in (*_LABELS, *_IN_TITLE, *_NOT_SHOWN) and item not in (None, "", False, [], {}):
            rows += _further(name, item)
    if "device" in value and value["device"] is None and value["type"] != "tmpfs":
        rows.insert(0, ("device", "none: it is detached"))
    grid = Table.grid(padding=(0, 2))
    for label, words in rows:
        grid.add_row(Text(label, style="dim"), Text(words, overflow="fold"))
    title = Text.assemble((value["id"], "bold"), f"  {value['type']}", *([f", {_size(value)}"] if _size(value) else []))
    make_console().print(Panel(grid, title=title, title_align="left", box=box.ROUNDED, expand=False))


def print_list(volumes: list[dict[str, Any]]) -> None:
    """Print what `storage.list` gives."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if not volumes:
        make_console().print("This agent has made no volume or snapshot yet.")
        return
    console = make_console()
    dated = console.width >= _WIDE
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("id", no_wrap=True)
    for column in ("type", "status", "size", "device", "mount point", *(["since"] if dated else [])):
        table.add_column(column, justify="right" if column == "size" else "left", overflow="fold")
    for volume in volumes:
        cells = [
            volume["id"] or "–",
            volume["type"] if volume["kind"] == "volume" else f"{volume['type']} {volume['kind']}",
            volume["status"],
            _size(volume) or "–",
            volume["device"] or "–",
            volume["mpoint"] or "–",
            *([moment(volume["changed_at"])] if dated else []),
        ]
        table.add_row(*(Text(cell, style="dim" if volume["status"] == "destroyed" else "") for cell in cells))
    console.print(table)


def _further(name: str, item: Any) -> list[tuple[str, str]]:
    label = name.replace("_", " ")
    if isinstance(item, list):
        return [(f"{label} {index}", _words(part)) for index, part in enumerate(item)]
    if isinstance(item, dict) and "id" not in item:
        return [(label, ", ".join(f"{key}={_words(part)}" for key, part in item.items()))]
    return [(label, _words(item))]


def _words(item: Any) -> str:
    if isinstance(item, dict) and isinstance(item.get("id"), str):
        return f"{item['id']} ({item['device']})" if item.get("device") else item["id"]
    return item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)


def _size(value: dict[str, Any]) -> str:
    size = value.get("size")
    return "" if size is None else f"{size:g} GB" if isinstance(size, int | float) else str(size)
