"""What all tests share: an agent of their own, and leaving out, loudly, what cannot run here."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from network_namespace import FirewallThere, Host
from running_agent import RunningAgent

# How long an example takes says how busy the machine is, and proves nothing: its usual limit is 200 ms.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("unhurried")


def pytest_report_header() -> str:
    if os.geteuid() == 0:
        return "as root: nothing is left out for want of it"
    return "NOT ROOT: tests that need mounts, namespaces or other owners are LEFT OUT; they are listed at the end"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for program in ("nginx", "apache2"):
        if shutil.which(program) is None:
            leave_out(items, program)
    if not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        leave_out(items, "postgresql")
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="LEFT OUT: needs root"))


def leave_out(items: list[pytest.Item], program: str) -> None:
    for item in items:
        if item.get_closest_marker(program):
            item.add_marker(pytest.mark.skip(reason=f"LEFT OUT: there is no {program}"))


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[RunningAgent]:
    with RunningAgent(tmp_path) as running:
        yield running


@pytest.fixture
def firewall(host: Host, tmp_path: Path) -> Iterator[FirewallThere]:
    """The product's firewall on the host that a test has made."""
    made = FirewallThere(host, tmp_path / "firewall.json")
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    with RunningAgent(tmp_path_factory.mktemp("agent")) as running:
        yield running


def with_test_methods(directory: Path, settings: str = "") -> RunningAgent:
    """Make an agent that also has the namespace `trial` of `slow_methods.py`."""
    script = Path(__file__).parent / "slow_methods.py"
    return RunningAgent(directory, settings, command=[sys.executable, str(script)])


@pytest.fixture
def trial_agent(tmp_path: Path) -> Iterator[RunningAgent]:
    with with_test_methods(tmp_path) as running:
        yield running


@pytest.fixture
def make_trial_agent(tmp_path: Path) -> Iterator[Callable[[str], RunningAgent]]:
    """Make a trial agent with settings of its own, not started."""
    made: list[RunningAgent] = []

    def make(settings: str = "") -> RunningAgent:
        made.append(with_test_methods(tmp_path / str(len(made)), settings))
        return made[-1]

    yield make
    for running in made:
        if running.process is not None:
            running.__exit__()
