"""What all tests share: an agent of their own, and leaving out, loudly, what cannot run here."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from running_agent import RunningAgent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="LEFT OUT: needs root"))


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[RunningAgent]:
    with RunningAgent(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def shared_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    with RunningAgent(tmp_path_factory.mktemp("agent")) as running:
        yield running
