"""What started the agent and watches over it, where that is systemd: sd_notify(3), sd_watchdog_enabled(3)."""

import os
import socket
from collections.abc import MutableMapping


class ServiceManager:
    """The service manager of this process; one that is not there is told nothing, and asks for nothing.

    What tells of it is taken out of the environment: nothing that is started from here on speaks for the agent.

    :ivar watchdog: seconds within which it wants a sign of life; None: it wants none.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        process, microseconds = (environment.pop(f"WATCHDOG_{name}", "") for name in ("PID", "USEC"))
        mine = process in ("", str(os.getpid())) and microseconds.isascii() and microseconds.isdigit()
        self.watchdog = int(microseconds) / 1e6 if mine and int(microseconds) > 0 else None

    def tell(self, *state: str) -> None:
        """Tell it of a state, such as `READY=1`.

        :raises OSError: it cannot be told.
        """
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
            # A manager that hangs must not make the agent hang.
            notify.settimeout(1)
            notify.sendto("\n".join(state).encode(), address)
