"""What all tests share: an agent of their own, and leaving out, loudly, what cannot run here."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from agent_with_nginx import AgentWithNginx
from network_namespace import FirewallThere, Host
from running_agent import RunningAgent

if TYPE_CHECKING:
    from moto_server import Hypervisor

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
def web(tmp_path: Path) -> Iterator[AgentWithNginx]:
    """An agent with an nginx of its own, both running."""
    made = AgentWithNginx(tmp_path)
    yield made
    made.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host whose ports for web servers are listened on; without any firewall."""
    made = Host(tmp_path)
    made.listen(80, 443, 8080, 8443)
    yield made
    made.close()


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


@pytest.fixture(scope="module")
def ec2(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Hypervisor]":
    """An EC2 of moto's, whose volumes are loop devices."""
    from moto_server import hypervisor_in

    with hypervisor_in(tmp_path_factory.mktemp("ec2")) as made:
        yield made


@pytest.fixture
def bodies() -> Iterator[Path]:
    """Where scripts lie that came as text: below a directory that every account can get to, as pytest's own are not."""
    place = Path(tempfile.mkdtemp(prefix="scripts-"))
    place.chmod(0o711)
    yield place / "bodies"
    shutil.rmtree(place)
