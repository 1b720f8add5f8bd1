"""Accepting each message once, in bounded memory, whatever the clock does."""

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalarizr.envelope.replay import ReplayStore, ReplayStores, Seen, open_store, save_store

NOW = 1_000_000


def identity() -> bytes:
    return os.urandom(20)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(-300, 300)), max_size=200))
def test_exactly_the_new_ones_are_accepted(messages: list[tuple[int, int]]) -> None:
    store, seen = ReplayStore(300, 10_000), set()
    for number, off in messages:
        message = (hashlib.sha1(bytes([number])).digest(), NOW + off)
        if message in seen:
            with pytest.raises(Seen):
                store.accept(*message, NOW)
        else:
            store.accept(*message, NOW)
            seen.add(message)
    assert len(store) == len(seen)


def test_what_is_forgotten_is_below_the_floor_even_when_the_clock_is_set_back() -> None:
    store = ReplayStore(300, 1000)
    old, newer = identity(), identity()
    store.accept(old, NOW, NOW)
    store.accept(newer, NOW + 500, NOW + 500)
    assert len(store) == 1 and store.floor == NOW
    with pytest.raises(Seen):
        store.accept(old, NOW, NOW)
    with pytest.raises(Seen):
        store.accept(identity(), NOW - 10, NOW)
    store.accept(identity(), NOW + 1, NOW)


def test_a_clock_that_jumps_forward_and_back_locks_nobody_out() -> None:
    store = ReplayStore(300, 1000)
    store.accept(identity(), NOW, NOW)
    store.accept(identity(), NOW + 86400, NOW + 86400)
    store.accept(identity(), NOW + 1, NOW + 1)
    store.accept(identity(), NOW + 2, NOW + 2)


def test_a_full_store_raises_its_floor_instead_of_growing() -> None:
    store = ReplayStore(300, 100)
    kept = [(identity(), NOW + number // 10) for number in range(300)]
    for message, date in kept:
        store.accept(message, date, NOW)
    assert len(store) <= 100 and store.floor is not None and store.floor >= NOW + 19
    for message, date in kept:
        with pytest.raises(Seen):
            store.accept(message, date, NOW)


def test_a_clean_restart_keeps_store_and_floor(tmp_path: Path) -> None:
    path = tmp_path / "replay"
    store = open_store(path, 300, 1000, lambda: NOW)
    assert store.of("default").floor is None, "a server that never ran has nothing to fear"
    messages = [(identity(), NOW + number) for number in range(50)]
    for message, date in messages:
        store.accept("default", message, date, NOW)
    save_store(store, path)
    again = open_store(path, 300, 1000, lambda: NOW)
    assert len(again) == 50 and again.of("default").floor is None and path.stat().st_mode & 0o777 == 0o600
    for message, date in messages:
        with pytest.raises(Seen):
            again.accept("default", message, date, NOW)
    again.accept("default", identity(), NOW, NOW)


def test_after_a_crash_nothing_up_to_the_second_of_the_start_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "replay"
    open_store(path, 300, 1000, lambda: NOW)
    again = open_store(path, 300, 1000, lambda: NOW + 7.9)
    with pytest.raises(Seen, match="sign it again"):
        again.accept("default", identity(), NOW + 7, NOW + 7.95)
    again.accept("default", identity(), NOW + 8, NOW + 8)


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: b"", lambda data: b"x" + data])
def test_a_damaged_store_counts_as_a_crash(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "replay"
    store = open_store(path, 300, 1000, lambda: NOW)
    store.accept("default", identity(), NOW, NOW)
    save_store(store, path)
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert open_store(path, 300, 1000, lambda: NOW + 1).of("any").floor == NOW + 1


def test_a_message_takes_few_bytes() -> None:
    import tracemalloc

    store = ReplayStore(300, 200_000)
    tracemalloc.start()
    for number in range(60_000):
        store.accept(identity(), NOW + number // 5000, NOW)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / 60_000 < 40


def test_what_one_key_sends_is_nothing_to_another(tmp_path: Path) -> None:
    stores = ReplayStores(300, 1000)
    same = identity()
    stores.accept("a", same, NOW, NOW)
    stores.accept("b", same, NOW, NOW)
    for key in ("a", "b"):
        with pytest.raises(Seen, match="seen before"):
            stores.accept(key, same, NOW, NOW)


def test_a_key_that_fills_the_store_raises_its_own_floor_alone() -> None:
    stores = ReplayStores(300, 100)
    kept = [identity() for _ in range(20)]
    for message in kept:
        stores.accept("quiet", message, NOW, NOW)
    for number in range(500):
        try:
            stores.accept("loud", identity(), NOW + 299 - number % 3, NOW)
        except Seen as refusal:
            assert "sign it again" in str(refusal)
    assert len(stores) <= 100 and stores.of("quiet").floor is None and stores.of("loud").floor is not None
    for message in kept:
        with pytest.raises(Seen, match="seen before"):
            stores.accept("quiet", message, NOW, NOW)
    stores.accept("quiet", identity(), NOW, NOW)


def test_room_is_made_first_of_what_is_too_old_for_anybody() -> None:
    stores = ReplayStores(300, 100)
    for _ in range(90):
        stores.accept("gone", identity(), NOW, NOW)
    for _ in range(60):
        stores.accept("here", identity(), NOW + 1000, NOW + 1000)
    assert len(stores) == 60 and stores.of("here").floor is None and stores.of("gone").floor == NOW


def test_a_clean_restart_keeps_the_stores_of_all_keys(tmp_path: Path) -> None:
    path = tmp_path / "replay"
    stores = open_store(path, 300, 1000, lambda: NOW)
    seen = [(key, identity()) for key in ("default", "a-key", "b_key") for _ in range(10)]
    for key, message in seen:
        stores.accept(key, message, NOW, NOW)
    save_store(stores, path)
    again = open_store(path, 300, 1000, lambda: NOW)
    assert len(again) == 30
    for key, message in seen:
        with pytest.raises(Seen):
            again.accept(key, message, NOW, NOW)


def test_one_key_alone_is_kept_in_the_form_of_older_agents(tmp_path: Path) -> None:
    stores = open_store(tmp_path / "replay", 300, 1000, lambda: NOW)
    message = identity()
    stores.accept("default", message, NOW, NOW)
    old = ReplayStore(300, 1000)
    old.restore(stores.to_bytes())
    with pytest.raises(Seen):
        old.accept(message, NOW, NOW)


def test_after_a_crash_every_key_has_the_floor() -> None:
    stores = ReplayStores(300, 1000, floor=NOW)
    for key in ("default", "made-later"):
        with pytest.raises(Seen, match="sign it again"):
            stores.accept(key, identity(), NOW, NOW)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_stores_of_several_keys_that_were_cut_off_count_as_a_crash(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "replay"
    stores = open_store(path, 300, 1000, lambda: NOW)
    for key in ("default", "other"):
        stores.accept(key, identity(), NOW, NOW)
    save_store(stores, path)
    path.write_bytes(path.read_bytes()[:-cut])
    assert open_store(path, 300, 1000, lambda: NOW + 1).of("default").floor == NOW + 1


def test_other_bounds_count_at_once_for_every_key() -> None:
    stores = ReplayStores(300, 1000)
    for number in range(200):
        stores.accept(f"key{number % 4}", identity(), NOW + number, NOW)
    stores.bound(300, 40)
    stores.accept("key0", identity(), NOW + 200, NOW)
    assert len(stores) <= 40
