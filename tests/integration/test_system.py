"""The system namespace of a real agent on this very machine, beside what other programs say of it."""

import base64
import json
import os
import platform
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from operator import eq, ge
from pathlib import Path
from typing import Any

import psutil
import pytest

from running_agent import RunningAgent
from scalarizr.client import AgentError


def words(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def agree(ours: Callable[[], Any], theirs: Callable[[], Any], same: Callable[[Any, Any], bool] = eq) -> None:
    """Compare two figures of a machine that others work on meanwhile: what is read at two instants may differ once."""
    seen: list[tuple[Any, Any]] = []
    for _ in range(20):
        seen.append((ours(), theirs()))
        if same(*seen[-1]):
            return
    raise AssertionError(f"they never agree: {seen}")


def within(difference: float) -> Callable[[float, float], bool]:
    return lambda first, second: abs(first - second) < difference


def test_figures_agree_with_other_programs(shared_agent: RunningAgent) -> None:
    with shared_agent.client() as client:
        system = client.system
        assert len(system.cpu_info()) == psutil.cpu_count()
        assert system.mem_info()["total_real"] == psutil.virtual_memory().total // 1024
        agree(
            lambda: system.mem_info()["available"], lambda: psutil.virtual_memory().available // 1024, within(300_000)
        )
        assert system.uname()["kernel_release"] == platform.release() == words("uname", "-r")
        assert system.uname()["nodename"] == socket.gethostname()
        agree(lambda: set(system.net_stats()), lambda: set(psutil.net_io_counters(pernic=True)))
        agree(lambda: set(system.block_devices()), lambda: set(psutil.disk_io_counters(perdisk=True)), ge)
        agree(lambda: set(system.disk_stats()), lambda: set(system.block_devices()))
        agree(lambda: system.cpu_stat()["idle"], lambda: psutil.cpu_times().idle * 100, within(5000))
        agree(lambda: system.load_average()[0], lambda: os.getloadavg()[0], within(0.011))
        agree(lambda: system.load_average()[2], lambda: os.getloadavg()[2], within(0.011))
        assert system.dist()["distributor"] == words("sh", "-c", ". /etc/os-release; echo $ID")
        if Path("/usr/bin/python3").exists():
            assert words("/usr/bin/python3", "-V").split()[1] in system.pythons()
        versions = [[int(part) for part in version.split(".")] for version in system.pythons()]
        assert versions == sorted(versions)


def test_free_space_is_what_an_ordinary_user_may_use(shared_agent: RunningAgent, tmp_path: Path) -> None:
    with shared_agent.client() as client:
        found = client.system.statvfs(mpoints=["/", "/proc/", str(tmp_path), "/nothing", ""])
        free = lambda: client.system.statvfs(mpoints=["/"])["/"]["free"]  # noqa: E731
        agree(free, lambda: shutil.disk_usage("/").free // 1024, within(200_000))
    assert found["/"]["total"] == shutil.disk_usage("/").total // 1024
    assert found["/proc/"] == {"total": 0, "free": 0}
    assert found[str(tmp_path)] is None and found["/nothing"] is None and found[""] is None


def test_logs_come_in_base64(shared_agent: RunningAgent) -> None:
    with shared_agent.client() as client:
        text = base64.b64decode(client.system.get_log()).decode()
        assert "started pid=" in text
        assert b"started pid=" in base64.b64decode(client.system.get_debug_log(maxsize=1 << 20))
        assert len(base64.b64decode(client.system.get_log(maxsize=50))) <= 50
        with pytest.raises(AgentError, match=r"scalarizr_update\.log does not exist"):
            client.system.get_update_log()


def test_script_logs(shared_agent: RunningAgent) -> None:
    scripts = shared_agent.logs / "scripting"
    scripts.mkdir()
    (scripts / "HostUp.app.job.77-out.log").write_text("привет")
    with shared_agent.client() as client:
        found = client.system.get_script_logs(exec_script_id="77")
        assert base64.b64decode(found["stdout"]).decode() == "привет"
        assert "rotated away" in base64.b64decode(found["stderr"]).decode()
        with pytest.raises(AgentError):
            client.system.get_script_logs(exec_script_id="../../etc/shadow")


def test_the_auth_shutdown_hook(make_trial_agent: Callable[[str], RunningAgent], tmp_path: Path) -> None:
    agent = make_trial_agent("")
    hook = tmp_path / "hook"
    agent.write_settings("", f'auth_shutdown_hook = "{hook}"')
    with agent.start().client() as client:

        def failure() -> AgentError:
            with pytest.raises(AgentError) as caught:
                client.system.call_auth_shutdown_hook()
            return caught.value

        assert failure().code == -32011 and str(hook) in failure().message
        hook.write_text("#!/bin/sh\necho '  go on  '\n")
        hook.chmod(0o644)
        assert str(hook) in failure().message and "not executable" in failure().message
        hook.chmod(0o755)
        assert client.system.call_auth_shutdown_hook() == "go on"
        hook.write_text("#!/bin/sh\necho no >&2; exit 4\n")
        assert failure().code == -32018 and "status 4: no" in failure().message
        hook.write_text("#!/bin/sh\nsleep 100\n")
        agent.stop()
        agent.write_settings('[system]\nhook_timeout = "0.5 s"', f'auth_shutdown_hook = "{hook}"')
        agent.start()
        assert failure().code == -32016


def test_scaling_metrics_come_from_the_environment(make_trial_agent: Callable[[str], RunningAgent]) -> None:
    agent = make_trial_agent("")
    directory = agent.etc / "environment"
    directory.mkdir()
    (directory / "load").write_text("3.25\n")
    metrics = directory / "metrics.toml"
    metrics.write_text(f'[[metrics]]\nid = 7\nname = "l"\npath = "{directory}/load"\nretrieve_method = "read"\n')
    with agent.start().client() as client:
        assert client.system.scaling_metrics() == [{"id": 7, "name": "l", "value": 3.25, "error": None}]
        metrics.write_text(metrics.read_text().replace("id = 7", "id = 8"))
        assert client.system.scaling_metrics()[0]["id"] == 8
        metrics.write_text('[[metrics]]\nid = 7\nnmae = "x"\n')
        with pytest.raises(AgentError, match=r"metrics\.toml, line 3: nmae: .*name, perhaps"):
            client.system.scaling_metrics()


def test_a_recorded_tree_is_read_through_one_setting(make_trial_agent: Callable[[str], RunningAgent]) -> None:
    tree = Path(__file__).parents[1] / "fixtures" / "proc" / "linux-2.6.32-x86_64"
    agent = make_trial_agent("")
    agent.write_settings("", f'root = "{tree}"')
    with agent.start().client() as client:
        assert client.system.uname()["kernel_release"] == "2.6.32-754.35.1.el6.x86_64"
        assert client.system.get_hostname() == "centos6.example.com"
        assert client.system.load_average() == [1.5, 0.75, 0.3]
        assert client.system.dist()["release"] == "6.10"
        assert client.system.statvfs(mpoints=["/boot"]) == {"/boot": None}


HUNG = """
import os, subprocess, sys, ctypes
point = sys.argv[1]
fuse = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"dead", point.encode(), b"fuse.dead", 0, options) != 0:
    sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
# The handshake is answered, so that questions are taken; none of them is ever answered.
request = os.read(fuse, 1 << 17)
unique = int.from_bytes(request[8:16], "little")
body = bytes([7, 0, 0, 0, 31, 0, 0, 0]) + bytes(56)
os.write(fuse, (16 + len(body)).to_bytes(4, "little") + bytes(4) + unique.to_bytes(8, "little") + body)
print("mounted", flush=True)
while True:
    os.read(fuse, 1 << 17)
"""


@pytest.mark.root
@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="LEFT OUT: there is no /dev/fuse")
def test_a_dead_mount_hangs_nobody_and_is_asked_once(agent: RunningAgent, tmp_path: Path) -> None:
    import sys

    point = tmp_path / "dead"
    point.mkdir()
    server = subprocess.Popen([sys.executable, "-c", HUNG, point], stdout=subprocess.PIPE)
    try:
        assert server.stdout and server.stdout.readline() == b"mounted\n"
        with agent.client() as client, agent.client() as other:
            answers: list[Any] = []
            asking = threading.Thread(target=lambda: answers.append(client.system.statvfs(mpoints=["/", str(point)])))
            started = time.monotonic()
            asking.start()
            meanwhile = 0
            while asking.is_alive():
                other.system.load_average()
                meanwhile += 1
            assert meanwhile > 5, "nobody was held up"
            assert answers[0]["/"]["total"] > 0 and answers[0][str(point)] is None
            assert 2.5 < time.monotonic() - started < 20
            children = len(psutil.Process(agent.pid()).children())
            for _ in range(5):
                assert other.system.statvfs(mpoints=[str(point)]) == {str(point): None}
            assert len(psutil.Process(agent.pid()).children()) <= max(children, 1)
            assert "did not answer" in agent.log_text()
    finally:
        server.kill()
        server.wait()
        assert server.stdout
        server.stdout.close()
        subprocess.run(["umount", "-l", point], check=True)


IN_A_WORLD_OF_ITS_OWN = """
import json, subprocess, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from running_agent import RunningAgent
from scalarizr.client import AgentError
place = Path(sys.argv[1])
hosts, name = place / "hosts", place / "hostname"
hosts.write_text("127.0.0.1\\tlocalhost\\n10.9.8.7  old.example.com old  # us\\n\\n# end")
name.write_text("old\\n")
hosts.chmod(0o640)
for file in (hosts, name):
    subprocess.run(["mount", "--bind", file, f"/etc/{file.name}"], check=True)
subprocess.run(["hostname", "old"], check=True)
found = {}
with RunningAgent(place / "agent", '[environment]\\nprivate_address = "10.9.8.7"') as agent, agent.client() as client:
    preview = client.system.set_hostname(hostname="web1.example.com", _dry_run=True)
    found["preview"] = preview
    found["untouched"] = hosts.read_text(), name.read_text(), client.system.get_hostname()
    found["result"] = client.system.set_hostname(hostname="web1.example.com")
    found["after"] = hosts.read_text(), name.read_text(), client.system.get_hostname()
    found["again"] = client.system.set_hostname(hostname="web1.example.com")
    found["empty"] = client.system.set_hostname(hostname="web1.example.com", _dry_run=True)["changes"]
    try:
        client.system.set_hostname(hostname="bad_name")
    except AgentError as error:
        found["error"] = error.code, error.data["parameter"]
    found["still"] = hosts.read_text(), name.read_text(), client.system.get_hostname()
    found["mode"] = hosts.stat().st_mode & 0o777
print(json.dumps(found))
"""


@pytest.mark.root
def test_set_hostname_names_the_host_everywhere(tmp_path: Path) -> None:
    """In namespaces of its own, with /etc/hosts and /etc/hostname as mounts of their own, as in containers."""
    import sys

    script = tmp_path / "script.py"
    script.write_text(IN_A_WORLD_OF_ITS_OWN)
    command = ["unshare", "--uts", "--mount", sys.executable, script, tmp_path, Path(__file__).parents[1]]
    before = Path("/etc/hosts").read_bytes(), socket.gethostname()
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    hosts = "127.0.0.1\tlocalhost\n10.9.8.7  web1.example.com web1  # us\n\n# end"
    assert [change["path"] for change in found["preview"]["changes"]] == [
        "/proc/sys/kernel/hostname",
        "/etc/hostname",
        "/etc/hosts",
    ]
    assert (
        "-10.9.8.7  old.example.com old  # us\n+10.9.8.7  web1.example.com web1  # us"
        in found["preview"]["changes"][2]["diff"]
    )
    assert found["untouched"][1] == "old\n" and "old.example.com" in found["untouched"][0]
    assert found["result"] == found["again"] == "web1.example.com"
    assert found["after"] == found["still"] == [hosts, "web1.example.com\n", "web1.example.com"]
    assert found["empty"] == [] and found["error"] == [-32602, "hostname"] and found["mode"] == 0o640
    assert (Path("/etc/hosts").read_bytes(), socket.gethostname()) == before
