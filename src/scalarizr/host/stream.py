"""Running a program whose output is too much to keep: read piece by piece as it comes. `run` is for the others."""

import contextlib
import fcntl
import os
import selectors
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

from scalarizr.errors import OutsideFailure, TimedOut
from scalarizr.host.run import Finished, as_account, clean_environment, shielded

_PIPE = 2**20
_WORDS = 2**14
_WORTH = 2**17
_GATHERING = 0.001
_DYING = 10.0


class Stream:
    """A program that writes to its standard output; to be used as a context manager, at whose end it was killed.

    It stays in the caller's process group, so that whoever kills that ends it too.

    :param command: the argument vector. Never a shell.
    :param stall: seconds that it may say nothing while it is waited for.
    :param environment: variables added to the small clean set.
    :param user: account to run as, with its groups; root only, but for the agent's own.
    :ivar taken: bytes that it has written so far.
    :ivar waited_since: when (time.monotonic) the wait for its next bytes began; None while nobody waits.
    :raises OutsideFailure: it could not be started.
    """

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        stall: float,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> None:
        self._name = os.fspath(command[0])
        self._stall = stall
        self._errors = bytearray()
        self.taken = 0
        self.waited_since: float | None = None
        process: subprocess.Popen[bytes] | None = None
        try:
            with shielded():
                process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=clean_environment(environment),
                    cwd="/",
                    **as_account(user),
                    umask=0o077,
                    bufsize=0,
                )
            self._process = process
        except OSError as error:
            raise OutsideFailure(
                f"{self._name} could not be started: {error.strerror or error}.", {"program": self._name}
            ) from error
        except BaseException:
            if process is not None:
                self._process = process
                self.__exit__(None, None, None)
            raise

    def chunks(self) -> Iterator[bytes]:
        """Give what it writes, up to its end; how that was tells `finished` then.

        :raises TimedOut: it said nothing for too long.
        """
        process = self._process
        assert process.stdout is not None and process.stderr is not None
        with contextlib.suppress(OSError):  # more than an account may have: then in smaller pieces
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, _PIPE)
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            selector.register(process.stderr, selectors.EVENT_READ)
            while selector.get_map():
                self.waited_since = time.monotonic()
                ready = [key.fd for key, _events in selector.select(self._stall)]
                self.waited_since = None
                if not ready:
                    raise TimedOut(
                        f"{self._name} said nothing for {self._stall:.0f} s and was stopped.",
                        {"program": self._name, "limit": self._stall},
                    )
                for descriptor in ready:
                    piece = os.read(descriptor, self._worthwhile(descriptor))
                    if not piece:
                        selector.unregister(descriptor)
                    elif descriptor == process.stderr.fileno():
                        self._errors = (self._errors + piece)[-_WORDS:]
                    else:
                        self.taken += len(piece)
                        yield piece

    @staticmethod
    def _worthwhile(descriptor: int) -> int:
        """Give how much to read: programs write 4 KiB at a time, and to wake up for each would cost more than the work.

        The pipe takes what comes in the meantime, so that the program is not held up.
        """
        waiting = _waiting_in(descriptor)
        if waiting < _WORTH:
            time.sleep(_GATHERING)
            waiting = _waiting_in(descriptor)
        return max(waiting, 4096)

    def finished(self, timeout: float = 30) -> Finished:
        """Tell how it ended, once its output has."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimedOut(
                f"{self._name} closed its output and did not end.", {"program": self._name, "limit": float(timeout)}
            ) from None
        return Finished(status, b"", bytes(self._errors))

    def kill(self) -> None:
        """End it now; may be called from any thread."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.kill()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            # One that the kernel holds, over a disk that hangs, dies when it lets go; nobody waits for that here.
            self._process.wait(_DYING)


def _waiting_in(pipe: int) -> int:
    """Give how many bytes wait in a pipe (ioctl_tty(2), FIONREAD)."""
    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0\0\0\0"))[0])
