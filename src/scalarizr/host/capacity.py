"""How full file systems are, without ever waiting for one that does not answer.

Who asks a dead network mount sleeps until it is back, and cannot be killed meanwhile. So anything that is not plainly
local is asked by a child process, which is given up after a limit; while such a child still sleeps, no second one is
sent after it.
"""

import contextlib
import logging
import os
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from scalarizr.host.mounts import LOCAL, Mount, mounts
from scalarizr.host.paths import HostPaths

PATIENCE = 3.0
_AT_ONCE = 16


class Capacity:
    """Answers how full mount points are.

    :param host: where the host's trees are.
    :param log: for mounts that do not answer.
    """

    def __init__(self, host: HostPaths, log: logging.Logger) -> None:
        self._host = host
        self._log = log
        self._asleep: dict[str, subprocess.Popen[bytes]] = {}
        self._guard = threading.Lock()

    def of(self, mount_points: Sequence[str]) -> dict[str, dict[str, int] | None]:
        """Give `{total, free}` in kB by mount point, `free` being what an ordinary user may still use.

        None for what is no mount point, and for one that does not answer, which the log tells.
        """
        known = {mount.mpoint: mount for mount in mounts(self._host)}
        answers: dict[str, dict[str, int] | None] = {}
        remote = []
        for asked in mount_points:
            path = asked.rstrip("/") or "/" if asked else asked
            if path not in known or not self._host.live:
                answers[asked] = None
            elif _is_local(path, known):
                answers[asked] = _ask(path)
            else:
                answers[asked] = None
                remote.append((asked, path))
        if remote:
            with ThreadPoolExecutor(min(len(remote), _AT_ONCE)) as pool:
                paths = sorted({path for _, path in remote})
                outcome = dict(zip(paths, pool.map(self._ask_aside, paths), strict=True))
            answers.update({asked: outcome[path] for asked, path in remote})
        return answers

    def _ask_aside(self, path: str) -> dict[str, int] | None:
        with self._guard:
            sleeper = self._asleep.get(path)
            if sleeper is not None:
                if sleeper.poll() is None:
                    self._log.warning("%s still does not answer; not asked again", path)
                    return None
                _let_go(self._asleep.pop(path))
            try:
                child = subprocess.Popen(
                    ["stat", "-f", "-c", "%S %b %a", "--", path],  # noqa: S607  found on PATH, wherever the distribution has it
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    cwd="/",
                )
            except OSError as error:
                self._log.warning("%s cannot be asked: stat: %s", path, error.strerror)
                return None
            self._asleep[path] = child
        try:
            output, _ = child.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            self._log.warning("%s did not answer within %g s", path, PATIENCE)
            return None
        with self._guard:
            self._asleep.pop(path, None)
        try:
            size, total, free = (int(word) for word in output.split())
        except ValueError:
            return None
        return {"total": total * size // 1024, "free": free * size // 1024}


def _is_local(path: str, known: dict[str, Mount]) -> bool:
    """Whether neither the mount nor any that its path leads through is of a kind that may not answer."""
    while True:
        mount = known.get(path)
        if mount is not None and mount.fstype not in LOCAL:
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)


def _ask(path: str) -> dict[str, int] | None:
    try:
        status = os.statvfs(path)
    except OSError:
        return None
    return {
        "total": status.f_blocks * status.f_frsize // 1024,
        "free": status.f_bavail * status.f_frsize // 1024,
    }


def _let_go(child: "subprocess.Popen[bytes]") -> None:
    if child.stdout is not None:
        with contextlib.suppress(OSError):
            child.stdout.close()
