"""`python -m benchmarks.activation [ROUNDS]`: the first answer of an agent that had left, beside a plain start's."""

import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import time

from benchmarks.load import ask_once, messages
from benchmarks.subjects import Installation, compiled, installation, running


def main(rounds: int = 15) -> None:
    """Measure in turns, and print medians in milliseconds."""
    plain, after_leaving, imports = [], [], []
    with compiled(), installation() as place:
        for _ in range(rounds):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", "import asyncio"], check=True)
            imports.append(time.perf_counter() - began)
            (message,) = messages(place.key, "sealed", 1)
            began = time.perf_counter()
            with running(place.start(), place.port):
                ask_once(place.port, message)
                plain.append(time.perf_counter() - began)
            after_leaving.append(_first_answer_by_activation(place))
    base = statistics.median(imports)
    for name, taken in (
        ("import asyncio", imports),
        ("start to first answer", plain),
        ("connection to first answer, the agent having left", after_leaving),
    ):
        print(
            f"{name}: {statistics.median(taken) * 1000:.0f} ms, {statistics.median(taken) / base:.1f} times the import"
        )


def _first_answer_by_activation(place: Installation) -> float:
    """Hold the agent's socket as systemd does, connect, and start the agent when that is seen."""
    (message,) = messages(place.key, "sealed", 1)
    with socket.create_server(("127.0.0.1", place.port)) as listening:
        client = os.fork()
        if client == 0:
            began = time.perf_counter()
            ask_once(place.port, message)
            taken = time.perf_counter() - began
            (place.etc / "taken").write_text(str(taken))
            os._exit(0)
        select.select([listening], [], [])
        agent = os.fork()
        if agent == 0:
            os.dup2(os.dup(listening.fileno()), 3)
            os.set_inheritable(3, True)
            environment = {**os.environ, "LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os.execve(
                sys.executable, [sys.executable, "-m", "scalarizr", "serve", "--etc", str(place.etc)], environment
            )
        os.waitpid(client, 0)
        os.kill(agent, signal.SIGTERM)
        os.waitpid(agent, 0)
    return float((place.etc / "taken").read_text())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
