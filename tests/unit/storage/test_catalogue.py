"""What two calls on one volume, one after the other, know of each other."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from private_storage import SMALLEST, PrivateStorage
from provider_storage import storage_in_this_process
from scalarizr.storage.records import Records
from scalarizr.storage.storage import Storage

pytestmark = pytest.mark.root


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Storage]:
    files = PrivateStorage(tmp_path)
    try:
        with storage_in_this_process(files.agent.etc, {}) as opened:
            yield opened
    finally:
        files.clean_up()


@pytest.mark.parametrize(
    "call",
    [
        lambda here, volume: here.create(volume),
        lambda here, volume: here.detach(volume),
        lambda here, volume: here.destroy(volume),
        lambda here, volume: here.grow(volume, {"size": SMALLEST["ext4"] * 2}),
        lambda here, volume: here.destroy_snapshot(here.snapshot(volume)),
    ],
    ids=["create", "detach", "destroy", "grow", "snapshot"],
)
def test_a_call_that_waited_for_another_keeps_what_that_one_recorded(
    here: Storage, monkeypatch: pytest.MonkeyPatch, call: Callable[[Storage, dict[str, Any]], object]
) -> None:
    volume = here.create({"type": "loop", "size": SMALLEST["ext4"]}, mkfs=True)
    key = here.records.all()[0].key
    held = Records.held

    @contextlib.contextmanager
    def held_after_another(records: Records, wanted: str, what: str) -> Iterator[None]:
        with held(records, wanted, what):
            record = records.find(wanted)
            if wanted == key and record is not None and "of_another" not in record.private:
                # It had the volume until this instant.
                records.put(record, private={**record.private, "of_another": True})
            yield

    monkeypatch.setattr(Records, "held", held_after_another)
    call(here, volume)
    record = here.records.find(key)
    assert record is not None and record.private["of_another"] is True
    monkeypatch.undo()
    here.destroy(volume)
