"""The supervisors of a host's services: systemd, SysV init scripts, or nobody but the program's own control.

Each starts and stops; whether the wanted state was really reached is for the program's own package to see.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from scalarizr.errors import NotConfigured, OutsideFailure
from scalarizr.host.run import run

Manager = Literal["auto", "systemd", "sysv", "direct"]
_LIMIT = 90.0


class Supervisor(Protocol):
    """What starts and stops a service."""

    def start(self) -> None:
        """Start it.

        :raises OutsideFailure: with the supervisor's own words.
        """

    def stop(self) -> None:
        """Stop it.

        :raises OutsideFailure: with the supervisor's own words.
        """


class Systemd:
    """A unit of systemd.

    :param unit: such as `nginx.service`.
    :param direct: the program's own control, for one that was started without systemd.
    """

    def __init__(self, unit: str, direct: "Direct") -> None:
        self._unit = unit
        self._direct = direct

    def start(self) -> None:
        # Who asks for a start means it, however often a start was asked for or failed lately (systemd.unit(5),
        # StartLimitBurst).
        run(["systemctl", "reset-failed", self._unit], timeout=10)
        # The unit of an init script stays active after its program was killed: to start it would do nothing.
        self._systemctl("restart" if _property(self._unit, "SubState") == "exited" else "start")

    def stop(self) -> None:
        self._systemctl("stop")
        self._direct.stop()

    def _systemctl(self, verb: str) -> None:
        before = _property(self._unit, "InvocationID")
        done = run(["systemctl", "--no-ask-password", verb, self._unit], timeout=_LIMIT)
        if done.returncode != 0:
            words = self._own_words(before) or done.last_words()
            raise OutsideFailure(f"systemctl {verb} {self._unit} failed: {words}", {"unit": self._unit})

    def _own_words(self, before: str) -> str:
        """Give what the unit's programs said in this try, from the journal; of systemd's own words none."""
        invocation = _property(self._unit, "InvocationID")
        if invocation in ("", before):
            return ""
        run(["journalctl", "--sync"], timeout=10)
        match = f"_SYSTEMD_INVOCATION_ID={invocation}"
        said = run(["journalctl", "--quiet", "--no-pager", "--output=cat", "--lines=20", match], timeout=10)
        return said.last_words() if said.returncode == 0 else ""


class SysV:
    """An init script.

    :param script: such as `/etc/init.d/nginx`.
    """

    def __init__(self, script: Path) -> None:
        self._script = script

    def start(self) -> None:
        self._call("start")

    def stop(self) -> None:
        self._call("stop")

    def _call(self, verb: str) -> None:
        done = run([self._script, verb], timeout=_LIMIT, leaves_daemon=True)
        if done.returncode != 0:
            raise OutsideFailure(
                f"{self._script} {verb} failed with exit status {done.returncode}: {done.last_words()}".rstrip(": ")
                + ".",
                {"script": str(self._script)},
            )


class Direct:
    """Nobody: the program is started by its own command and stopped in its own way.

    :param command: starts it, and returns once it is a daemon.
    :param stop: stops it.
    :param environment: variables that the command needs.
    """

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]],
        stop: Callable[[], None],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = list(command)
        self._stop = stop
        self._environment = environment

    def start(self) -> None:
        done = run(self._command, timeout=_LIMIT, environment=self._environment, leaves_daemon=True)
        if done.returncode != 0:
            raise OutsideFailure(f"{self._command[0]} did not start: {done.last_words()}")

    def stop(self) -> None:
        self._stop()


def find_supervisor(manager: Manager, name: str, direct: Direct) -> Supervisor:
    """Choose what supervises a service here.

    :param manager: the setting; `auto` looks: systemd where it is process 1 and knows the unit, else an init script,
        else nobody.
    :param name: of the unit and the script, such as `nginx`.
    :param direct: the program's own control.
    :raises NotConfigured: the setting names one that is not here.
    """
    script = Path("/etc/init.d") / name
    if manager == "direct":
        return direct
    if manager == "systemd" or (manager == "auto" and _systemd_knows(name)):
        if not Path("/run/systemd/system").is_dir():
            raise NotConfigured(f'{name}: the settings say manager = "systemd", but systemd does not run here.')
        return Systemd(f"{name}.service", direct)
    if script.exists():
        return SysV(script)
    if manager == "sysv":
        raise NotConfigured(f'{name}: the settings say manager = "sysv", but there is no {script}.')
    return direct


def _systemd_knows(name: str) -> bool:
    # Units that are made of init scripts, and those in places of an administrator's own, are known to systemd alone.
    return Path("/run/systemd/system").is_dir() and _property(f"{name}.service", "LoadState") not in ("", "not-found")


def _property(unit: str, name: str) -> str:
    shown = run(["systemctl", "show", f"--property={name}", "--value", unit], timeout=10)
    return shown.stdout.decode("utf-8", "replace").strip()
