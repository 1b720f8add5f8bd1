"""The agent in the small virtual machine (`small_vm.py`), as the tests in it speak to it.

The machine is emulated: a call that takes 50 ms elsewhere takes seconds in it, and all limits here allow for that.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from small_vm import Done, NoPower, SmallVm

_CALL_LIMIT = 900.0
_START_LIMIT = 1200.0
_REBOOT_LIMIT = 900.0


class Guest:
    """The agent in a machine whose services have all started, and what is around it."""

    def __init__(self, machine: SmallVm) -> None:
        self.machine = machine
        self.settle()

    def settle(self) -> None:
        """Wait until everything that starts at boot has."""
        state = self.machine.run("systemctl", "is-system-running", "--wait", timeout=_START_LIMIT).output.strip()
        assert state == "running", (state, self.machine.run("systemctl", "--failed", "--no-legend").output)

    def cut_power_and_boot(self) -> None:
        self.machine.cut_power()
        self.machine.boot()
        self.settle()

    def reboot(self) -> None:
        """Have systemd end everything in order, and switch it on again."""
        self.machine.tell("systemctl", "reboot")
        self.machine.wait_for_end(_REBOOT_LIMIT)
        self.cut_power_and_boot()

    def try_call(self, method: str, **parameters: object) -> Done:
        return self.machine.call_agent(method, parameters, _CALL_LIMIT)

    def call(self, method: str, **parameters: object) -> Any:
        """Call a method that succeeds; gives its result."""
        done = self.try_call(method, **parameters)
        assert done.status == 0, f"{method}: {done}"
        return json.loads(done.output)

    def refusal(self, method: str, **parameters: object) -> str:
        """Call a method that fails; gives its words."""
        done = self.try_call(method, **parameters)
        assert done.status == 1, f"{method}: {done}"
        return done.errors

    def shell(self, script: str) -> str:
        """Run a shell script that succeeds; gives what it prints."""
        return self.machine.shell(script)

    def shows(self, unit: str, name: str) -> str:
        """Give one of the properties of a unit of systemd."""
        return self.machine.output("systemctl", "show", f"--property={name}", "--value", unit)

    def last_words(self, since: int = 0) -> str:
        """Give the end of what the machine printed on its console, and of the agent's log, for a person to read."""
        said = self.machine.last_words(since)
        try:
            return said + self.machine.run("tail", "-c", "12000", "/var/log/scalarizr.log", timeout=30).output
        except NoPower:
            return said

    def uptime(self) -> float:
        return float(self.machine.output("cat", "/proc/uptime").split()[0])


@contextlib.contextmanager
def last_words_printed(guest: Guest) -> Iterator[None]:
    """Print at the end what the machine and the agent said meanwhile: pytest shows it where the test failed."""
    said = guest.machine.console_size()
    yield
    print(guest.last_words(said))


def wait_for(condition: Callable[[], object], limit: float = 180) -> None:
    """Wait until something in the machine is as it is to be."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {limit:g} s"
        time.sleep(0.5)
