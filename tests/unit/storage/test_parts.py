"""The volumes that another is made of, over real loop devices: what was made goes again, what was there stays."""

import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from block_devices import BlockDevices, said
from scalarizr.changes.changes import Changes
from scalarizr.errors import Refused
from scalarizr.host.paths import HostPaths
from scalarizr.settings.model import Paths, Settings
from scalarizr.settings.model import Storage as StorageSettings
from scalarizr.storage.parts import destroy_part, give_back_unused, make_blank_again, make_noted, noted
from scalarizr.storage.records import Record
from scalarizr.storage.storage import Storage

pytestmark = pytest.mark.root
LOOP = {"type": "loop", "size": 0.02}


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    settings = Settings(paths=Paths(state=tmp_path / "state"), storage=StorageSettings(loop_dir=tmp_path / "images"))
    log = logging.getLogger("test")
    made = Storage(tmp_path / "etc", settings, HostPaths(), Changes(tmp_path / "changes", log), log)
    made.records.put(Record(key="whole", kind="volume", type="raid", state="present", id="whole"))
    yield made
    for record in made.records.all():
        if record.ours and record.state != "destroyed":
            made.destroy({"type": record.type, "id": record.id}, force=True)


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[BlockDevices]:
    (tmp_path / "disks").mkdir()
    made = BlockDevices(tmp_path / "disks")
    yield made
    made.close()


def note(storage: Storage, *wishes: dict[str, object]) -> None:
    record = storage.records.find("whole")
    assert record is not None
    storage.records.put(record, private={"adding": noted(wishes)})


def images(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "images").glob("**/*") if path.is_file()]


def test_what_was_made_is_noted_and_a_disk_that_holds_data_never_is(
    storage: Storage, disks: BlockDevices, tmp_path: Path
) -> None:
    used = disks.make(16)
    with open(used, "r+b") as file:
        file.seek(4000)
        file.write(b"somebody's data")
    note(storage, LOOP, {"type": "base", "device": str(used)})
    with pytest.raises(Refused, match="not zeros in its first MiB"):
        make_noted(storage.catalogue.context, "whole", "adding")
    record = storage.records.find("whole")
    assert record is not None
    first, second = record.private["adding"]
    assert first["made"]["type"] == "loop" and second["made"] is None
    part = storage.records.of_id("volume", first["made"]["id"])
    assert part is not None and part.parent == "whole" and part.attempt == "" and len(images(tmp_path)) == 1

    give_back_unused(storage.catalogue.context, second)
    destroy_part(storage.catalogue.context, first["made"])
    assert images(tmp_path) == []
    with open(used, "rb") as file:
        file.seek(4000)
        assert file.read(15) == b"somebody's data"


def test_what_was_made_and_never_noted_as_whole_is_given_back(storage: Storage, tmp_path: Path) -> None:
    note(storage, LOOP)
    (made,) = make_noted(storage.catalogue.context, "whole", "adding")
    record = storage.records.find("whole")
    assert record is not None
    cut_off = {**record.private["adding"][0], "made": None}
    give_back_unused(storage.catalogue.context, cut_off)
    assert images(tmp_path) == []
    give_back_unused(storage.catalogue.context, cut_off)
    destroy_part(storage.catalogue.context, made)


def test_a_part_that_this_agent_did_not_make_is_let_go(storage: Storage, tmp_path: Path) -> None:
    kept = storage.create(LOOP)
    record = storage.records.of_id("volume", kept["id"])
    assert record is not None
    storage.records.put(record, ours=False)
    destroy_part(storage.catalogue.context, kept)
    assert len(images(tmp_path)) == 1
    storage.records.put(msgspec.structs.replace(record, state="detached"), ours=True)


def test_only_what_the_given_up_call_itself_found_blank_is_made_blank_again(
    storage: Storage, disks: BlockDevices
) -> None:
    context, device = storage.catalogue.context, disks.make(16)
    part = storage.create({"type": "base", "device": str(device)})
    record = storage.records.of_id("volume", part["id"])
    assert record is not None

    def begun(attempt: str, found_by: str, part_of: str = "new") -> None:
        whole = Record(key="new", kind="volume", type="raid", state="making", attempt=attempt)
        storage.records.put(whole)
        storage.records.put(record, private={"part_of": part_of, "found_blank_by": found_by})
        with open(device, "r+b") as file:
            file.seek(8192)
            file.write(b"remains")

    def holds() -> bytes:
        return device.read_bytes()[8192:8199]

    for attempt, found_by, part_of in (("b", "a", "new"), ("", "", "new"), ("a", "a", "other")):
        begun(attempt, found_by, part_of)
        make_blank_again(context, "new")
        assert holds() == b"remains"
    begun("a", "a")
    make_blank_again(context, "whole")
    assert holds() == b"remains", "one that is whole is not given up"
    said("mkfs.ext4", "-q", str(device))
    make_blank_again(context, "new")
    assert b"\x53\xef" in device.read_bytes()[1024:2048], "what has a signature is somebody's"
    said("wipefs", "-qa", str(device))
    begun("a", "a")
    make_blank_again(context, "new")
    assert holds() == bytes(7) and device.read_bytes()[: 1 << 20] == bytes(1 << 20)
