"""The audit log as the agent writes it: appended, chained, rotated; its head noted beside the state, told to syslog."""

import contextlib
import logging
import os
import socket
from pathlib import Path
from typing import Any

from scalarizr.appended_file import AppendedFile
from scalarizr.audit.chain import BEGINNING, Link, chained, files_of, hash_of, line_of

AUDIT_LOG = "scalarizr_audit.log"
_LONGEST_LINE = 4 * 2**20
_SYSLOG = "/dev/log"
# Facility authpriv (10), severity informational (6): RFC 3164, section 4.1.1.
_AUTHPRIV_INFO = 10 * 8 + 6


class AuditLog:
    """Appends lines. One process writes: the agent, which holds the lock of its state.

    :param path: the log; made 0600.
    :param head_file: where the chain's end is kept, so that a tail that was cut off shows.
    :param log: the agent's own log, which hears of a line that could not be written.
    :param max_size: bytes past which the log is rotated.
    :param keep: rotated files that are kept.
    :param syslog: the socket of syslog.
    :raises OSError: it cannot be written.
    """

    def __init__(
        self, path: Path, head_file: Path, log: logging.Logger, max_size: int, keep: int, syslog: str = _SYSLOG
    ) -> None:
        self._head_file = head_file
        self._log = log
        self._max_size = max_size
        self._syslog = syslog
        self._head = os.open(head_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._file = AppendedFile(path, max(keep, 1), readable=True)
        self.end = self._found_end()
        kept = read_head(head_file)
        follows = kept == self.end or (self.end.n == kept.n + 1 and self._previous == kept.head)
        if not follows and kept.n:
            # Either somebody cut the log, or a power failure took lines that were not on the disk yet: said for ever.
            self._log.error("audit log: it ends at line %d, not at line %d as was noted", self.end.n, kept.n)
            self.record({"event": "gap", "noted_n": kept.n, "noted_head": kept.head, "found_n": self.end.n})

    def record(self, entry: dict[str, Any]) -> None:
        """Append a line. One that cannot be written stops nothing, but is told in the agent's log.

        :param entry: plain data; no secret is in it.
        """
        line, end = line_of(entry, self.end)
        try:
            self._file.follow()
            self._file.append(line)
            self.end, self._previous = end, self.end.head
            os.pwrite(self._head, _head_text(end), 0)
            if self._file.size > self._max_size:
                self._file.sync()
                self._file.rotate()
        except OSError as error:
            self._log.error("audit log: line %d could not be written: %s", end.n, error.strerror or error)
            with contextlib.suppress(OSError):
                self.end = self._found_end()

    def tell_syslog(self) -> None:
        """Send the chain's end to syslog, out of reach of who alters the file. Without syslog it is only logged."""
        text = f"scalarizr: audit n={self.end.n} head={self.end.head}"
        self._log.info("audit n=%d head=%s", self.end.n, self.end.head)
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
            datagrams.setblocking(False)  # where no syslog runs, or none that listens, there is nobody to wait for
            datagrams.sendto(f"<{_AUTHPRIV_INFO}>{text}".encode(), self._syslog)

    def close(self) -> None:
        """Make all durable, and close."""
        with contextlib.suppress(OSError):
            self._file.sync()
        self._file.close()
        with contextlib.suppress(OSError):
            os.fsync(self._head)
        os.close(self._head)

    def _found_end(self) -> Link:
        """Find where the chain ends; a last line that a crash cut off gets its line end, and stays."""
        self._previous = BEGINNING
        for path in reversed(files_of(self._file.path)):
            lines = _last_lines(path)
            if not lines:
                continue
            if path == self._file.path and not lines[-1].endswith(b"\n"):
                self._file.append(b"\n")
            last = lines[-1].rstrip(b"\n")
            link = chained(last)
            if link is not None:
                self._previous = link.head
                return Link(link.n, hash_of(last))
            before = chained(lines[-2].rstrip(b"\n")) if len(lines) > 1 else None
            if before is not None:
                self._previous = hash_of(lines[-2].rstrip(b"\n"))
                return Link(before.n + 1, hash_of(last))
            return Link(read_head(self._head_file).n + 1, hash_of(last))
        return Link()


def head_file_of(state: Path) -> Path:
    """Give the file beside the state that holds where the chain ended."""
    return state / "audit-head"


def read_head(path: Path) -> Link:
    """Read where the chain ended, as it was noted beside the state; number 0 where nothing was.

    :raises OSError: it cannot be read.
    """
    try:
        text = path.read_text("ascii", "replace")[:200]  # whatever stands behind it
        number, _, head = text.partition("\n")[0].strip().partition(" ")
    except FileNotFoundError:
        return Link()
    return Link(int(number), head) if number.isascii() and number.isdigit() and len(head) == len(BEGINNING) else Link()


def _head_text(end: Link) -> bytes:
    return f"{end.n:020} {end.head}\n".encode()


def _last_lines(path: Path) -> list[bytes]:
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(size - _LONGEST_LINE, 0))
        return stream.read().splitlines(keepends=True)[-2:]
