"""Having the agent of this machine put in force at once what a command has written."""

from pathlib import Path

import click

from scalarizr.host.telling import NoWord, have_settings_read


def put_in_force(state: Path, what: str) -> None:
    """Have the running agent read what was written; say where none runs.

    :param state: its state directory.
    :param what: that was written, such as `The key`.
    :raises ClickException: an agent runs and did not take it: what was written stays.
    """
    try:
        word = have_settings_read(state)
    except NoWord as reason:
        raise click.ClickException(
            f"{what} is written, but is not in force yet: {reason}. Send the agent SIGHUP, or restart it."
        ) from None
    if word is None:
        click.echo("No agent runs here: it is in force from its next start.", err=True)
    elif word.problems:
        raise click.ClickException(
            f"{what} is written; the agent found something that it does not take, and what was in force before may "
            f"still be: {' '.join(word.problems)}"
        )
