"""`scalarizr maintenance`: while somebody works on the server, the agent answers queries and changes nothing."""

import time
from pathlib import Path

import click
import msgspec

from scalarizr.cli.output import for_people, moment, print_json
from scalarizr.cli.running_agent import put_in_force
from scalarizr.cli.target import USAGE, chosen_etc, etc_option, fail
from scalarizr.rpc import maintenance as switch
from scalarizr.settings.load import BadSettings, load_settings


@click.group(invoke_without_command=True)
@click.pass_context
def maintenance(context: click.Context) -> None:
    """Have this server's agent answer queries and refuse what changes something. Without a command: whether it does."""
    if context.invoked_subcommand is None:
        context.invoke(status, etc=chosen_etc(context))


@maintenance.command()
@click.option("--reason", metavar="TEXT", default="", help="What for; who is refused is told.")
@etc_option
def on(etc: Path, reason: str) -> None:
    """Switch it on. It stays on until it is switched off, whatever is restarted; what runs already goes on."""
    state = _state(etc)
    try:
        switch.switch_on(state, reason.strip()[:200], time.time())
    except OSError as error:
        raise click.ClickException(f"{error.filename or state}: {error.strerror}. Nothing was changed.") from error
    put_in_force(state, "The switch")
    click.echo("Maintenance is on: the agent answers queries and refuses what changes something.")


@maintenance.command()
@etc_option
def off(etc: Path) -> None:
    """Switch it off."""
    state = _state(etc)
    try:
        switch.switch_off(state)
    except OSError as error:
        raise click.ClickException(f"{error.filename or state}: {error.strerror}. Nothing was changed.") from error
    put_in_force(state, "The switch")
    click.echo("Maintenance is off.")


@maintenance.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON on a terminal, too.")
@etc_option
def status(etc: Path, as_json: bool = False) -> None:
    """Tell whether it is on."""
    found = switch.read(_state(etc))
    if not for_people(as_json):
        print_json({"on": found is not None, **(msgspec.structs.asdict(found) if found else {})})
    elif found is None:
        click.echo("Maintenance is off.")
    else:
        why = f": {found.reason}" if found.reason else "."
        click.echo(f"Maintenance is on since {moment(found.since)}{why}")


def _state(etc: Path) -> Path:
    try:
        state = load_settings(etc).paths.state
    except BadSettings as error:
        fail(USAGE, str(error))
    if not state.is_dir():
        fail(USAGE, f"{state} is not there: no agent has run with the settings of {etc}; --etc names others.")
    return state
