"""`scalarizr operations`: long work, seen from outside."""

import time
from typing import Any

import click

from scalarizr.cli.follow import follow
from scalarizr.cli.output import for_people, make_console, print_json, print_result
from scalarizr.cli.target import Target, chosen_etc, connected, target_options


@click.group(invoke_without_command=True)
@click.pass_context
def operations(context: click.Context) -> None:
    """Show, follow and cancel operations. Without a command: list them."""
    if context.invoked_subcommand is None:
        context.invoke(list_operations, etc=chosen_etc(context))


@operations.command(name="list")
@click.option("--status", type=click.Choice(["new", "in-progress", "completed", "failed", "canceled"]))
@click.option("--name", metavar="NAMESPACE.METHOD")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on a terminal, too.")
@target_options
def list_operations(
    target: Target, status: str | None = None, name: str | None = None, limit: int = 100, as_json: bool = False
) -> None:
    """List operations, newest first."""
    with connected(target) as client:
        records = client.call("operation.list", status=status, name=name, limit=limit)
    if not for_people(as_json):
        print_json(records)
        return
    if not records:
        click.echo("There are no operations.")
        return
    from rich import box
    from rich.table import Table

    table = Table("id", "name", "status", "started", "took", "progress", box=box.SIMPLE_HEAD, pad_edge=False)
    for record in records:
        table.add_row(
            record["id"], record["name"], record["status"], _moment(record), _duration(record), _progress(record)
        )
    make_console().print(table)


@operations.command()
@click.argument("operation_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on a terminal, too.")
@target_options
def show(operation_id: str, as_json: bool, target: Target) -> None:
    """Show an operation's record."""
    with connected(target) as client:
        record = client.call("operation.result", operation_id=operation_id)
    print_result("operation.result", record, as_json=as_json)


@operations.command()
@click.argument("operation_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on a terminal, too.")
@target_options
def cancel(operation_id: str, as_json: bool, target: Target) -> None:
    """Ask an operation to stop; it undoes what it has begun."""
    with connected(target) as client:
        record = client.call("operation.cancel", operation_id=operation_id)
    if for_people(as_json):
        click.echo(f"{record['name']} {operation_id}: {record['status']}")
    else:
        print_json(record)


@operations.command(name="follow")
@click.argument("operation_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on a terminal, too.")
@target_options
def follow_operation(operation_id: str, as_json: bool, target: Target) -> None:
    """Show an operation's lines and progress to its end, then its result."""
    with connected(target) as client:
        name = client.call("operation.result", operation_id=operation_id)["name"]
        result = follow(client, operation_id)
    print_result(name, result, as_json=as_json)


def _moment(record: dict[str, Any]) -> str:
    started = record.get("started_at")
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started)) if started else "–"


def _duration(record: dict[str, Any]) -> str:
    if not record.get("started_at"):
        return "–"
    return f"{(record.get('finished_at') or time.time()) - record['started_at']:.1f} s"


def _progress(record: dict[str, Any]) -> str:
    if record.get("error"):
        return str(record["error"])
    progress = record.get("progress") or {}
    percent = f"{progress['percent']:.0f} % " if progress.get("percent") is not None else ""
    return f"{percent}{progress.get('step', '')}"
