"""The agent's own logs: one line an event, with the request's id, rotated by size, with no secret in them.

`scalarizr.log` holds what happened (info), `scalarizr_debug.log` that and the details. A logger is made and handed
down; there is no global one.
"""

import contextlib
import logging
import sys
import time
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path

from scalarizr.appended_file import AppendedFile
from scalarizr.secret import without
from scalarizr.settings.model import Settings

request_id: ContextVar[str] = ContextVar("request_id", default="-")
request_secrets: ContextVar[tuple[str, ...]] = ContextVar("request_secrets", default=())

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), 127)} | {9: "\\t", 10: "\\n", 13: "\\r"}
_LONGEST = 8000


class LineFormatter(logging.Formatter):
    """`2026-11-24T11:00:00.123Z INFO request=3f2a91-17 message`: one line whatever the message holds."""

    def __init__(self) -> None:
        super().__init__()
        self._second = (0, "")

    def format(self, record: logging.LogRecord) -> str:
        """Write a record; a traceback follows it, each of its lines indented. Done once, for all handlers."""
        line: str | None = getattr(record, "line", None)
        if line is None:
            line = record.line = self._written(record)
        return line

    def one_line(self, created: float, level: str, text: str) -> str:
        """Write a line, without looking for secrets in it.

        :param created: Unix time.
        """
        second = int(created)
        if self._second[0] != second:
            self._second = (second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))
        if not text.isprintable():
            text = text.translate(_CONTROL)
        if len(text) > _LONGEST:
            text = text[:_LONGEST] + "…"
        milliseconds = int((created - second) * 1000)
        return f"{self._second[1]}.{milliseconds:03}Z {level} request={request_id.get()} {text}\n"

    def _written(self, record: logging.LogRecord) -> str:
        line = self.one_line(record.created, record.levelname, record.getMessage())
        if record.exc_info and record.exc_info[1] is not None:
            trace = "".join(traceback.format_exception(record.exc_info[1]))
            line += "".join(f"    {row}\n" for row in trace.splitlines())
        secrets = request_secrets.get()
        return without(line, secrets) if secrets else line


class RotatedFile(logging.Handler):
    """Appends to a file, one write(2) a line, and rotates it by size.

    Several processes may append to one file; only its owner, the agent, rotates it. A file that was moved away by
    somebody else (logrotate) is opened anew.

    :param path: the file; made 0600.
    :param level: the least level that is written.
    :param max_size: bytes past which it is rotated.
    :param keep: rotated files that are kept.
    :param rotates: whether this process does the rotating.
    :raises OSError: it cannot be written.
    """

    def __init__(self, path: Path, level: int, max_size: int, keep: int, *, rotates: bool) -> None:
        self._file = AppendedFile(path, keep)  # first: logging closes at the exit whatever it knows to be a handler
        super().__init__(level)
        self._max_size = max_size
        self._rotates = rotates
        self._checked = 0.0
        self._complained = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record. A log that cannot be written stops nothing."""
        try:
            self.append(self.format(record).encode("utf-8", "backslashreplace"), record.created)
        except ValueError:
            self.handleError(record)

    def append(self, data: bytes, now: float) -> None:
        """Append a line.

        :param now: Unix time; once a second it is looked whether the file is still there.
        """
        try:
            if now - self._checked >= 1 or now < self._checked:
                self._checked = now
                self._file.follow()
            self._file.append(data)
            if self._rotates and self._file.size > self._max_size:
                self._file.rotate()
            self._complained = False
        except OSError as error:
            if not self._complained:  # once until it can be written again: nobody's other log is to be filled with it
                self._complained = True
                with contextlib.suppress(OSError, ValueError):
                    sys.stderr.write(f"scalarizr: {self._file.path} cannot be written: {error.strerror}\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


class AgentLog(logging.Logger):
    """The agent's logger; beside what every logger does it writes the line of a call at a third of the cost."""

    def __init__(self, level: int) -> None:
        super().__init__("scalarizr", level)
        self.lines = LineFormatter()
        self._files: tuple[RotatedFile, ...] = ()
        self._gathered: list[bytes] = []
        self._soon: Callable[[Callable[[], None]], object] | None = None

    def gather(self, soon: Callable[[Callable[[], None]], object]) -> None:
        """Write the lines of all calls that end in one turn of the event loop at once.

        :param soon: makes a function be called at the end of the turn.
        """
        self._soon = soon

    def flush(self) -> None:
        """Write what was gathered."""
        data = b"".join(self._gathered)
        self._gathered.clear()
        now = time.time()
        for file in self._files:
            file.append(data, now)

    def add_file(self, file: RotatedFile) -> None:
        """Write to this file, too."""
        file.setFormatter(self.lines)
        self.addHandler(file)
        self._files = (*self._files, file)

    def call_line(self, text: str) -> None:
        """Write an info line about a call. `text` holds no secret: it is not looked for any."""
        if self._soon is not None and not self._gathered:
            self._soon(self.flush)
        self._gathered.append(self.lines.one_line(time.time(), "INFO", text).encode("utf-8", "backslashreplace"))
        if self._soon is None:
            self.flush()


def open_log(settings: Settings, *, rotates: bool = True) -> AgentLog:
    """Make the agent's logger.

    :param rotates: False in a worker, which appends to the agent's files.
    :raises OSError: a file cannot be written.
    """
    directory = settings.paths.logs
    directory.mkdir(parents=True, exist_ok=True)
    log = AgentLog(logging.DEBUG if settings.logs.debug else logging.INFO)
    files = [(directory / "scalarizr.log", logging.INFO)]
    if settings.logs.debug:
        files.append((directory / "scalarizr_debug.log", logging.DEBUG))
    for path, level in files:
        log.add_file(RotatedFile(path, level, settings.logs.max_size, settings.logs.keep, rotates=rotates))
    return log


def close_log(log: logging.Logger) -> None:
    """Close the logger's files."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
