"""The command line's table of commands. A command's module is imported only when it is the one that was asked for."""

import importlib
import os
import sys
from typing import Any, NoReturn

import click

from scalarizr import __version__

_COMMANDS = {
    "init": ("scalarizr.cli.init:init", "Write a settings file and a fresh key. Never overwrites."),
    "serve": ("scalarizr.cli.serve:serve", "Run the agent in the foreground."),
    "call": ("scalarizr.cli.call:call", "Call a method of an agent."),
    "methods": ("scalarizr.cli.methods:methods", "Show what can be called."),
    "operations": ("scalarizr.cli.operations:operations", "Show, follow and cancel operations."),
    "changes": ("scalarizr.cli.changes:changes", "Show, confirm and revert configuration changes."),
    "key": ("scalarizr.cli.keys:key", "Show, make, renew and revoke keys."),
    "maintenance": ("scalarizr.cli.maintenance:maintenance", "Answer queries, and refuse what changes something."),
    "audit": ("scalarizr.cli.audit:audit", "Show and verify the log of all commands."),
    "doctor": ("scalarizr.cli.doctor:doctor", "Check the installation."),
    "completion": ("scalarizr.cli.completion:completion", "Print the completion script of a shell."),
    "version": ("scalarizr.cli.main:version", "Print the version."),
}


class Commands(click.Group):
    """Finds a command by importing its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        entry = _COMMANDS.get(name)
        if entry is None:
            return None
        module, _, attribute = entry[0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[Any, Any, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], _COMMANDS, 1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        # The texts stand here, so that showing the help imports no command.
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--etc", metavar="DIR", help="Configuration directory ($SCALARIZR_ETC, else /etc/scalr).")
@click.version_option(__version__, prog_name="scalarizr", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context, etc: str | None) -> None:
    """The agent on every server of a fleet, and its client."""
    context.obj = etc


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(f"scalarizr {__version__}")


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line, and exit with its status."""
    try:
        status = cli.main(args=arguments, prog_name="scalarizr", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.Abort:
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Who reads our output has seen enough; Python would complain when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
