"""`make run`: an agent to try, with a configuration of its own, and a first call of it."""

import sys
import threading
from pathlib import Path

import click

_SETTINGS = """\
# Settings of an agent to try: everything it writes stays in this directory. `scalarizr init` writes the full file.

[api]
listen = "127.0.0.1:8010"

[paths]
state = "state"
logs = "logs"
scripting_logs = "logs/scripting"

[backup]
store = "file://{directory}/backups"

[storage]
loop_dir = "volumes"
"""


def main(directory: Path) -> None:
    """Make the configuration where it is missing, run the agent, and call it once.

    :param directory: holds everything.
    """
    from scalarizr.cli.serve import run_agent
    from scalarizr.settings.load import BadSettings

    directory = directory.absolute()
    prepare(directory)

    def started(_addresses: list[str]) -> None:
        # The agent's own loop must answer the call, so the call is made beside it.
        threading.Thread(target=first_call, args=[directory], daemon=True).start()

    try:
        run_agent(directory, None, started)
    except BadSettings as error:
        raise click.ClickException(str(error)) from None
    click.echo("\nThe agent has stopped.")


def prepare(directory: Path) -> None:
    """Write settings and key where they are missing."""
    from scalarizr.envelope.key import make_key_text
    from scalarizr.host.files import make_private_directory, write_file
    from scalarizr.settings.load import FILE_NAME

    make_private_directory(directory)
    keys = directory / "private.d" / "keys"
    for private in (keys.parent, keys, directory / "logs", directory / "volumes"):
        make_private_directory(private)
    if not (directory / FILE_NAME).exists():
        write_file(directory / FILE_NAME, _SETTINGS.format(directory=directory).encode(), mode=0o600)
    if not (keys / "default").exists():
        write_file(keys / "default", make_key_text(), mode=0o600)


def first_call(directory: Path) -> None:
    """Call the agent, and show what came."""
    from scalarizr.cli.target import local_url
    from scalarizr.client import Client, ClientError
    from scalarizr.settings.load import load_settings

    settings = load_settings(directory)
    url = local_url(settings)
    try:
        with Client(url, key_file=settings.paths.key) as client:
            kernel = client.call("system.uname")
            load = client.call("system.load_average")
            distribution = client.call("system.dist")
    except ClientError as error:
        click.echo(f"The agent was started, and does not answer as it should: {error}", err=True)
        return
    shown = _shown(directory)
    program = _shown(Path(sys.executable).with_name("scalarizr"))
    click.echo(
        f"""
The agent answers on {url}. The first calls, each signed and encrypted both ways:

  system.uname         {kernel["nodename"]}: {kernel["kernel_name"]} {kernel["kernel_release"]} {kernel["machine"]}
  system.dist          {distribution["distributor"]} {distribution["release"]} {distribution["codename"]}
  system.load_average  {" ".join(f"{figure:.2f}" for figure in load)}

Try it from another terminal:

  {program} --etc {shown} call system.disk_stats
  {program} --etc {shown} methods system

Its key is {shown}/private.d/keys/default, its log {shown}/logs/scalarizr.log. Ctrl-C stops it.
"""
    )


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "var"))
    except click.ClickException as failure:
        failure.show()
        sys.exit(1)
