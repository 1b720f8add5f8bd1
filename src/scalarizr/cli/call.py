"""`scalarizr call`: one call, and where it is an operation its whole course."""

import shlex
from typing import Any

import click

from scalarizr.cli.follow import follow
from scalarizr.cli.output import print_json, print_preview, print_result
from scalarizr.cli.parameters import read_parameters
from scalarizr.cli.target import Target, connected, target_options
from scalarizr.settings.load import default_etc


@click.command()
@click.argument("method", metavar="NAMESPACE.METHOD")
@click.argument("words", metavar="[NAME=VALUE]...", nargs=-1)
@click.option("--params", metavar="JSON", help="Parameters as a JSON object; - reads it from standard input.")
@click.option("--ask", metavar="NAME", multiple=True, help="Ask for a parameter without echo; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on a terminal, too.")
@click.option("--no-wait", is_flag=True, help="Print the operation's id and leave it running.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option(
    "--confirm-within", type=click.IntRange(5, 3600), metavar="SECONDS", help="Revert unless it is confirmed in time."
)
@target_options
def call(
    method: str,
    words: tuple[str, ...],
    params: str | None,
    ask: tuple[str, ...],
    as_json: bool,
    no_wait: bool,
    dry_run: bool,
    confirm_within: int | None,
    target: Target,
) -> None:
    """Call a method of an agent and print its result.

    A value that parses as JSON is that, any other a string; NAME=@FILE takes what a file holds.

    Exit status: 0 a result, 1 the agent answered with an error, 2 usage, 3 not reached, 4 not authenticated.
    """
    if "." not in method:
        raise click.UsageError(f"{method!r} is no NAMESPACE.METHOD; `scalarizr methods` lists them.")
    parameters = read_parameters(words, params, ask)
    if dry_run:
        parameters["_dry_run"] = True
    if confirm_within is not None:
        parameters["_confirm_within"] = confirm_within
    with connected(target) as client:
        described = client.call("rpc.describe", name=method)
        is_operation = described.get("x-kind") == "operation" and not dry_run
        waits = is_operation and "async" not in parameters and not no_wait
        if is_operation and "async" not in parameters:
            parameters["async"] = True
        result: Any = client.call(method, **parameters)
        if is_operation and not isinstance(result, str | dict | list | int | float | None):
            result = follow(client, result.id) if waits else result.id
    if dry_run and isinstance(result, dict):
        print_preview(result, as_json=as_json)
    elif is_operation and not waits:
        print_json(result)
    else:
        print_result(described.get("name", method), result, as_json=as_json, options=_options_of(target))


def _options_of(target: Target) -> str:
    """Give the options with which a further command reaches the same agent with the same key."""
    etc = target.etc if target.etc != default_etc() else None
    given = {
        "--etc": etc,
        "--url": target.url,
        "--ca": target.ca,
        "--certificate": target.certificate,
        "--certificate-key": target.certificate_key,
        "--key": target.key,
        "--key-id": target.key_id,
    }
    return "".join(f" {name} {shlex.quote(str(value))}" for name, value in given.items() if value is not None)
