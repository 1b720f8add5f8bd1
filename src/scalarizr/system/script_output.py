"""A script's output on its way: masked, written to its log, and told line by line to whoever listens."""

import contextlib
import fcntl
import json
import os
import select
import struct
import termios
import time
from pathlib import Path
from typing import Any

from scalarizr.system.masking_stream import MaskingStream
from scalarizr.system.script_logs import ScriptLog

_CHUNK = 65536
_LONGEST_LINE = 400
_PIPE_IN_USE = 32768
_LINES_AT_ONCE, _LINES_A_SECOND = 1000, 100
_PATIENCE = 30.0
_PAUSE = 0.001


class Reports:
    """What is told to whoever started the keeper, as long as it listens; it is never waited for.

    :param descriptor: the pipe.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._left_out = 0
        self._allowed = float(_LINES_AT_ONCE)
        self._allowed_at = time.monotonic()
        os.set_blocking(descriptor, False)

    def tell(self, **message: Any) -> None:
        """Tell what must be heard: there is room for it, since lines leave some."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        poll.poll(_PATIENCE * 1000)
        self._write(message)

    def line(self, text: str) -> None:
        """Tell a line of the script's, where the listener keeps up and it was not too many of them."""
        now = time.monotonic()
        self._allowed = min(_LINES_AT_ONCE, self._allowed + (now - self._allowed_at) * _LINES_A_SECOND)
        self._allowed_at = now
        if self._allowed < 1 or self._waiting() > _PIPE_IN_USE:
            self._left_out += 1
            return
        self._allowed -= 1
        self.flush()
        self._write({"line": text})

    def flush(self) -> None:
        """Say how many lines were left out."""
        if self._left_out:
            left_out, self._left_out = self._left_out, 0
            self._write({"line": f"({left_out} lines are left out here; the script's log has them)"})

    def _write(self, message: dict[str, Any]) -> None:
        # Of less than 4 KiB a pipe takes all or nothing (pipe(7)).
        with contextlib.suppress(OSError):
            os.write(self._descriptor, json.dumps(message, ensure_ascii=False).encode() + b"\n")

    def _waiting(self) -> int:
        with contextlib.suppress(OSError):
            return int(struct.unpack("i", fcntl.ioctl(self._descriptor, termios.FIONREAD, b"\0\0\0\0"))[0])
        return 0


class Output:
    """One of a script's outputs: masked, written to its log, told line by line.

    :param path: of the log.
    :param limit: bytes of the log.
    :param hidden: texts that are masked.
    :param reports: who is told its lines; None: nobody.
    """

    def __init__(self, path: Path, limit: int, hidden: list[str], reports: Reports | None) -> None:
        self._log = ScriptLog(path, limit)
        self._masking = MaskingStream(hidden)
        self._reports = reports
        self._line = b""
        self.reading, self.writing = os.pipe()
        self.inode = os.fstat(self.reading).st_ino
        self.open = True

    def read(self) -> None:
        """Take what there is, or find that nobody writes any more."""
        data = os.read(self.reading, _CHUNK)
        if data:
            if self._log.full:
                time.sleep(_PAUSE)  # who prints for ever shall not keep a processor busy with it
            self._take(self._masking.feed(data))
        else:
            self.open = False

    def say(self, text: str) -> None:
        """Add words of our own."""
        self._take(text.encode("utf-8", "replace"))

    def close(self) -> None:
        """End the log."""
        self._take(self._masking.end())
        if self._line:
            self._tell(self._line)
        self._log.close()
        os.close(self.reading)

    def _take(self, data: bytes) -> None:
        self._log.write(data)
        if self._reports is None:
            return
        *whole, self._line = (self._line + data).split(b"\n")
        for line in whole:
            self._tell(line)
        while len(self._line) > _LONGEST_LINE:
            self._tell(self._line[:_LONGEST_LINE])
            self._line = self._line[_LONGEST_LINE:]

    def _tell(self, line: bytes) -> None:
        assert self._reports is not None
        text = line[:_LONGEST_LINE].decode("utf-8", "replace").rstrip("\r")
        self._reports.line("".join(letter if letter.isprintable() else " " for letter in text))
