"""A real agent behind a socket that the test holds, as systemd holds it: started by hand, or by whoever connects."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from running_agent import RunningAgent

# systemd gives a service its sockets as descriptors 3 and up, and says for which process they are meant.
_AS_SYSTEMD = """\
import fcntl, os, sys
count = int(sys.argv[1])
given = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in sys.argv[2:2 + count]]
for number, descriptor in enumerate(given, 3):
    os.dup2(descriptor, number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2 + count], sys.argv[2 + count:])
"""


class ActivatedAgent(RunningAgent):
    """An agent whose socket outlives it.

    :param settings: TOML that is added to the settings.
    """

    def __init__(self, directory: Path, settings: str = "", command: list[str] | None = None) -> None:
        super().__init__(directory, settings, command=command)
        self.listening = socket.create_server(("127.0.0.1", self.port), backlog=1024)
        self.environment: dict[str, str] = {}

    def start(self, wait: bool = True, etc: str | None = None, directory: Path | None = None) -> "ActivatedAgent":
        passed = [self.listening]
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", _AS_SYSTEMD, str(len(passed)), *(str(one.fileno()) for one in passed)),
                *(*self.command, "--etc", str(self.etc), "--listen", f"127.0.0.1:{self.port}"),
            ],
            env={**os.environ, "LISTEN_FDS": str(len(passed)), "LISTEN_FDNAMES": "test.socket", **self.environment},
            pass_fds=[one.fileno() for one in passed],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        if wait:
            self.wait_until_it_answers()
        return self

    def restart(self, how: int = signal.SIGTERM) -> None:
        """End it and start the next one, as `systemctl restart` does; it may not answer yet."""
        assert self.process is not None
        self.process.send_signal(how)
        self._reap()
        self.start(wait=False)

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        self.listening.close()


class Activator:
    """Starts an agent whenever somebody connects while there is none, as systemd does."""

    def __init__(self, agent: ActivatedAgent) -> None:
        self._agent = agent
        self._end, self._told = socket.socketpair()
        self.starts = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while True:
            readable, _, _ = select.select([self._agent.listening, self._end], [], [])
            if self._end in readable:
                return
            self.starts += 1
            self._agent.start(wait=False)
            process = self._agent.process
            assert process is not None and process.stdout is not None
            ended = os.pidfd_open(process.pid)
            select.select([ended, self._end], [], [])
            os.close(ended)
            if process.poll() is None:
                process.terminate()
            process.wait()
            process.stdout.close()

    def __enter__(self) -> "Activator":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._told.close()
        self._thread.join()
        self._end.close()
