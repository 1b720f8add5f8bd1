"""A frozen file system under fire: its worker and both watchdogs killed at random instants, singly and together."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from block_devices import BlockDevices, said
from scalarizr.host.processes import is_alive, wait_until
from scalarizr.storage.freezing import thaw_after_death

pytestmark = pytest.mark.root
WORKER = Path(__file__).with_name("freezing_worker.py")
# Whoever is killed together: the worker, the first watchdog, the second.
VICTIMS = ("worker", "first", "second", "worker first", "worker second", "first second", "worker first second")
SOON = 60.0  # on a quiet machine it is some milliseconds; a busy one has to be given its time


class Writer:
    """Writes all the time, so that it shows when a file system can be written to."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
        self.writes: list[tuple[float, float]] = []
        self._stopped = False
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        while not self._stopped:
            began = time.monotonic()
            os.pwrite(self._file, os.urandom(512), 0)
            os.fsync(self._file)
            self.writes.append((began, time.monotonic()))
            time.sleep(0.002)
        os.close(self._file)

    def wait_for_a_write(self, since: float) -> float | None:
        """Give how many seconds after an instant a write had succeeded; None where none did soon."""
        while time.monotonic() < since + SOON:
            for _began, ended in reversed(self.writes[-3:]):
                if ended > since:
                    return ended - since
            time.sleep(0.005)
        return None

    def stop(self) -> None:
        self._stopped = True
        self._thread.join(SOON)


class FreezingWorker:
    def __init__(self, mpoint: Path, note: Path) -> None:
        self.mpoint, self.note = mpoint, note
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "FreezingWorker":
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self.all():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self.process is not None:
            self.process.communicate()
        thaw_after_death(str(self.mpoint))

    def begin(self, seconds: float, limit: float = 60) -> None:
        if self.process is None:
            command = [sys.executable, str(WORKER), str(self.mpoint), str(self.note)]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        print(seconds, limit, file=self.process.stdin, flush=True)
        assert self.hear()[0] == "working"

    def hear(self) -> list[str]:
        assert self.process is not None and self.process.stdout is not None
        return self.process.stdout.readline().split()

    def hear_the_end(self) -> tuple[float, float, str]:
        since = 0.0
        while words := self.hear():
            if words[0] == "frozen":
                since = float(words[1])
            else:
                return since, float(words[1]), words[2]
        raise AssertionError("the worker ended without a word")

    def all(self) -> list[psutil.Process]:
        """Give the worker, the first and the second watchdog, as far as they are there."""
        if self.process is None:
            return []
        try:
            worker = psutil.Process(self.process.pid)
            return [worker, *worker.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self, whom: str) -> None:
        """Kill at once whoever of them is there."""
        there = dict(zip(("worker", "first", "second"), self.all(), strict=False))
        for name in whom.split():
            if name in there:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(there[name].pid, signal.SIGKILL)
        if "worker" in whom:
            assert self.process is not None
            self.process.communicate()
            self.process = None
        self.watchdogs = list(there.values())[1:]

    def wait_for_the_watchdogs(self) -> None:
        # Nobody may be there to reap an orphan: what counts is that it does nothing more.
        assert wait_until(lambda: not any(is_alive(process.pid) for process in self.watchdogs), SOON), self.watchdogs


@pytest.fixture(params=["ext4", "xfs", "btrfs"])
def mpoint(request: Any, tmp_path: Path) -> Iterator[Path]:
    disks = BlockDevices(tmp_path)
    device = disks.make(512)
    said(f"mkfs.{request.param}", "-q", device)
    (tmp_path / "m").mkdir()
    said("mount", device, tmp_path / "m")
    yield tmp_path / "m"
    disks.close()


def kill_at_random(mpoint: Path, rounds: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    writer = Writer(mpoint / "written")
    waits = []
    with FreezingWorker(mpoint, mpoint.parent / "note") as worker:
        try:
            for number in range(rounds):
                whom = VICTIMS[number % len(VICTIMS)]
                length = chance.choice([0.0, 0.05, 0.1])
                worker.begin(length)
                time.sleep(chance.uniform(0, 0.2))
                worker.kill(whom)
                killed = time.monotonic()
                if worker.process is None:
                    if whom == "worker first second" and worker.note.exists():
                        thaw_after_death(worker.note.read_text())  # as the agent does, told by the note
                    worker.note.unlink(missing_ok=True)
                else:
                    since, until, error = worker.hear_the_end()
                    killed = max(killed, until)
                    assert not worker.note.exists()
                    if error == "none":
                        inside = [one for one in writer.writes if since < one[0] and one[1] < until]
                        assert not inside, (number, whom, since, until, inside)
                    else:
                        # Without the second, nothing is frozen to begin with.
                        assert error == "Interrupted" and ("first" in whom or not since), (number, whom, error)
                waited = writer.wait_for_a_write(killed)
                assert waited is not None, (number, whom, "nothing can be written: it is still frozen")
                waits.append(waited)
                worker.wait_for_the_watchdogs()
        finally:
            thaw_after_death(str(mpoint))
            writer.stop()
    print(f"{rounds} kills, writable after {max(waits) * 1000:.0f} ms at most")


def test_whatever_is_killed_the_file_system_thaws(mpoint: Path) -> None:
    kill_at_random(mpoint, 2 * len(VICTIMS))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_whatever_is_killed_the_file_system_thaws_hundreds_of_times(mpoint: Path) -> None:
    kill_at_random(mpoint, 60 * len(VICTIMS))
