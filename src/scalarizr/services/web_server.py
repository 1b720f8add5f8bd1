"""What stopping and restarting a web server comes to, whichever it is: until it is so, and never into a configuration
that is not valid. Where its process is and what it says of its configuration each program's own package knows.
"""

import contextlib
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from scalarizr.errors import OutsideFailure
from scalarizr.host import processes
from scalarizr.services.supervision import Supervisor

_STOP_LIMIT = 60.0


class WebServer(ABC):
    """One web server of this host.

    :cvar called: its name in messages.
    :cvar endings: the signals that end it where nobody supervises it, each with the seconds that it is given.
    """

    called: ClassVar[str]
    endings: ClassVar[Sequence[tuple[signal.Signals, float]]]

    @property
    @abstractmethod
    def _supervisor(self) -> Supervisor:
        """What starts and stops it."""

    @abstractmethod
    def _main_process(self) -> int | None:
        """Give the process that the others are children of; None where it does not run."""

    @abstractmethod
    def _mistakes(self) -> str | None:
        """Give what it says of a live configuration that is not valid; None where it is."""

    @abstractmethod
    def start(self) -> None:
        """Start it; returns when it serves.

        :raises OutsideFailure: it does not run; with its own words.
        """

    def is_running(self) -> bool:
        """Tell whether it runs."""
        return self._main_process() is not None

    def refuse_invalid(self) -> None:
        """Check the live configuration.

        :raises OutsideFailure: it is not valid; with the program's own words.
        """
        mistakes = self._mistakes()
        if mistakes is not None:
            raise OutsideFailure(f"The configuration is not valid: {mistakes}")

    def stop(self) -> None:
        """Stop it; returns when it is gone.

        :raises OutsideFailure: it still runs.
        """
        process = self._main_process()
        if process is None:
            return
        self._supervisor.stop()
        if not processes.wait_until(lambda: not processes.is_alive(process), _STOP_LIMIT):
            raise OutsideFailure(f"{self.called} (process {process}) was told to stop and still runs.")

    def restart(self) -> None:
        """Stop and start it.

        :raises OutsideFailure: its configuration is not valid: it was left running; or it did not start.
        """
        mistakes = self._mistakes()
        if mistakes is not None:
            raise OutsideFailure(f"{self.called} was not restarted: its configuration is not valid: {mistakes}")
        self.stop()
        self.start()

    def _stop_directly(self) -> None:
        process = self._main_process()
        if process is None:
            return
        for number, patience in self.endings:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
            if processes.wait_until(lambda: not processes.is_alive(process), patience):
                return
