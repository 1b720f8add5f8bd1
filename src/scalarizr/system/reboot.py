"""Rebooting this host through its own init, after the answer has got away to whoever asked for it.

A small process waits and then asks the init: it goes on where the agent is killed meanwhile. It holds a lock, so that a
second call finds the first one's reboot pending.
"""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from scalarizr.errors import NotSupported, OutsideFailure, PermissionRefused
from scalarizr.host.listening import sockets_of
from scalarizr.host.locks import try_lock
from scalarizr.host.paths import HostPaths
from scalarizr.host.run import run

# What shows that an init is there, and how it is asked: sd_booted(3), init(8), openrc-init.
_INITS = (
    ("run/systemd/system", ("systemctl", "--no-ask-password", "reboot")),
    ("run/initctl", ("shutdown", "-r", "now")),
    ("dev/initctl", ("shutdown", "-r", "now")),
    ("run/openrc", ("reboot",)),
)
_PROGRAMS = ("usr/bin", "usr/sbin", "bin", "sbin")
_ASKING, _GETTING_AWAY = 60.0, 10.0
# How long a reboot that was asked for stays pending: services may take minutes to end.
_GOING_DOWN = 600.0


class Reboot(msgspec.Struct, frozen=True):
    """A reboot that will happen.

    :param command: what the init is asked with.
    :param already_pending: an earlier call asked for it.
    """

    command: list[str]
    already_pending: bool


def begin_reboot(host: HostPaths, state: Path, logs: Path, delay: float) -> Reboot:
    """See to it that this host reboots in a moment.

    :param host: where the init and its programs are looked for.
    :param state: the agent's state directory.
    :param logs: directory of the agent's logs, which a failure goes to.
    :param delay: seconds until then.
    :raises NotSupported: no init is there that could do it.
    :raises PermissionRefused: the agent is not root.
    :raises OutsideFailure: the process that does it cannot be started.
    """
    command = reboot_command(host)
    if host.live and os.geteuid() != 0:
        raise PermissionRefused("The agent does not run as root, so it may not reboot this host. Nothing was changed.")
    try:
        lock = try_lock(state / "reboot.lock")
        if lock is None:
            return Reboot(command, True)
        try:
            waiting = [sys.executable, "-m", "scalarizr.system.reboot"]
            process = subprocess.Popen(
                [*waiting, str(lock), str(delay), str(os.getpid()), str(logs), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[lock],
                start_new_session=True,
                cwd="/",
            )
            os.pwrite(lock, f"{process.pid}\n".encode(), 0)
        finally:
            os.close(lock)
    except OSError as error:
        raise OutsideFailure(f"The reboot cannot be prepared: {error.strerror}. Nothing was changed.") from error
    return Reboot(command, False)


def reboot_command(host: HostPaths) -> list[str]:
    """Give what reboots this host.

    :raises NotSupported: no init is there, as in most containers.
    """
    for mark, (program, *arguments) in _INITS:
        if not (host.root / mark).exists():
            continue
        for directory in _PROGRAMS:
            path = host.root / directory / program
            if os.access(path, os.X_OK):
                return [str(path), *arguments]
    raise NotSupported(
        "This host has no init that could reboot it (systemd, SysV init or OpenRC, with its program): a container is "
        "restarted from outside. Nothing was changed.",
        {"looked_for": [mark for mark, _command in _INITS]},
    )


def main() -> None:
    """Wait, ask, and stay for as long as the reboot is pending: `LOCK DELAY AGENT LOGS COMMAND…`."""
    delay, agent, logs, command = float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:]
    time.sleep(delay)
    _let_answers_get_away(agent)
    try:
        done = run(command, timeout=_ASKING)
        problem = f"ended with status {done.returncode}: {done.last_words()}" if done.returncode else None
    except OutsideFailure as error:
        problem = error.message
    except Exception as error:  # noqa: BLE001  the log tells it
        problem = str(error)
    if problem is None:
        time.sleep(_GOING_DOWN)
        problem = f"was asked for, and this host is still up after {_GOING_DOWN:.0f} s"
    _tell(logs, f"reboot: {command[0]} {problem}")


def _let_answers_get_away(agent: int) -> None:
    """Wait until the other ends have acknowledged all that the agent has sent, or for a moment at most."""
    deadline = time.monotonic() + _GETTING_AWAY
    while time.monotonic() < deadline and _unacknowledged(sockets_of(agent)):
        time.sleep(0.05)


def _unacknowledged(inodes: set[str]) -> bool:
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/net/{name}") as table:
            for line in table:
                # sl local remote state tx_queue:rx_queue … inode (proc_net_tcp); tx_queue: sent, not acknowledged
                columns = line.split()
                if len(columns) > 9 and columns[9] in inodes and columns[3] == "01" and columns[4][:8] != "00000000":
                    return True
    return False


def _tell(logs: Path, text: str) -> None:
    from scalarizr.logs import LineFormatter

    line = LineFormatter().one_line(time.time(), "ERROR", text)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError), open(os.open(logs / "scalarizr.log", flags, 0o600), "a") as file:
        file.write(line)


if __name__ == "__main__":
    main()
