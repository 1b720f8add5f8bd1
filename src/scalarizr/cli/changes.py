"""`scalarizr changes`: the history of configuration changes, with its diffs, and the way back."""

import time
from typing import Any

import click

from scalarizr.cli.output import colours, counted, deadline, for_people, listed, moment, print_file_changes, print_json
from scalarizr.cli.target import Target, chosen_etc, connected, target_options

_COLOURS = {"waiting": "yellow", "conflict": "red", "failed": "red"}
_WENT_BACK = ("change.revert", "change.expire")
_PROGRAMS = ("nginx", "apache")
_HALF_A_YEAR = 182 * 86400


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
    listed_changes = _call(target, "change.list", limit=limit)
    if not for_people(as_json):
        print_json(listed_changes)
        return
    if not listed_changes:
        click.echo("There are no changes.")
        return
    width = max(len(change["id"]) for change in listed_changes)
    click.secho(f"{'id':{width}}  {'when':12}  {'status':8}  files  method", bold=True, color=colours())
    for change in listed_changes:
        # What took another change back counts as taken back itself, which says little to a person.
        word = "done" if _took_back(change) else change["status"]
        status = click.style(f"{word:8}", fg=_COLOURS.get(word))
        rest = f"{len(change['files']):5}  {change['method']}"
        click.echo(f"{change['id']:{width}}  {_short(change['time'])}  {status}  {rest}", color=colours())
    for change in listed_changes:
        if change["status"] == "waiting":
            click.echo(f"\n{change['id']} {_state_of(change)}")


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
    click.secho(f"{change['method']} on {moment(change['time'])}", bold=True, color=colours())
    did = listed(counted(change["files"], ("created", "modified", "deleted")))
    click.echo(f"It {did}. It {_state_of(change)}\n")
    print_file_changes(change["files"])


@changes.command()
@click.argument("change_id", metavar="ID")
@click.option("--no-reload", is_flag=True, help="Leave the running service alone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on a terminal, too.")
@target_options
def revert(change_id: str, no_reload: bool, as_json: bool, target: Target) -> None:
    """Put the files back as they were before a change."""
    done = _call(target, "change.revert", id=change_id, reload=not no_reload)
    if not for_people(as_json):
        print_json(done)
        return
    number = len(done["files"])
    files = "Its file is as it was" if number == 1 else f"Its {number} files are as they were"
    service = f", and {done['service']} runs with that" if done["service"] in _PROGRAMS and not no_reload else ""
    click.echo(f"The change {change_id} was taken back. {files} before it{service}.")


@changes.command()
@click.argument("change_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on a terminal, too.")
@target_options
def confirm(change_id: str, as_json: bool, target: Target) -> None:
    """Keep a change that waits for confirmation."""
    kept = _call(target, "change.confirm", id=change_id)
    if for_people(as_json):
        click.echo(f"The change {change_id} ({kept['method']}) is kept.")
    else:
        print_json(kept)


def _short(seconds: float) -> str:
    """Write a moment in local time as `ls -l` does, in twelve characters."""
    is_recent = abs(time.time() - seconds) < _HALF_A_YEAR
    return time.strftime("%b %e %H:%M" if is_recent else "%b %e  %Y", time.localtime(seconds))


def _took_back(change: dict[str, Any]) -> bool:
    return change["method"] in _WENT_BACK and change["status"] == "reverted"


def _state_of(change: dict[str, Any]) -> str:
    if change["status"] == "waiting":
        return f"waits for its confirmation until {deadline(change['confirm_by'])}; without it, it is taken back."
    if _took_back(change):
        return "took another change back."
    return {
        "applied": "is in force, as far as no later change touched its files.",
        "reverted": "was taken back.",
        "conflict": "was taken back, except for what somebody had edited since; the agent's log names it.",
        "failed": "was cut off, and undone.",
    }.get(change["status"], f"is {change['status']}.")


def _call(target: Target, method: str, **arguments: Any) -> Any:
    with connected(target) as client:
        return client.call(method, **arguments)
