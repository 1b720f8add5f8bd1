"""Keeping the monitoring agent running where systemd does not: a thread that sleeps until something happens.

The monitoring agent outlives the agent; the next one finds it by the record of its process and watches on.
"""

import contextlib
import logging
import os
import pwd
import select
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from scalarizr.errors import ScalarizrError
from scalarizr.host.processes import is_alive, wait_until
from scalarizr.mongodb.record import MonitoringRecord, Started, Wanted

# Seconds until it is started again: doubled with each end, and from the beginning after one that ran this long.
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_RAN_WELL = 60.0
# Seconds that it may take to end by itself.
_PATIENCE = 10.0
# Seconds that it must have run for to count as started.
STEADY = 1.5
_LARGEST_OUTPUT = 10 << 20


class _End(msgspec.Struct, frozen=True):
    """How a start ended: in which generation, and in words."""

    generation: str
    words: str


class Keeper:
    """Starts the monitoring agent, starts it again when it ends, and stops it.

    :param record: what is wanted, and which process was started last.
    :param log: the agent's log.
    """

    def __init__(self, record: MonitoringRecord, log: logging.Logger) -> None:
        self._record = record
        self._log = log
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = -1
        self._child: subprocess.Popen[bytes] | None = None
        self._last_end: _End | None = None

    def look(self) -> None:
        """Have what is wanted now brought about: at the agent's start, and after each change of the record."""
        with self._lock:
            if self._wake < 0:
                self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            os.eventfd_write(self._wake, 1)
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep, name="monitoring agent", daemon=True)
                self._thread.start()

    def start(self, wanted: Wanted) -> str | None:
        """Start what the record wants.

        :return: why it does not run; None where it does.
        """
        self._last_end = None
        self.look()

        def ended() -> str | None:
            last = self._last_end
            return last.words if last is not None and last.generation == wanted.generation else None

        if not wait_until(lambda: self.runs(wanted.generation) or ended() is not None, 3 * _PATIENCE):
            return "it was not started in time"
        wait_until(lambda: ended() is not None, STEADY)
        words = ended()
        return None if words is None else f"{words}; {wanted.output} holds what it said"

    def stop(self) -> str | None:
        """Stop what the record does not want any more.

        :return: why it still runs; None where it does not.
        """
        self.look()
        if wait_until(lambda: self._thread is None, 3 * _PATIENCE):
            return None
        return "its process does not end"

    def runs(self, generation: str) -> bool:
        """Tell whether it runs with this configuration."""
        started = self._record.started()
        return started is not None and started.generation == generation and _is_the_same(started)

    def _keep(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            wanted, began = Wanted(), time.monotonic()
            try:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
                wanted = self._record.wanted()
                running = self._found(wanted)
                if running is not None and not (wanted.enabled and running.generation == wanted.generation):
                    self._end(running)
                    pause = _FIRST_PAUSE
                    continue
                if not wanted.enabled:
                    if self._nothing_left_to_do():
                        return
                    continue
                words = self._watched_to_its_end(running or self._started(wanted))
                if words is None:
                    continue
            except Exception as failure:  # noqa: BLE001  whatever it is, it is tried again
                if not isinstance(failure, ScalarizrError | OSError | KeyError):
                    self._log.error("monitoring agent", exc_info=failure)
                words = f"it cannot be started: {getattr(failure, 'strerror', None) or failure}"
            if time.monotonic() - began >= _RAN_WELL:
                pause = _FIRST_PAUSE
            self._last_end = _End(wanted.generation, words)
            self._log.warning("monitoring agent: %s; it is started again in %.0f s", words, pause)
            _wait([self._wake], pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _nothing_left_to_do(self) -> bool:
        with self._lock:
            # Somebody may have enabled it again since the record was read.
            if self._record.wanted().enabled:
                return False
            self._thread = None
            return True

    def _found(self, wanted: Wanted) -> Started | None:
        """Find the process that runs already: the one of the record, else one that was started and not recorded."""
        started = self._record.started()
        if started is not None and _is_the_same(started):
            return started
        for pid in _pids_of(wanted.command) if wanted.command else ():
            return Started(pid=pid, started_at=_start_time(pid), boot=_boot(), generation="")
        return None

    def _started(self, wanted: Wanted) -> Started:
        user, group, groups = _identity(wanted.account)
        output = _opened_output(Path(wanted.output))
        try:
            child = subprocess.Popen(
                wanted.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=wanted.directory,
                env=environment(wanted.home),
                umask=0o077,
                user=user,
                group=group,
                extra_groups=groups,
            )
        finally:
            os.close(output)
        self._child = child
        started = Started(pid=child.pid, started_at=_start_time(child.pid), boot=_boot(), generation=wanted.generation)
        self._record.note_started(started)
        self._log.info("monitoring agent pid=%d started", child.pid)
        return started

    def _watched_to_its_end(self, running: Started) -> str | None:
        """Sleep until the process has ended, or somebody wants something else.

        :return: how it ended; None where it did not.
        """
        try:
            pidfd = os.pidfd_open(running.pid)
        except ProcessLookupError:
            return self._how(running)
        try:
            # The number may have been given to another process before it was opened.
            if _is_the_same(running) and pidfd not in _wait([pidfd, self._wake], None):
                return None
            return self._how(running)
        finally:
            os.close(pidfd)

    def _end(self, running: Started) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if _is_the_same(running):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    # It has a session of its own. The servers that an automation agent starts have theirs, and stay.
                    os.killpg(running.pid, number)
            if wait_until(lambda: not _is_the_same(running), _PATIENCE):
                self._log.info("monitoring agent pid=%d stopped: %s", running.pid, self._how(running))
                return
        _wait([self._wake], 1)

    def _how(self, running: Started) -> str:
        """Say how a process ended, and let the kernel forget it where it was ours."""
        if self._child is None or self._child.pid != running.pid:
            return "it ended"
        status = self._child.wait()
        self._child = None
        return f"it was ended by {signal.Signals(-status).name}" if status < 0 else f"it ended with status {status}"


def environment(home: str) -> dict[str, str]:
    """Give the variables that it runs with."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "HOME": home,
        # A compiled settings.py would be a copy of the keys that nobody removes.
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _identity(account: str) -> tuple[int | None, int | None, Sequence[int] | None]:
    if not account:
        return None, None, None
    entry = pwd.getpwnam(account)
    return entry.pw_uid, entry.pw_gid, os.getgrouplist(account, entry.pw_gid)


def _opened_output(path: Path) -> int:
    """Open the file of its output, which is put aside once it is large."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    if os.fstat(descriptor).st_size > _LARGEST_OUTPUT:
        os.close(descriptor)
        os.replace(path, path.with_name(f"{path.name}.1"))
        descriptor = os.open(path, flags, 0o600)
    return descriptor


def _wait(descriptors: list[int], seconds: float | None) -> list[int]:
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(None if seconds is None else seconds * 1000)]


def _is_the_same(started: Started) -> bool:
    return is_alive(started.pid) and _start_time(started.pid) == started.started_at and _boot() == started.boot


def _start_time(pid: int) -> str:
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _pids_of(command: list[str]) -> list[int]:
    # A script is run by the interpreter that its first line names, which stands before it then.
    line = b"".join(os.fsencode(word) + b"\0" for word in command)
    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            if Path(f"/proc/{int(entry)}/cmdline").read_bytes().endswith(line) and is_alive(int(entry)):
                found.append(int(entry))
    return found
