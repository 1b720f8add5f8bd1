"""The wheel as people install it: `pipx install`, in a home of its own, and what it brings starts and answers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from running_agent import RunningAgent

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]


def test_installed_by_pipx_it_starts_and_answers(tmp_path: Path) -> None:
    built = tmp_path / "built"
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", built]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=300)
    (wheel,) = built.glob("*.whl")
    home = {"PIPX_HOME": str(tmp_path / "pipx"), "PIPX_BIN_DIR": str(tmp_path / "bin"), "PIPX_MAN_DIR": str(tmp_path)}
    installed = subprocess.run(
        [sys.executable, "-m", "pipx", "install", "--python", sys.executable, wheel],
        env=os.environ | home,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert installed.returncode == 0, installed.stdout + installed.stderr
    program = tmp_path / "bin" / "scalarizr"
    version = subprocess.check_output([program, "--version"], text=True, timeout=100)
    assert version.split()[-1] == wheel.name.split("-")[1]

    agent = RunningAgent(tmp_path / "agent", command=[str(program), "serve"])
    agent.start()
    try:
        call = [program, "--etc", agent.etc, "call", "--url", agent.url, "system.get_hostname"]
        assert json.loads(subprocess.check_output(call, timeout=100)) == os.uname().nodename
    finally:
        agent.stop()
