"""Hooks: programs that the server's owner puts in place for the control plane to call."""

import os
from pathlib import Path

from scalarizr.errors import NotFound, OutsideFailure, PermissionRefused
from scalarizr.host.run import run


def run_hook(path: Path, limit: float) -> str:
    """Run a hook to its end.

    :param path: the program.
    :param limit: seconds.
    :return: what it printed, stripped.
    :raises NotFound: it is not there.
    :raises PermissionRefused: it is not executable.
    :raises OutsideFailure: it ended with another status than 0.
    :raises TimedOut: it did not end in time.
    """
    if not path.is_file():
        raise NotFound(f"{path} does not exist: there is no such hook on this server.", {"path": str(path)})
    if not os.access(path, os.X_OK):
        raise PermissionRefused(f"{path} is not executable; `chmod +x` it.", {"path": str(path)})
    finished = run([path], timeout=limit)
    if finished.returncode != 0:
        words = finished.last_words()
        raise OutsideFailure(
            f"{path} ended with status {finished.returncode}" + (f": {words}" if words else "."),
            {"path": str(path), "status": finished.returncode},
        )
    return finished.stdout.decode("utf-8", "replace").strip()
