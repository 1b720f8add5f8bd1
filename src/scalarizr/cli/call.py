"""`scalarizr call`: one call."""

import json
import sys
from pathlib import Path

import click

from scalarizr.client import AgentError, AuthenticationFailed, Client, ClientError
from scalarizr.settings.load import default_etc


@click.command()
@click.argument("method")
@click.argument("parameters", nargs=-1)
@click.option("--etc", type=click.Path(path_type=Path))
@click.option("--url")
@click.option("--key", type=click.Path(path_type=Path))
def call(method: str, parameters: tuple[str, ...], etc: Path | None, url: str | None, key: Path | None) -> None:
    """Call NAMESPACE.METHOD with name=value parameters."""
    etc = etc or default_etc()
    params = {}
    for one in parameters:
        name, _, value = one.partition("=")
        try:
            params[name] = json.loads(value)
        except ValueError:
            params[name] = value
    try:
        with Client(url or "http://127.0.0.1:8010", key_file=key or etc / "private.d/keys/default") as client:
            click.echo(json.dumps(client.call(method, **params)))
    except AgentError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    except AuthenticationFailed as error:
        click.echo(str(error), err=True)
        sys.exit(4)
    except ClientError as error:
        click.echo(str(error), err=True)
        sys.exit(3)
