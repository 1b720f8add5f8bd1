"""Apache's own words for error messages: without what it always says, and without the times of its logs."""

import re
from pathlib import Path

from scalarizr.host.run import Finished
from scalarizr.services.log_tail import LogTail

_NOISE = re.compile(
    r"AH00558|AH00112|Set the 'ServerName' directive|Action '.*' failed|The Apache error log may have|^Syntax OK"
)
_SERIOUS = re.compile(r"\[[^\]]*\] \[\w*:(emerg|alert|crit|error)\]")
_MOST_LOGS = 200


def plain_words(said: Finished) -> str:
    """Give what Apache said without what it always says."""
    lines = (said.stderr + said.stdout).decode("utf-8", "replace").splitlines()
    kept = [line.strip() for line in lines if line.strip() and not _NOISE.search(line)]
    return " ".join(kept)[-1000:]


class ErrorLogs:
    """The error logs of the main server and of virtual hosts beside it, from now on.

    What is wrong with a virtual host's certificate stands in that host's own log alone.

    :param main: of the main server; None: there is none that can be read.
    """

    def __init__(self, main: Path | None) -> None:
        beside = sorted(main.parent.glob("*error*"))[:_MOST_LOGS] if main is not None else []
        self._main = LogTail(main)
        self._beside = [LogTail(path) for path in beside if path != main and path.is_file()]

    def errors(self) -> str:
        """Give what they say of why Apache ended."""
        of_hosts = [line for tail in self._beside for line in tail.new_lines() if line.startswith("[")]
        return errors_in([*of_hosts, *self._main.new_lines()])


def errors_in(lines: list[str]) -> str:
    """Give what lines of an error log say of why Apache ended: those without a time come from its own check."""
    found = []
    for line in lines:
        if not line.startswith("["):
            found += [line.strip()] if line.strip() and not _NOISE.search(line) else []
        elif _SERIOUS.match(line):
            found.append(re.sub(r"^(\[[^\]]*\] )+", "", line))
    return " ".join(found[-6:])[-1000:]
