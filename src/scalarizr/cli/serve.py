"""`scalarizr serve`: the agent in the foreground."""

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import click

from scalarizr.cli.target import etc_option
from scalarizr.settings.load import BadSettings

# asyncio imports ssl where it can, which costs 5 MB of memory and 20 ms. Nothing in the agent speaks TLS by asyncio, so
# for the moment of that import it looks as if Python had been built without.
_ABSENT = ("ssl", "_ssl")


@click.command()
@click.option("--listen", metavar="HOST:PORT", help="Address to listen on, in place of the settings'.")
@etc_option
def serve(etc: Path, listen: str | None) -> None:
    """Run the agent in the foreground. SIGTERM and Ctrl-C stop it cleanly, SIGHUP re-reads the settings."""
    try:
        run_agent(etc, listen, lambda addresses: click.echo(f"scalarizr listens on {', '.join(addresses)}", err=True))
    except BadSettings as error:
        raise click.ClickException(str(error)) from None


def run_agent(etc: Path, listen: str | None, started: Callable[[list[str]], object]) -> None:
    """Run an agent until it is told to stop.

    :param started: called with the addresses once it listens.
    :raises ClickException: it cannot start.
    """
    hidden = {name: sys.modules.get(name) for name in _ABSENT}
    sys.modules.update(dict.fromkeys(_ABSENT))  # type: ignore[arg-type]
    import asyncio

    for name, module in hidden.items():
        del sys.modules[name]
        if module is not None:
            sys.modules[name] = module
    from scalarizr.agent import CannotStart

    os.umask(0o077)
    try:
        asyncio.run(_serve(etc, [listen] if listen else None, started))
    except CannotStart as error:
        raise click.ClickException(str(error)) from None


async def _serve(etc: Path, listen: list[str] | None, started: Callable[[list[str]], object]) -> None:
    import asyncio

    from scalarizr.agent import Agent

    # Who wants the settings to be re-read finds this process from the moment that it holds the state directory.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    agent = Agent(etc, listen=listen)
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    loop.add_signal_handler(signal.SIGHUP, agent.reload)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
    try:
        await agent.start()
    except BaseException:
        agent.close()
        raise
    started(agent.addresses)
    tell_service_manager("READY=1")
    await end.wait()
    tell_service_manager("STOPPING=1")
    await agent.stop()


def tell_service_manager(state: str) -> None:
    """Send a state to systemd, where it asked for it (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
        try:
            notify.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            click.echo(f"The service manager cannot be told {state}: {error.strerror}.", err=True)
