"""Salt beside the agent, on the same machine: installed into a scratch environment, never a dependency."""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.subjects import free_port, installation, proportional_size, running
from scalarizr.client import Client

WARM_CALL = """
import sys, time
import salt.client
client = salt.client.LocalClient(c_path=sys.argv[1])
client.cmd("bench", "status.loadavg", timeout=30)
for _ in range(20):
    began = time.perf_counter()
    answer = client.cmd("bench", "status.loadavg", timeout=30)
    assert answer.get("bench"), answer
    print(time.perf_counter() - began)
"""


def salt() -> list[tuple[str, str, str, str]]:
    """Memory of the minion, a warm call, and a call from the command line."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("SCRATCH")) as scratch:
        base = Path(scratch)
        subprocess.run([sys.executable, "-m", "venv", base / "venv"], check=True)
        install = [base / "venv/bin/pip", "install", "-q", "--disable-pip-version-check", "salt"]
        subprocess.run(install, check=True)
        processes = _start(base)
        try:
            return _measure(base, processes[1])
        finally:
            for process in processes:
                os.killpg(process.pid, signal.SIGTERM)
            for process in processes:
                process.wait(30)


def _start(base: Path) -> "list[subprocess.Popen[bytes]]":
    publish, requests = free_port(), free_port()
    common = f"root_dir: {base}/root\nuser: root\nlog_level: error\n"
    master = (
        f"interface: 127.0.0.1\npublish_port: {publish}\nret_port: {requests}\nauto_accept: true\nworker_threads: 3\n"
    )
    minion = f"master: 127.0.0.1\nmaster_port: {requests}\npublish_port: {publish}\nid: bench\n"
    (base / "etc").mkdir()
    (base / "etc/master").write_text(common + master)
    (base / "etc/minion").write_text(common + minion)
    processes = []
    for name in ("salt-master", "salt-minion"):
        command = [base / "venv/bin" / name, "-c", base / "etc"]
        processes.append(subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL))
        time.sleep(10)
    return processes


def _measure(base: Path, minion: "subprocess.Popen[bytes]") -> list[tuple[str, str, str, str]]:
    environment = base / "venv/bin"
    warm = subprocess.run(
        [environment / "python", "-c", WARM_CALL, base / "etc/master"], check=True, capture_output=True, text=True
    )
    theirs = statistics.median(float(line) for line in warm.stdout.split())
    cold = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run(
            [environment / "salt", "-c", base / "etc", "bench", "status.loadavg"], check=True, stdout=subprocess.DEVNULL
        )
        cold.append(time.perf_counter() - began)
    group = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and _group(path) == minion.pid]
    size = sum(proportional_size(pid) for pid in group)
    with installation() as place, running(place.start(), place.port) as agent:
        with Client(f"http://127.0.0.1:{place.port}", key_file=place.key_file) as client:
            taken = []
            for _ in range(200):
                began = time.perf_counter()
                client.call("system.load_average")
                taken.append(time.perf_counter() - began)
        ours = statistics.median(taken)
        our_cold = []
        for _ in range(5):
            command = [sys.executable, "-m", "scalarizr", "--etc", str(place.etc), "call", "system.load_average"]
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            our_cold.append(time.perf_counter() - began)
        our_size = proportional_size(agent.pid)
    return [
        (
            "PSS, beside Salt's minion",
            f"{our_size:.1f} MB",
            f"{size:.1f} MB",
            f"{our_size / size:.2f} (goal: under 0.5)",
        ),
        ("a warm call", f"{ours * 1000:.2f} ms", f"{theirs * 1000:.1f} ms", f"{ours / theirs:.3f} (goal: under 0.1)"),
        (
            "a call from the command line",
            f"{statistics.median(our_cold) * 1000:.0f} ms",
            f"{statistics.median(cold) * 1000:.0f} ms",
            f"{statistics.median(our_cold) / statistics.median(cold):.2f} (goal: under 0.25)",
        ),
    ]


def _group(path: Path) -> int:
    try:
        return int((path / "stat").read_text().rpartition(")")[2].split()[2])
    except OSError:
        return -1
