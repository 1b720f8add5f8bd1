"""The command line's table of commands. Each command's module is imported only when it is the one that was asked for."""

import importlib
from typing import Any

import click

from scalarizr import __version__

_COMMANDS = {
    "init": "scalarizr.cli.init:init",
    "serve": "scalarizr.cli.serve:serve",
    "call": "scalarizr.cli.call:call",
    "version": "scalarizr.cli.main:version",
}


class Commands(click.Group):
    """Finds a command by importing its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        path = _COMMANDS.get(name)
        if path is None:
            return None
        module, _, attribute = path.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """The scalarizr agent, and its client."""


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(f"scalarizr {__version__}")


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line."""
    return cli.main(args=arguments, prog_name="scalarizr")
