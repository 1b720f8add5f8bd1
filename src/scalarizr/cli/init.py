"""`scalarizr init`: the settings file and the key of a new installation."""

import os
from pathlib import Path

import click

from scalarizr.cli.target import etc_option
from scalarizr.settings.load import FILE_NAME


@click.command()
@etc_option
def init(etc: Path) -> None:
    """Write a settings file and a fresh key, where there are none. Never overwrites."""
    from scalarizr.envelope.key import make_key_text
    from scalarizr.settings.template import template

    keys = etc / "private.d" / "keys"
    try:
        etc.mkdir(parents=True, exist_ok=True)
        for private in (keys.parent, keys):
            private.mkdir(mode=0o700, exist_ok=True)
        _create(etc / FILE_NAME, template().encode(), 0o644)
        _create(keys / "default", make_key_text(), 0o600)
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}.") from error


def _create(path: Path, content: bytes, mode: int) -> None:
    """Write a new file whole, or find the old one and leave it."""
    staged = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(staged, path)
    except FileExistsError:
        click.echo(f"{path} is there already, left as it is")
    else:
        click.echo(f"{path} written")
    finally:
        os.unlink(staged)
