"""`scalarizr serve`: the agent in the foreground."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scalarizr.cli.target import etc_option
from scalarizr.host.service_manager import ServiceManager
from scalarizr.settings.load import BadSettings

if TYPE_CHECKING:
    from scalarizr.server.activation import PassedSockets

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
    from scalarizr.server.activation import BadActivation, passed_sockets

    os.umask(0o077)
    try:
        asyncio.run(_serve(etc, [listen] if listen else None, started, passed_sockets()))
    except BadActivation as error:
        raise click.ClickException(f"{error}.") from None
    except CannotStart as error:
        raise click.ClickException(str(error)) from None


async def _serve(
    etc: Path, listen: list[str] | None, started: Callable[[list[str]], object], passed: "PassedSockets"
) -> None:
    import asyncio

    from scalarizr.agent import Agent

    # Who wants the settings to be re-read finds this process from the moment that it holds the state directory.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    manager = ServiceManager()
    agent = Agent(etc, listen=listen, passed=passed)
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    agent.on_nothing_to_do = end.set
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
    _tell(manager, "READY=1")
    if manager.watchdog is not None:
        _keep_watchdog_calm(manager, manager.watchdog)
    await end.wait()
    _tell(manager, "STOPPING=1")
    await agent.stop()


def _keep_watchdog_calm(manager: ServiceManager, within: float) -> None:
    """Give signs of life from now on, from the event loop, which is what must not hang: half as often as it may be."""
    import asyncio
    import faulthandler

    # An agent that hangs is ended by SIGABRT, and says then in the journal where each of its threads was.
    faulthandler.enable()
    loop = asyncio.get_running_loop()

    def give() -> None:
        _tell(manager, "WATCHDOG=1")
        loop.call_later(within / 2, give)

    give()


def _tell(manager: ServiceManager, state: str) -> None:
    try:
        manager.tell(state)
    except OSError as error:
        click.echo(f"The service manager cannot be told {state}: {error.strerror or error}.", err=True)
