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
_Space = dict[str, int]


class _Asking:
    """A child that asks, for everybody who wants to know the same meanwhile."""

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        self.child = child
        self.ended = threading.Event()
        self.answer: _Space | None = None
        self.given_up = False


class Capacity:
    """Answers how full mount points are.

    :param host: where the host's trees are.
    :param log: for mounts that do not answer.
    """

    def __init__(self, host: HostPaths, log: logging.Logger) -> None:
        self._host = host
        self._log = log
        self._asked: dict[str, _Asking] = {}
        self._guard = threading.Lock()

    def of(self, mount_points: Sequence[str]) -> dict[str, _Space | None]:
        """Give `{total, free}` in kB by mount point, `free` being what an ordinary user may still use.

        None for what is no mount point, and for one that does not answer, which the log tells.
        """
        known = {mount.mpoint: mount for mount in mounts(self._host)}
        answers: dict[str, _Space | None] = {}
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

    def _ask_aside(self, path: str) -> _Space | None:
        asking, is_mine = self._asking(path)
        if asking is None:
            return None
        if not is_mine:
            asking.ended.wait(PATIENCE)
            return asking.answer
        try:
            asking.answer = self._answer_of(asking, path)
        finally:
            asking.ended.set()
        return asking.answer

    def _asking(self, path: str) -> tuple[_Asking | None, bool]:
        """Give the child that asks about a path, and whether it was sent just now; None where none can be."""
        with self._guard:
            present = self._asked.get(path)
            if present is not None and not present.given_up:
                return present, False
            if present is not None:
                if present.child.poll() is None:
                    self._log.warning("%s still does not answer; not asked again", path)
                    return None, False
                _let_go(self._asked.pop(path).child)
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
                return None, False
            asking = self._asked[path] = _Asking(child)
            return asking, True

    def _answer_of(self, asking: _Asking, path: str) -> _Space | None:
        try:
            output, _ = asking.child.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            asking.child.kill()
            self._log.warning("%s did not answer within %g s", path, PATIENCE)
            with self._guard:
                asking.given_up = True
            return None
        with self._guard:
            self._asked.pop(path, None)
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


def _ask(path: str) -> _Space | None:
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
