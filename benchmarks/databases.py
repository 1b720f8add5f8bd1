"""Backups of PostgreSQL beside the pipe that a person would type, pgBackRest and Barman: the same database, in turn.

`BENCHMARK_SCALE=135` makes the database one of 2 GB (pgbench's scale, 15 MB each); 8 where it is not set.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.subjects import installation, proportional_size, running

# The servers that the tests run against are the ones that are measured.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from benchmarks.base_backups import Tool, tools
from private_postgresql import PrivateCluster, as_postgres, programs
from private_s3 import PrivateS3
from scalarizr.client import Client

Row = tuple[str, str, str, str]
_ROUNDS = 5
_MB = 1e6


def databases() -> list[Row]:
    """create_backup of a pgbench database to a directory and to S3, beside the pipe by hand and two other tools."""
    scale = int(os.environ.get("BENCHMARK_SCALE", "8"))
    with PrivateCluster() as cluster, PrivateS3() as s3, tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        place.chmod(0o711)  # the other tools run as postgres
        cluster.psql("CREATE DATABASE bench")
        where = ("-h", str(cluster.socket_dir), "-p", str(cluster.port))
        as_postgres(programs() / "pgbench", *where, "-q", "-i", "-s", str(scale), "bench", timeout=1800)
        size = int(cluster.psql("SELECT pg_database_size('bench')")) / _MB
        by_hand, flushed, near, far, peaks, hand_used, near_used = [], [], [], [], [], [], []
        here = f'{cluster.settings}[backup]\nstore = "file://{place}/store"\nkeep = 1\n'
        there = f'{cluster.settings}[backup]\nstore = "s3://{s3.bucket}/bench"\nkeep = 1\n'
        there += f'endpoint_url = "{s3.endpoint_url}"\n'
        with (
            _agent(here) as (client, pid),
            _agent(there) as (far_client, far_pid),
            tools(cluster, place) as others,
        ):
            beside: dict[Tool, list[float]] = {tool: [] for tool in others}
            weights: dict[Tool, list[float]] = {tool: [] for tool in others}
            for _ in range(_ROUNDS):
                used = _used_by(os.getpid(), cluster)
                taken, synced = _by_hand(cluster, place)
                hand_used.append(_used_by(os.getpid(), cluster) - used)
                by_hand.append(taken)
                flushed.append(synced)
                for caller, agent, results in ((client, pid, near), (far_client, far_pid, far)):
                    with _peak_below(agent, peaks):
                        began, used = time.perf_counter(), _used_by(agent, cluster)
                        caller.call("postgresql.create_backup", async_=False, _platform_access_data=s3.access)
                        results.append(time.perf_counter() - began)
                    if agent == pid:
                        near_used.append(_used_by(agent, cluster) - used)
                for tool in others:
                    beside[tool].append(_by_tool(tool, weights[tool]))
    hand, sync, ours, remote = map(statistics.median, (by_hand, flushed, near, far))
    cpu, hand_cpu = statistics.median(near_used), statistics.median(hand_used)
    pipe = "pg_dump -Fc -Z0 | zstd | tee | sha256sum"
    return [
        (
            f"create_backup of {size:,.0f} MB to a directory, beside `{pipe}`",
            f"{ours:.2f} s",
            f"{hand:.2f} s",
            f"{ours / hand:.2f} times (goal: at most 1)",
        ),
        (
            "beside the same with `sync` of its file, as ours is flushed",
            f"{ours:.2f} s",
            f"{sync:.2f} s",
            f"{ours / sync:.2f} times",
        ),
        (
            "processor time of it all, the server's included, beside that of the pipe",
            f"{cpu:.2f} s",
            f"{hand_cpu:.2f} s",
            f"{cpu / hand_cpu:.2f} times",
        ),
        (
            "the same to S3 on the same machine, beside the directory",
            f"{remote:.2f} s",
            f"{ours:.2f} s",
            f"{remote / ours:.2f} times (goal: at most 1.15)",
        ),
        ("peak memory (PSS) of worker and dumps", f"{max(peaks):.0f} MB", "300 MB", "goal: under"),
        *(
            (
                f"create_backup of the same, beside {tool.title}, which copies the cluster's files",
                f"{ours:.2f} s, {max(peaks):.0f} MB",
                f"{statistics.median(beside[tool]):.2f} s, {max(weights[tool]):.0f} MB",
                f"{ours / statistics.median(beside[tool]):.2f} times; no goal",
            )
            for tool in others
        ),
    ]


@contextmanager
def _agent(settings: str) -> Iterator[tuple[Client, int]]:
    with installation(settings) as place, running(place.start(), place.port) as process:
        client = Client(f"http://127.0.0.1:{place.port}", key_file=place.key_file, timeout=3600)
        with client:
            yield client, process.pid


def _by_hand(cluster: PrivateCluster, place: Path) -> tuple[float, float]:
    """Give the seconds of the pipe, and of the pipe with its file flushed to the disk."""
    target = place / "by-hand.dump.zst"
    dump = f"{programs()}/pg_dump -Fc -Z0 -h {cluster.socket_dir} -p {cluster.port} bench"
    script = f"runuser -u postgres -- {dump} | zstd -q | tee {target} | sha256sum"
    began = time.perf_counter()
    subprocess.run(["bash", "-o", "pipefail", "-c", script], check=True, cwd="/", stdout=subprocess.DEVNULL)
    taken = time.perf_counter() - began
    subprocess.run(["sync", target], check=True)
    synced = time.perf_counter() - began
    target.unlink()
    return taken, synced


def _by_tool(tool: Tool, weights: list[float]) -> float:
    """Give the seconds of another tool's backup; its memory goes into `weights`."""
    began = time.perf_counter()
    process = tool.start()
    with _peak_below(process.pid, weights, itself=True):
        assert process.wait(1800) == 0, f"{tool.title} failed"
    return time.perf_counter() - began


def _used_by(pid: int, cluster: PrivateCluster) -> float:
    """Give the processor seconds of a process and what it has waited for, and of the server's ended sessions."""
    server = cluster.pid()
    assert server is not None
    time.sleep(0.3)  # a session ends after its client
    total = 0
    for process in (pid, server):
        columns = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, columns[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


@contextmanager
def _peak_below(parent: int, peaks: list[float], *, itself: bool = False) -> Iterator[None]:
    """Measure the memory of all that a process started, ten times a second, while the block runs."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            total = 0.0
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(parent)
                for one in (*process.children(recursive=True), *([process] if itself else [])):
                    with contextlib.suppress(OSError, AssertionError):
                        total += proportional_size(one.pid)
            peaks.append(total)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
