"""An agent with methods that only tests have: started as `slow_methods.py --etc DIR --listen HOST:PORT`."""

import asyncio
import os
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from scalarizr.api.namespaces import NAMESPACES
from scalarizr.api.parts import Parts
from scalarizr.errors import OutsideFailure, Refused
from scalarizr.operations.progress import current
from scalarizr.platform_access import current_platform_access
from scalarizr.rpc.method import command, operation, query
from scalarizr.secret import Secret

TABLE = {**NAMESPACES, "trial": "slow_methods:TrialAPI"}


class TrialAPI:
    """Methods that wait, fail, and work long."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @query
    def sleep(self, seconds: float, text: str = "") -> str:
        time.sleep(seconds)
        return text

    @query(limit=120)
    def hold(self, gate: str, count: int = 0, patience: float = 100.0) -> bool:
        """Wait at a gate until it is opened, or until so many calls are there at once; tells whether that was so.

        Who calls sees that a call has come by its file `GATE.N`, and opens the gate by a file `GATE.open`.
        """
        state = self._parts.settings.paths.state
        (state / f"{gate}.{uuid.uuid4().hex}").touch()
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if (state / f"{gate}.open").exists() or 0 < count <= len(list(state.glob(f"{gate}.*"))):
                return True
            time.sleep(0.01)
        return False

    @query(limit=0.3)
    def too_slow(self, seconds: float) -> None:
        time.sleep(seconds)

    @query
    def fail(self, how: str = "bug", password: Secret | None = None) -> None:
        access = current_platform_access()
        words = [secret.reveal() for secret in [password, *(access or {}).values()] if isinstance(secret, Secret)]
        if how == "bug":
            raise RuntimeError(f"a bug that speaks of {words}")
        raise OutsideFailure(f"the cloud said: {words} is wrong", {"said": words})

    @query
    def access(self) -> list[str]:
        return sorted(current_platform_access() or {})

    @query
    def big(self, size: int) -> str:
        return "x" * size

    @query(inline=True)
    def types(
        self,
        flag: bool = False,
        number: int = 0,
        ratio: float = 0.0,
        names: list[str] | None = None,
        pair: tuple[str, int] | None = None,
        anything: Any = None,
    ) -> list[Any]:
        return [flag, number, ratio, names, pair, anything]

    @command(resource="trial")
    def command(self, seconds: float = 0.0, note: str = "") -> str:
        """Append to a file at the beginning and at the end, to show that nobody is in between."""
        path = self._parts.settings.paths.state / "commands"
        with open(path, "a") as file:
            file.write(f"begin {note}\n")
            file.flush()
            time.sleep(seconds)
            file.write(f"end {note}\n")
        return note

    @operation(resource=lambda arguments: arguments["name"])
    def work(
        self,
        name: str,
        seconds: float = 0.0,
        how: str = "",
        secret: Secret | None = None,
        until_told: bool = False,
        async_: bool = False,
    ) -> dict[str, Any]:
        """Work for a while, with progress, log lines, and a file that has to go if it does not end well.

        :param until_told: work on until there is a file `NAME.enough`, for 100 s at most.
        """
        running = current()
        directory = self._parts.settings.paths.state / "work"
        directory.mkdir(exist_ok=True)
        with open(directory / f"{name}.started", "a") as file:
            file.write("started\n")
        leftover = directory / f"{name}.leftover"
        running.before("slow_methods:remove", path=str(leftover))
        leftover.write_text("half done")
        running.log(f"working on {name} with {secret.reveal() if secret else 'no secret'}")
        if how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if how == "bug":
            raise RuntimeError(f"a bug that speaks of {secret.reveal() if secret else ''}")
        if how == "refuse":
            raise Refused(f"{name} is refused, says {secret.reveal() if secret else 'nobody'}.")
        steps = max(int(seconds / 0.05), 1)
        for step in range(steps):
            running.progress(step, steps, "steps", f"step {step} of {steps}")
            time.sleep(seconds / steps)
        deadline = time.monotonic() + 100
        while until_told and not (directory / f"{name}.enough").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        running.progress(steps, steps, "steps", "done")
        leftover.rename(directory / f"{name}.done")
        access = current_platform_access()
        return {"name": name, "secret": secret, "access": sorted(access or {}), "pid": os.getpid()}


def remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)


async def main() -> None:
    from scalarizr.agent import Agent

    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=False))
    agent = Agent(Path(options["--etc"]), listen=[options["--listen"]], namespaces=TABLE)
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, agent.reload)
    await agent.start()
    await end.wait()
    await agent.stop()


if __name__ == "__main__":
    os.umask(0o077)
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    asyncio.run(main())
