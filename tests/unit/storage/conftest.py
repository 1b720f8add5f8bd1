"""What the tests of storage work with."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from block_devices import BlockDevices
from scalarizr.host.paths import HostPaths
from scalarizr.settings.model import Settings
from scalarizr.storage.context import Context
from scalarizr.storage.records import Records


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[BlockDevices]:
    made = BlockDevices(tmp_path)
    yield made
    made.close()


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """What a volume type is given, but the volumes that it is made of."""
    return Context(
        Settings(),
        HostPaths(),
        logging.getLogger("test"),
        Records(tmp_path / "records"),
        nested=None,  # type: ignore[arg-type]
    )
