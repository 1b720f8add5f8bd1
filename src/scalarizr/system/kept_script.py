"""A script's keeper, as the operation that started it sees it: told what to do, listened to, ended or let go."""

import contextlib
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from scalarizr.errors import OutsideFailure
from scalarizr.operations.progress import current
from scalarizr.system import process_tree

ENDING = 20.0  # what a keeper gets to end a script when it is told so, in seconds
_STARTING = 60.0


class KeptScript:
    """A keeper at work; at the end of the block it has ended, and its script with it, unless it was let go.

    :param task: what it has to do.
    :param name: the script's, for messages.
    """

    def __init__(self, task: Mapping[str, Any], name: str) -> None:
        self._task = task
        self._name = name
        self._spared = frozenset(process_tree.children())
        self._process: subprocess.Popen[bytes] | None = None
        self._told = bytearray()
        self._let_go = False
        self._ended = False

    def __enter__(self) -> "KeptScript":
        return self

    def _start(self) -> "subprocess.Popen[bytes]":
        try:
            # A cancellation comes before or after it: there is no process that nobody knows of.
            with current().uninterrupted():
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "scalarizr.system.script_keeper"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,
                    cwd="/",
                    bufsize=0,
                )
        except OSError as error:
            raise OutsideFailure(f"The script {self._name} cannot be started: {error.strerror}.") from error
        assert self._process is not None and self._process.stdin is not None
        _write(self._process.stdin.fileno(), msgspec.json.encode(self._task) + b"\n")
        return self._process

    def messages(self, to_the_first: float, between: float) -> Iterator[dict[str, Any]]:
        """Start it; gives what it tells, up to its end.

        :param to_the_first: seconds that the first message may take.
        :param between: seconds that each further one may take.
        :raises OutsideFailure: it cannot be started, ended without having told how its script did, or told nothing for
            so long.
        """
        process = self._start()
        assert process.stdout is not None
        patience = to_the_first
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while selector.select(patience):
                data = os.read(process.stdout.fileno(), 65536)
                if not data:
                    break
                *whole, rest = (self._told + data).split(b"\n")
                self._told = bytearray(rest)
                for text in whole:
                    patience = between
                    message: dict[str, Any] = msgspec.json.decode(bytes(text))
                    self._ended = "ended" in message or "failed" in message
                    yield message
                    if self._ended:
                        return
        raise OutsideFailure(
            f"The process that watched over the script {self._name} ended before its time; the script was ended. "
            "Its logs hold what it printed."
        )

    def let_go(self) -> None:
        """Leave it, with its script, to itself."""
        self._let_go = True

    def __exit__(self, *_failure: object) -> None:
        if self._process is not None:
            with current().uninterrupted():
                self._close(self._process)

    def _close(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        if self._let_go:
            process.stdout.close()
            return
        if not self._ended:
            process.terminate()
        # Of one that is cancelled what it says any more is of no interest, and must not fill the pipe.
        deadline = time.monotonic() + ENDING
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0 and selector.select(left):
                if not os.read(process.stdout.fileno(), 65536):
                    break
        process.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(deadline - time.monotonic(), 0.1))
        if process.poll() is None or not self._ended:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(ENDING)
            self._end_what_it_left()

    def _end_what_it_left(self) -> None:
        """End what a keeper that was killed could not end: it is ours now."""

        def wait(seconds: float) -> bool:
            deadline = time.monotonic() + seconds
            while not (done := process_tree.reap_but(self._spared)) and time.monotonic() < deadline:
                time.sleep(0.005)
            return done

        process_tree.end_descendants(wait, ENDING, self._spared)


def _write(descriptor: int, data: bytes) -> None:
    """Write all of it to a pipe; one that nobody reads is left."""
    os.set_blocking(descriptor, False)
    view = memoryview(data)
    with contextlib.suppress(BrokenPipeError), selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_WRITE)
        while view and selector.select(_STARTING):
            view = view[os.write(descriptor, view) :]
