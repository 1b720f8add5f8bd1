"""The keeper of one script: starts it, writes its logs, ends all of it at its limit, takes its file away.

`python -m scalarizr.system.script_keeper`: a small process of its own in a session of its own, so that a script is kept
to its limit and its logs are written whoever else was killed. What it has to do comes as one line of JSON (`Task`) on
standard input. What happens goes to standard output, a JSON object a line: `{"started": true}`, `{"line": TEXT}`,
`{"ended": {return_code, elapsed, timed_out}}`, `{"failed": TEXT}`.

An attached keeper ends the script when its standard input is closed: whoever started it is gone, or wants it so.
SIGTERM says the same to any.
"""

import contextlib
import errno
import fcntl
import json
import os
import selectors
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scalarizr.system import process_tree
from scalarizr.system.script_output import Output, Reports

GRACE = 2.0
_KILLING = 10.0
_SHEBANG = 256  # linux/binfmts.h, BINPRM_BUF_SIZE
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # as shells have it


class Keeper:
    """Runs one script.

    :param task: what to do: see `scripts.keeper_task`.
    :param reports: who is told.
    """

    def __init__(self, task: dict[str, Any], reports: Reports) -> None:
        self._task = task
        self._reports = reports
        self._attached = bool(task["attached"])
        listener = reports if self._attached else None
        size, hidden = int(task["log_size"]), task["hidden"]
        self._out = Output(Path(task["out"]), size, hidden, listener)
        self._err = Output(Path(task["err"]), size, hidden, listener)
        self._main = 0
        self._status: int | None = None
        self._childless = False
        self._told_to_end = False
        self._selector = selectors.DefaultSelector()
        for output in (self._out, self._err):
            self._selector.register(output.reading, selectors.EVENT_READ, output.read)
        woken, self._waking = os.pipe()
        for descriptor in (woken, self._waking):
            os.set_blocking(descriptor, False)
        self._selector.register(woken, selectors.EVENT_READ, lambda: self._wake(woken))
        signal.set_wakeup_fd(self._waking, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.signal(signal.SIGTERM, lambda _number, _frame: self._end())
        if self._attached:
            self._selector.register(0, selectors.EVENT_READ, self._hear)

    def run(self) -> None:
        """Run it to its end, and tell how that was."""
        began = time.monotonic()
        self._pump(0, lambda: True)
        try:
            if self._told_to_end:
                raise InterruptedError(errno.EINTR, "it was cancelled before")
            self._start()
        except (OSError, subprocess.SubprocessError) as error:
            for output in (self._out, self._err):
                os.close(output.writing)
            self._err.say(f"The script was not started: {_words(error)}.\n")
            self._status = _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
        self._reports.tell(started=True)
        limit = float(self._task["timeout"])
        self._pump(began + limit - time.monotonic(), lambda: self._status is not None or self._told_to_end)
        timed_out = self._status is None and not self._told_to_end
        elapsed = time.monotonic() - began
        if self._status is None:
            self._end_all()
            elapsed = time.monotonic() - began
        else:
            self._end_who_holds_the_output()
        for output in (self._out, self._err):
            output.close()
        self._reports.flush()
        self._reports.tell(
            ended={"return_code": self._status, "elapsed": round(elapsed, 3), "timed_out": timed_out},
        )

    def _start(self) -> None:
        task = self._task
        argv = task["argv"]
        if task["body"] is not None:
            path = Path(task["directory"]) / task["file"]
            _write_body(path, task["body"], task["uid"], task["gid"])
            argv = [*_interpreter(task["body"].encode()), str(path)]
        elif _only_to_be_read(argv[0]):
            # What the kernel does not start from such a file system it may still read to an interpreter.
            with open(argv[0], "rb") as file:
                argv = [*_interpreter(file.read(_SHEBANG)), argv[0]]
        account = {"user": task["uid"], "group": task["gid"], "extra_groups": task["groups"]}
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=self._out.writing,
            stderr=self._err.writing,
            env=task["environment"],
            cwd=task["cwd"] if os.path.isdir(task["cwd"]) else "/",
            umask=0o022,
            start_new_session=True,
            preexec_fn=process_tree.die_with_the_parent,
            **(account if task["other_account"] else {}),
        )
        self._main = process.pid
        process.returncode = 0  # it is reaped with all the others, not by this object
        for output in (self._out, self._err):
            os.close(output.writing)

    def _end_all(self) -> None:
        """End the script and whatever it started: politely first, then not."""
        process_tree.tell_descendants(signal.SIGTERM)
        self._pump(GRACE, lambda: self._childless)

        def wait(seconds: float) -> bool:
            self._pump(seconds, lambda: self._childless)
            return self._childless

        process_tree.end_descendants(wait, _KILLING)
        self._pump(GRACE, self._all_is_read)

    def _end_who_holds_the_output(self) -> None:
        """End what the script left running and still belongs to it: what can write to its output.

        A daemon that let go of that is none of ours.
        """
        self._pump(GRACE, lambda: self._all_is_read() or self._told_to_end)
        deadline = time.monotonic() + _KILLING
        while not self._all_is_read() and time.monotonic() < deadline:
            pipes = [output.inode for output in (self._out, self._err) if output.open]
            for pid in process_tree.holders_of(pipes, process_tree.descendants()):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            self._pump(0.05, self._all_is_read)

    def _all_is_read(self) -> bool:
        return not (self._out.open or self._err.open)

    def _pump(self, seconds: float, enough: Callable[[], bool]) -> None:
        """Read, write and reap until it is enough, or for so long; takes what is there in any case."""
        deadline = time.monotonic() + seconds
        while True:
            self._reap()
            left = deadline - time.monotonic()
            done = enough() or left <= 0
            ready = self._selector.select(0 if done else left)
            for key, _events in ready:
                key.data()
            for output in (self._out, self._err):
                if not output.open and output.reading in self._selector.get_map():
                    self._selector.unregister(output.reading)
            if done:
                return

    def _reap(self) -> None:
        ended, any_left = process_tree.reap()
        self._childless = not any_left
        if self._main in ended:
            self._status = ended[self._main]

    def _wake(self, woken: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(woken, 4096)

    def _hear(self) -> None:
        if not os.read(0, 4096):
            self._selector.unregister(0)
            self._end()

    def _end(self) -> None:
        self._told_to_end = True


def _write_body(path: Path, body: str, uid: int, gid: int) -> None:
    """Write a script's text where its account alone can read it, in a directory of its own."""
    path.parent.mkdir(mode=0o700)
    # For whoever looks for directories that were left behind: held until this process ends.
    fcntl.flock(os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), fcntl.LOCK_EX)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o700)
    with open(descriptor, "wb") as file:
        file.write(body.encode())
        if (uid, gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, uid, gid)
    if (uid, gid) != (os.geteuid(), os.getegid()):
        os.chown(path.parent, uid, gid)


def _interpreter(text: bytes) -> list[str]:
    """Give the interpreter that the first line names, and its one argument, as the kernel reads it (execve(2)).

    The agent starts it itself: so a script runs from a file system that is mounted noexec, too.
    """
    words = os.fsdecode(text[:_SHEBANG].split(b"\n", 1)[0].removeprefix(b"#!")).strip(" \t").split(None, 1)
    if not words:
        raise FileNotFoundError(2, "its first line names no interpreter")
    return words


def _words(error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error).rstrip(".")
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)


def _only_to_be_read(path: str) -> bool:
    with contextlib.suppress(OSError):
        noexec = bool(os.statvfs(path).f_flag & os.ST_NOEXEC)
        mode = os.stat(path).st_mode
        if noexec and stat.S_ISREG(mode) and mode & 0o111:
            with open(path, "rb") as file:
                return file.read(2) == b"#!"
    return False


def main() -> None:
    """Keep the script of the task on standard input."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)  # an ignored one the script would ignore, too
    reports = Reports(1)
    text = sys.stdin.buffer.readline()
    if not text.endswith(b"\n"):
        return  # whoever was about to say what to do is gone
    task = json.loads(text)
    directory = task["directory"]
    try:
        process_tree.adopt_orphans()
        keeper = Keeper(task, reports)
    except OSError as error:
        reports.tell(failed=f"{error.filename or 'prctl'}: {error.strerror}")
        return
    try:
        keeper.run()
    finally:
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
