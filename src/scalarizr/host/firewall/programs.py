"""Running the programs of firewalls, so that nothing that they still do goes unseen."""

import os
import shutil

from scalarizr.errors import OutsideFailure, ScalarizrError
from scalarizr.host.run import run

_LIMIT = 30.0


class Programs:
    """Runs programs that hold the firewall's lock as long as they live.

    One that outlives the agent, killed in the middle, thus comes to its end before anybody looks at its work.

    :param lock: the descriptor that holds the lock.
    """

    def __init__(self, lock: int) -> None:
        self._lock = lock

    def has(self, name: str) -> bool:
        """Tell whether a program is installed."""
        return shutil.which(name) is not None

    def ask(self, *command: str) -> str | None:
        """Give what a program prints; None where it fails, or is not there."""
        try:
            done = run(command, timeout=_LIMIT, output_limit=1 << 26, keep=(self._lock,))
        except ScalarizrError:
            return None
        return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None

    def do(self, *command: str, input: bytes = b"") -> None:  # noqa: A002  as `run` calls it
        """Have a program change the firewall.

        :raises OutsideFailure: it failed, in its own words.
        """
        done = run(command, timeout=_LIMIT, input=input, keep=(self._lock,))
        if done.returncode != 0:
            name = os.path.basename(command[0])
            raise OutsideFailure(f"The firewall could not be changed: {name}: {done.last_words()}")
