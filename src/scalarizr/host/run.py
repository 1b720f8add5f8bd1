"""The one way to run a program: an argument vector, a limit in time and in output, its whole process group reaped."""

import contextlib
import os
import pwd
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

import msgspec

from scalarizr.errors import OutsideFailure, TimedOut
from scalarizr.host.locks import inherited_locks

_CLEAN_ENVIRONMENT = ("PATH", "LANG", "TZ", "TMPDIR", "HOME", "USER", "LOGNAME")


Shield = Callable[[], AbstractContextManager[None]]
_shield: ContextVar[Shield] = ContextVar("shield", default=contextlib.nullcontext)


def shielded() -> AbstractContextManager[None]:
    """Let what a signal's handler raises in the main thread wait until the block has ended.

    In it a program is started and noted: cut off in between, it would run on, and nobody would know of it.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    return _shield.get()() if in_main_thread else contextlib.nullcontext()


def set_shield(shield: Shield) -> None:
    """Say, for the present context, how that is done: for whoever has such a handler."""
    _shield.set(shield)


def clean_environment(added: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give the small environment that programs get, with variables added."""
    variables = {name: os.environ[name] for name in _CLEAN_ENVIRONMENT if name in os.environ}
    variables.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    variables["LC_ALL"] = "C.UTF-8"
    variables.update(added or {})
    return variables


class Finished(msgspec.Struct, frozen=True):
    """How a program ended.

    :param returncode: its exit status; negative: the signal that ended it.
    :param stdout: what it printed, cut at the limit.
    :param stderr: the same, of its error output.
    """

    returncode: int
    stdout: bytes
    stderr: bytes

    def last_words(self, limit: int = 600) -> str:
        """Give the end of what it said, for an error message: stderr, else stdout."""
        text = (self.stderr.strip() or self.stdout.strip()).decode("utf-8", "replace")
        return text if len(text) <= limit else "…" + text[-limit:]


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    timeout: float,
    input: bytes = b"",  # noqa: A002  the name that subprocess and its readers know
    output_limit: int = 1 << 20,
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
    directory: str | os.PathLike[str] | None = None,
    keep: Sequence[int] = (),
    leaves_daemon: bool = False,
) -> Finished:
    """Run a program to its end.

    The program gets its own session; at the limit, and at its end, whatever is left of its process group is killed.
    It inherits no descriptor but those to keep, and only a small environment.

    :param command: the argument vector; the first is found on PATH. Never a shell.
    :param timeout: seconds to its end.
    :param input: what it reads on standard input; secrets go here, never into `command`.
    :param output_limit: bytes kept of each output; the rest is read and thrown away.
    :param environment: variables added to the small clean set.
    :param user: account to run as, with its groups; root only, but for the agent's own.
    :param directory: its working directory; `/` when None.
    :param keep: descriptors that it holds, too, to its end: those of locks.
    :param leaves_daemon: it may leave a process behind, which is killed only where the program failed or did not end:
        a daemon needs a moment after its parent's end to get a session of its own (daemon(7)).
    :raises TimedOut: it did not end in time; everything it started in its group was killed.
    :raises OutsideFailure: it could not be started.
    """
    name = os.fspath(command[0])
    process: subprocess.Popen[bytes] | None = None
    try:
        with shielded():
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE if input else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env=clean_environment(environment),
                cwd=directory or "/",
                **as_account(user),
                umask=0o022,  # what programs expect, whatever the agent's own is
                bufsize=0,
                pass_fds=(*keep, *inherited_locks()),
            )
        stdout, stderr = _exchange(process, input, time.monotonic() + timeout, output_limit)
        return Finished(process.returncode, stdout, stderr)
    except OSError as error:
        if process is None:
            words = f"{name} could not be started: {error.strerror or error}."
            raise OutsideFailure(words, {"program": name}) from error
        if isinstance(error, TimeoutError):
            words = f"{name} did not end within {timeout:g} s and was stopped."
            raise TimedOut(words, {"program": name, "limit": float(timeout)}) from None
        raise
    finally:
        if process is not None:
            _end_group(process, spared=leaves_daemon and process.returncode == 0)


def as_account(name: str | None) -> dict[str, Any]:
    """Give what makes a program run as an account: its groups, too, or the program would keep those of root."""
    if name is None:
        return {}
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        raise OutsideFailure(f"There is no account {name} on this host.", {"account": name}) from None
    if account.pw_uid == os.geteuid() != 0:
        return {}
    groups = os.getgrouplist(name, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}


def _exchange(process: "subprocess.Popen[bytes]", data: bytes, deadline: float, limit: int) -> tuple[bytes, bytes]:
    assert process.stdout is not None and process.stderr is not None
    kept: dict[int, bytearray] = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    out, err = kept
    pending = memoryview(data)
    with selectors.DefaultSelector() as selector:
        for descriptor in kept:
            selector.register(descriptor, selectors.EVENT_READ)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin.fileno(), selectors.EVENT_WRITE)
        # A grandchild may keep the pipes open after the program itself ended: what counts is the program, so its end
        # is noticed on a pidfd beside the pipes.
        ended = os.pidfd_open(process.pid)
        try:
            selector.register(ended, selectors.EVENT_READ)
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                ready = [key.fd for key, _ in selector.select(left)]
                for descriptor in ready:
                    if descriptor in kept:
                        chunk = os.read(descriptor, 65536)
                        if not chunk:
                            selector.unregister(descriptor)
                        room = limit - len(kept[descriptor])
                        kept[descriptor] += chunk[: max(room, 0)]
                    elif descriptor != ended:
                        assert process.stdin is not None
                        try:
                            pending = pending[os.write(descriptor, pending) :]
                        except BlockingIOError:
                            continue
                        except BrokenPipeError:
                            pending = memoryview(b"")
                        if not pending:
                            selector.unregister(descriptor)
                            process.stdin.close()
                if ready == [ended]:
                    process.wait()
                    return bytes(kept[out]), bytes(kept[err])
        finally:
            os.close(ended)


def _end_group(process: "subprocess.Popen[bytes]", *, spared: bool) -> None:
    if not spared:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    # A process in uninterruptible sleep does not die at once: it is left to the reaper of its parent, not waited for.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=1)
