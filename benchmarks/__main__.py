"""Measures, and prints a table: `python -m benchmarks [start|idle|memory|throughput|nginx|apache|storage|load|…]`."""

import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.crowded import load
from benchmarks.databases import databases
from benchmarks.load import Measured, ask_once, messages, send
from benchmarks.salt import salt
from benchmarks.storage import storage
from benchmarks.subjects import compiled, cpu_seconds, free_port, installation, proportional_size, running, wake_ups
from benchmarks.web_servers import apache, nginx
from scalarizr.client import Client

Row = tuple[str, str, str, str]
OLD_RATE = 1200


def throughput() -> list[Row]:
    """Signed, encrypted load_average over 16 kept connections, every message unique; rounds interleaved."""
    rows: list[Row] = []
    count, rounds = 12_000, 5
    for envelope in ("founding", "sealed"):
        with installation() as place:
            bare: dict[str, list[Measured]] = {"asyncio": [], "uvloop": []}
            ours: list[Measured] = []
            with running(place.start(), place.port):
                for _ in range(rounds):
                    ours.append(send(place.port, messages(place.key, envelope, count)))
                    for loop, results in bare.items():
                        port = free_port()
                        script = Path(__file__).with_name("bare_server.py")
                        server = subprocess.Popen([sys.executable, script, place.key_file, str(port), envelope, loop])
                        with running(server, port):
                            results.append(send(port, messages(place.key, envelope, count)))
        rate = statistics.median(one.rate for one in ours)
        p50 = statistics.median(one.p50 for one in ours) * 1000
        p99 = statistics.median(one.p99 for one in ours) * 1000
        for loop, results in bare.items():
            other = statistics.median(one.rate for one in results)
            rows.append(
                (
                    f"load_average, {envelope}, beside bare uvicorn on {loop}",
                    f"{rate:,.0f}/s, p50 {p50:.2f} ms, p99 {p99:.2f} ms",
                    f"{other:,.0f}/s",
                    f"{rate / other:.0%} (goal: at least 55 %)",
                )
            )
        if envelope == "founding":
            rows.append(
                (
                    "beside the old implementation (its figure was taken on another machine)",
                    f"{rate:,.0f}/s",
                    f"{OLD_RATE:,}/s",
                    f"{rate / OLD_RATE:.1f} times (goal: at least 8)",
                )
            )
    return rows


def memory() -> list[Row]:
    """Resident size idle, after every namespace was asked for, and after 60,000 calls."""
    with installation() as place, running(place.start(), place.port) as agent:
        time.sleep(1)
        idle = proportional_size(agent.pid)
        with Client(f"http://127.0.0.1:{place.port}", key_file=place.key_file) as client:
            for name in ("apache", "nginx", "postgresql", "mongodb", "storage", "system", "operation"):
                try:
                    client.call(f"{name}.nothing")
                except Exception as error:  # the answer is Method not found: the namespace was looked up
                    assert "not found" in str(error)
            reachable = proportional_size(agent.pid)
            for _ in range(5):
                send(place.port, messages(place.key, "founding", 6000))
                send(place.port, messages(place.key, "sealed", 6000))
            after = proportional_size(agent.pid)
            client.call("rpc.discover")
            discovered = proportional_size(agent.pid)
    return [
        ("PSS, idle", f"{idle:.1f} MB", "30 MB", "goal: at most"),
        ("PSS, every namespace asked for", f"{reachable:.1f} MB", "30 MB", "goal: at most"),
        ("PSS, after 60,000 calls", f"{after:.1f} MB", "36 MB", "goal: at most"),
        ("PSS, after rpc.discover as well", f"{discovered:.1f} MB", "–", "no goal"),
    ]


def start() -> list[Row]:
    """Start to first answer, and one call from the command line, beside `python -c 'import asyncio'`."""
    plain: list[float] = []
    first: list[float] = []
    called: list[float] = []
    with installation() as place:
        for _ in range(15):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", "import asyncio"], check=True)
            plain.append(time.perf_counter() - began)
            (message,) = messages(place.key, "sealed", 1)
            began = time.perf_counter()
            with running(place.start(), place.port):
                ask_once(place.port, message)
                first.append(time.perf_counter() - began)
                command = [sys.executable, "-m", "scalarizr", "--etc", str(place.etc), "call", "system.load_average"]
                began = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                called.append(time.perf_counter() - began)
    base = statistics.median(plain)
    return [
        (
            name,
            f"{statistics.median(taken) * 1000:.0f} ms",
            f"{base * 1000:.0f} ms",
            f"{statistics.median(taken) / base:.1f} times ({goal})",
        )
        for name, taken, goal in (
            ("start to first answer, beside `import asyncio`", first, "goal: at most 4"),
            ("scalarizr call system.load_average, beside the same", called, "goal: at most 3"),
        )
    ]


def idle() -> list[Row]:
    """Wake-ups and processor time of an agent that nobody calls."""
    with installation() as place, running(place.start(), place.port) as agent:
        time.sleep(3)
        woken, used, seconds = wake_ups(agent.pid), cpu_seconds(agent.pid), 20
        time.sleep(seconds)
        woken, used = wake_ups(agent.pid) - woken, cpu_seconds(agent.pid) - used
    return [
        ("wake-ups while idle", f"{woken / seconds:.2f}/s", "5/s", "goal: under"),
        ("processor time while idle", f"{used / seconds:.2%}", "0.00%", "goal: none that is measurable"),
    ]


def soak(minutes: float = 5) -> list[Row]:
    """Growth under steady load: the slope of the resident size once the replay store is full, and an hour of it."""
    points: list[tuple[float, float]] = []
    with installation() as place, running(place.start(), place.port) as agent:
        settings = place.etc / "scalarizr.toml"
        settings.write_text(settings.read_text().replace("[paths]", "replay_entries = 100000\n[paths]"))
        agent.send_signal(signal.SIGHUP)
        began, calls = time.monotonic(), 0
        while time.monotonic() - began < minutes * 60:
            send(place.port, messages(place.key, "founding", 2000))
            calls += 2000
            points.append((time.monotonic() - began, proportional_size(agent.pid)))
    steady = [point for point in points if point[0] > minutes * 20]
    slope = statistics.linear_regression(*zip(*steady, strict=True)).slope
    rate = calls / (minutes * 60)
    return [
        (
            f"growth in the last {minutes * 2 / 3:.1f} of {minutes:g} min at {rate:,.0f} calls/s, 100,000 remembered",
            f"{steady[-1][1] - steady[0][1]:+.2f} MB",
            "–",
            f"{slope * 3600:+.2f} MB an hour if it went on so ({calls:,} calls, {points[-1][1]:.1f} MB at the end)",
        )
    ]


BENCHMARKS: dict[str, Callable[[], list[Row]]] = {
    "start": start,
    "idle": idle,
    "memory": memory,
    "throughput": throughput,
    "nginx": nginx,
    "apache": apache,
    "storage": storage,
    "databases": databases,
    "soak": soak,
    "load": load,
    "salt": salt,
}


def main() -> None:
    chosen = sys.argv[1:] or ["start", "idle", "memory", "throughput"]
    print("| figure | here | beside | ratio |\n| --- | --- | --- | --- |")
    with compiled():
        for name in chosen:
            for row in BENCHMARKS[name]():
                print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
