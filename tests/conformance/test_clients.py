"""Clients in four languages, which share no code with the agent, get their answers from a real one."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from running_agent import RunningAgent

CLIENTS = Path(__file__).parent / "clients"
Call = Callable[[RunningAgent, str, str, str], subprocess.CompletedProcess[str]]


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=100)


def shell(agent: RunningAgent, path: str, method: str, params: str) -> subprocess.CompletedProcess[str]:
    return run("sh", CLIENTS / "call.sh", f"{agent.url}{path}", agent.key_file, method, params)


def old_python(agent: RunningAgent, path: str, method: str, params: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, CLIENTS / "call.py", f"{agent.url}{path}", agent.key_file, method, params)


def php(agent: RunningAgent, path: str, method: str, params: str) -> subprocess.CompletedProcess[str]:
    return run("php", CLIENTS / "call.php", f"{agent.url}{path}", agent.key_file, method, params)


def node(envelope: str) -> Call:
    def call(agent: RunningAgent, path: str, method: str, params: str) -> subprocess.CompletedProcess[str]:
        request = f'{{"method": "{method}", "params": {params}, "id": 1340184043.523402}}'
        return run("node", CLIENTS / "call.mjs", envelope, f"{agent.url}{path}", agent.key_file, request)

    return call


def needing(*programs: str) -> Any:
    missing = [program for program in programs if not shutil.which(program)]
    return pytest.mark.skipif(bool(missing), reason=f"LEFT OUT: {', '.join(missing)} is not installed")


EVERY_CLIENT = pytest.mark.parametrize(
    "call",
    [
        pytest.param(shell, id="shell", marks=needing("openssl", "curl")),
        pytest.param(old_python, id="python"),
        pytest.param(php, id="php", marks=needing("php")),
        pytest.param(node("founding"), id="node-founding", marks=needing("node")),
        pytest.param(node("sealed"), id="node-sealed", marks=needing("node")),
    ],
)


def answer(finished: subprocess.CompletedProcess[str]) -> Any:
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@EVERY_CLIENT
def test_a_client_gets_its_answers(shared_agent: RunningAgent, call: Call) -> None:
    load = answer(call(shared_agent, "/system", "load_average", "{}"))
    assert len(load["result"]) == 3 and "jsonrpc" not in load
    assert answer(call(shared_agent, "/sysinfo", "uname", "{}"))["result"]["kernel_name"] == "Linux"
    assert answer(call(shared_agent, "/", "system.block_devices", "{}"))["result"]


@EVERY_CLIENT
def test_a_client_is_told_its_mistakes(shared_agent: RunningAgent, call: Call) -> None:
    unknown = answer(call(shared_agent, "/system", "load_avg", "{}"))["error"]
    assert unknown["code"] == -32601 and "load_average" in unknown["data"]
    nowhere = answer(call(shared_agent, "/sistem", "load_average", "{}"))["error"]
    assert nowhere["code"] == -32099 and "system" in nowhere["data"]
    invalid = answer(call(shared_agent, "/system", "statvfs", '{"mpoints": 5}'))["error"]
    assert invalid["code"] == -32602 and "mpoints" in invalid["data"] and "5" in invalid["data"]


@EVERY_CLIENT
def test_text_beyond_ascii_travels_both_ways(shared_agent: RunningAgent, call: Call) -> None:
    refused = answer(call(shared_agent, "/system", "set_hostname", '{"hostname": "пример.example.com"}'))["error"]
    assert refused["code"] == -32602 and "пример.example.com" in refused["data"]


@EVERY_CLIENT
def test_a_client_with_another_key_is_refused(shared_agent: RunningAgent, call: Call, tmp_path: Path) -> None:
    class OtherKey:
        url = shared_agent.url
        key_file = tmp_path / "key"

    OtherKey.key_file.write_text("HKjnlK/6PN2+u+c59JiUSaepOp4QfvBEM2vkWxRbrq/mS8+Ah1nOxg==")
    refused = call(OtherKey, "/system", "load_average", "{}")  # type: ignore[arg-type]
    assert refused.returncode != 0 and "400" in refused.stderr


@needing("openssl", "curl")
@pytest.mark.parametrize(
    "identity", ["1340184043.523402", "123456789012345678901234567890", '"a \\u0442"', "-0", "1E400"]
)
def test_an_id_comes_back_as_it_was_sent(shared_agent: RunningAgent, identity: str) -> None:
    finished = run(
        "sh", CLIENTS / "call.sh", f"{shared_agent.url}/system", shared_agent.key_file, "load_average", "{}", identity
    )
    assert finished.stdout.rstrip().endswith(f'"id": {identity}}}'), finished.stdout + finished.stderr
