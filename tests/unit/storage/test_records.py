"""What is remembered of volumes: there before the thing itself, whole whatever happens, bounded."""

from pathlib import Path

import pytest

from scalarizr.errors import Busy, OutsideFailure
from scalarizr.storage import records as module
from scalarizr.storage.records import Record, Records, key_of_token, new_key


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "storage")


def record(**values: object) -> Record:
    return Record(**{"key": new_key(), "kind": "volume", "type": "loop", "state": "present", **values})  # type: ignore[arg-type]


def test_what_is_put_is_found_by_its_key_and_by_its_id(records: Records) -> None:
    put = records.put(record(id="loop-vol-1"), ours=True)
    assert records.find(put.key) == put and put.ours and put.made_at > 0
    assert records.of_id("volume", "loop-vol-1") == put
    assert records.of_id("snapshot", "loop-vol-1") is None
    assert records.find("unknown") is None


def test_nobody_else_can_read_them(records: Records, tmp_path: Path) -> None:
    put = records.put(record())
    assert (tmp_path / "storage").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "storage" / f"{put.key}.json").stat().st_mode & 0o777 == 0o600


def test_the_newest_of_an_id_counts(records: Records) -> None:
    records.put(record(id="vol-1", made_at=1.0, state="destroyed"))
    newer = records.put(record(id="vol-1", made_at=2.0))
    assert records.of_id("volume", "vol-1") == newer


def test_a_damaged_record_is_told_of_and_not_guessed(records: Records, tmp_path: Path) -> None:
    put = records.put(record())
    (tmp_path / "storage" / f"{put.key}.json").write_text("{")
    with pytest.raises(OutsideFailure, match="cannot be read"):
        records.find(put.key)


def test_of_what_is_gone_a_bounded_number_is_kept(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT_OF_GONE", 3)
    kept = records.put(record(id="kept"))
    for number in range(6):
        records.put(record(id=f"gone-{number}", state="destroyed"))
    records.prune()
    assert {one.id for one in records.all()} == {kept.id, "gone-3", "gone-4", "gone-5"}


def test_a_volume_is_held_by_one_at_a_time(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    held = module.locked
    monkeypatch.setattr(module, "locked", lambda path, **options: held(path, **{**options, "timeout": 0.05}))
    with records.held("key", "the volume x"), pytest.raises(Busy), records.held("key", "the volume x"):
        raise AssertionError("it was held twice")
    with records.held("key", "the volume x"):
        pass


def test_a_token_always_gives_the_same_key_and_never_anothers() -> None:
    assert key_of_token("a") == key_of_token("a") != key_of_token("b")
