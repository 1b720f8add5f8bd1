"""`scalarizr changes`: the history of configuration changes, with its diffs, and the way back."""

from typing import Any

import click

from scalarizr.cli.output import for_people, print_diff, print_json, print_result
from scalarizr.cli.target import Target, chosen_etc, connected, target_options


@click.group(invoke_without_command=True)
@click.pass_context
def changes(context: click.Context) -> None:
    """Show, confirm and revert configuration changes. Without a command: list them."""
    if context.invoked_subcommand is None:
        context.invoke(list_changes, etc=chosen_etc(context))


@changes.command(name="list")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on a terminal, too.")
@target_options
def list_changes(target: Target, limit: int = 50, as_json: bool = False) -> None:
    """List changes, newest first."""
    print_result("change.list", _call(target, "change.list", limit=limit), as_json=as_json)


@changes.command()
@click.argument("change_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on a terminal, too.")
@target_options
def show(change_id: str, as_json: bool, target: Target) -> None:
    """Show a change with the diff of each file."""
    change = _call(target, "change.show", id=change_id)
    if not for_people(as_json):
        print_json(change)
        return
    click.secho(f"{change['id']} {change['method']} {change['status']}", bold=True)
    for file in change["files"]:
        if isinstance(file, dict):
            print_diff(file.get("diff", ""))


@changes.command()
@click.argument("change_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on a terminal, too.")
@target_options
def revert(change_id: str, as_json: bool, target: Target) -> None:
    """Put the files back as they were before a change."""
    print_result("change.revert", _call(target, "change.revert", id=change_id), as_json=as_json)


@changes.command()
@click.argument("change_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on a terminal, too.")
@target_options
def confirm(change_id: str, as_json: bool, target: Target) -> None:
    """Keep a change that waits for confirmation."""
    print_result("change.confirm", _call(target, "change.confirm", id=change_id), as_json=as_json)


def _call(target: Target, method: str, **arguments: Any) -> Any:
    with connected(target) as client:
        return client.call(method, **arguments)
