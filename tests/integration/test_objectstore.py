"""Every store through its one interface: a directory, and a real S3-compatible server with good and bad ways to it."""

import hashlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from private_s3 import PrivateS3, Way
from scalarizr.errors import NotFound, OutsideFailure, PermissionRefused, ScalarizrError, TimedOut
from scalarizr.host.processes import wait_until
from scalarizr.objectstore.opening import open_store
from scalarizr.objectstore.store import Store
from scalarizr.platform_access import PlatformAccess

MIB = 2**20
Opener = Callable[..., Store]


@pytest.fixture(scope="module")
def s3() -> Iterator[PrivateS3]:
    with PrivateS3() as store:
        yield store


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, s3: PrivateS3) -> Store:
    if request.param == "file":
        return open_store(f"file://{tmp_path}/store")
    return open_store(f"s3://{s3.bucket}/{tmp_path.name}", s3.endpoint_url, PlatformAccess(s3.access))


@pytest.fixture
def way(s3: PrivateS3) -> Iterator[Way]:
    with Way(s3.port) as opened:
        yield opened


def through(way: Way, s3: PrivateS3, place: Path, patience: float = 60) -> Store:
    return open_store(f"s3://{s3.bucket}/{place.name}", way.endpoint_url, PlatformAccess(s3.access), patience=patience)


def pieces(count: int) -> list[bytes]:
    """Give pieces of 1 MiB, each another, as a stream comes."""
    return [hashlib.shake_128(str(number).encode()).digest(MIB) for number in range(count)]


def digest(chunks: list[bytes]) -> str:
    return hashlib.sha256(b"".join(chunks)).hexdigest()


@pytest.mark.parametrize("count", [0, 1, 8, 9, 20])
def test_a_stream_comes_back_as_it_went(store: Store, count: int) -> None:
    sent, seen = pieces(count), []
    stored = store.put_stream("a/b.bin", sent, seen.append)
    assert stored == (count * MIB, digest(sent))
    assert seen == sorted(seen) and seen[-1:] in ([count * MIB], [])
    assert store.size("a/b.bin") == count * MIB
    assert hashlib.sha256(b"".join(store.get_stream("a/b.bin"))).hexdigest() == stored.sha256
    assert [(entry.path, entry.size) for entry in store.list()] == [("a/b.bin", count * MIB)]


def test_a_small_object_is_written_at_once_and_replaced(store: Store) -> None:
    store.put_bytes("manifest.json", b"old")
    assert store.put_bytes("manifest.json", b"new one") == (7, hashlib.sha256(b"new one").hexdigest())
    assert store.get_bytes("manifest.json") == b"new one"
    with pytest.raises(OutsideFailure, match="7 bytes; at most 6"):
        store.get_bytes("manifest.json", limit=6)


def test_what_is_not_there_is_said_so(store: Store) -> None:
    assert store.size("a") is None and store.list("a") == [] and store.list() == []
    for read in (store.get_stream, store.get_bytes):
        with pytest.raises(NotFound, match="There is no a/b in"):
            read("a/b")
    store.delete("a/b")
    assert store.delete_all("a") == 0


def test_a_directory_is_listed_and_deleted_without_its_neighbours(store: Store) -> None:
    for path in ("a/one", "a/deep/two", "ab/three", "four"):
        store.put_bytes(path, path.encode())
    assert [entry.path for entry in store.list()] == ["a/deep/two", "a/one", "ab/three", "four"]
    assert [entry.path for entry in store.list("a")] == ["a/deep/two", "a/one"]
    assert abs(store.list("a")[0].modified - time.time()) < 60
    assert store.delete_all("a") == 2
    store.delete("four")
    assert [entry.path for entry in store.list()] == ["ab/three"]


@pytest.mark.parametrize("count", [3, 30])
def test_a_stream_that_fails_leaves_nothing(store: Store, count: int) -> None:
    def breaks() -> Iterator[bytes]:
        yield from pieces(count)
        raise OutsideFailure("The source broke.")

    with pytest.raises(OutsideFailure, match="The source broke"):
        store.put_stream("a/b", breaks())
    assert store.list() == [] and store.size("a/b") is None
    assert store.delete_all("a") == 0


def test_an_interrupted_upload_ends_at_once_and_leaves_nothing(s3: PrivateS3, way: Way, tmp_path: Path) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupted

    way.rate, way.turns = 8 * MIB, (MIB, "deaf")
    store, sent = through(way, s3, tmp_path), pieces(1) * 200
    before = signal.signal(signal.SIGUSR1, interrupt)

    def in_the_middle() -> None:
        wait_until(lambda: way.deaf, 60)
        os.kill(os.getpid(), signal.SIGUSR1)
        way.deaf = False

    try:
        threading.Thread(target=in_the_middle, daemon=True).start()
        with pytest.raises(Interrupted):
            store.put_stream("a/b", sent)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert 0 < way.passed < 150 * MIB
    assert store.list() == []


def test_parts_that_are_torn_off_are_sent_again_by_themselves(s3: PrivateS3, way: Way, tmp_path: Path) -> None:
    sent = pieces(40)
    # Where a connection breaks off just as the library takes it, the library gives up, and all is sent once more: until
    # that was not so.
    for turn in range(20):
        way.torn_after, way.tears_left, way.torn, way.passed, way.begun = 3 * MIB, 3, 0, 0, 0
        assert through(way, s3, tmp_path).put_stream(f"a{turn}", sent) == (40 * MIB, digest(sent))
        assert way.torn == 3
        # Three parts of 8 MiB once more, not the whole.
        assert way.passed < (way.begun + 1) * 40 * MIB
        if way.begun == 1:
            return
    raise AssertionError("it was begun anew each time")


def test_a_store_that_is_away_for_a_while_is_waited_for(s3: PrivateS3, way: Way, tmp_path: Path) -> None:
    sent, store = pieces(20), through(way, s3, tmp_path)
    way.refuses = True

    def there_again() -> None:
        way.refuses = False

    timer = threading.Timer(1.5, there_again)
    timer.start()
    assert store.put_stream("a", sent) == (20 * MIB, digest(sent))
    timer.join()


@pytest.mark.parametrize("how", ["refuses", "deaf"])
def test_a_store_that_stays_away_is_given_up_in_words(s3: PrivateS3, way: Way, tmp_path: Path, how: str) -> None:
    store = through(way, s3, tmp_path, patience=1.5)

    def breaks() -> Iterator[bytes]:
        for number, piece in enumerate(pieces(40)):
            if number == 20:
                setattr(way, how, True)
                way.cut()
            yield piece

    began = time.monotonic()
    with pytest.raises((OutsideFailure, TimedOut), match="failed again when tried again") as caught:
        store.put_stream("a/b", breaks())
    assert time.monotonic() - began < 40
    assert all(secret not in str(caught.value) for secret in s3.access.values())
    setattr(way, how, False)
    assert through(way, s3, tmp_path).list() == []


def test_a_read_that_is_torn_off_goes_on_where_it_was(s3: PrivateS3, way: Way, tmp_path: Path) -> None:
    sent = pieces(30)
    through(way, s3, tmp_path).put_stream("a", sent)
    read = hashlib.sha256()
    for number, piece in enumerate(through(way, s3, tmp_path).get_stream("a")):
        read.update(piece)
        if number in (1, 4):
            way.cut()
    assert read.hexdigest() == digest(sent)


@pytest.mark.parametrize("which", ["nobody", "wrong key", "reader"])
def test_credentials_that_do_not_do_are_refused_in_the_stores_words(s3: PrivateS3, which: str) -> None:
    access = {
        "nobody": {"key_id": "planted-unknown-id", "key": "planted-unknown-key"},
        "wrong key": {**s3.access, "key": "planted-wrong-key"},
        "reader": s3.only_reading,
    }[which]
    store = open_store(f"s3://{s3.bucket}/x", s3.endpoint_url, PlatformAccess(access), patience=60)
    with pytest.raises(PermissionRefused, match="refuses these credentials") as caught:
        store.put_bytes("a", b"a")
    assert "planted" not in str(caught.value) + repr(caught.value.facts)


def test_a_bucket_that_is_not_there_is_named(s3: PrivateS3) -> None:
    store = open_store("s3://elsewhere", s3.endpoint_url, PlatformAccess(s3.access), patience=60)
    with pytest.raises(NotFound, match="s3://elsewhere does not exist"):
        store.put_bytes("a", b"a")


def test_a_token_of_the_environment_is_not_mixed_with_the_requests_keys(
    s3: PrivateS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "planted-token")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "planted-other-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-other-key")
    store = open_store(f"s3://{s3.bucket}/env", s3.endpoint_url, PlatformAccess(s3.access), patience=60)
    store.put_bytes("a", b"a")
    store.delete("a")


def test_without_credentials_of_the_request_those_of_the_environment_are_taken(
    s3: PrivateS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access["key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.access["key"])
    store = open_store(f"s3://{s3.bucket}/env", s3.endpoint_url, patience=60)
    store.put_bytes("b", b"b")
    assert store.get_bytes("b") == b"b"
    store.delete("b")


def test_swift_is_written_to_through_its_s3_interface(s3: PrivateS3) -> None:
    store = open_store(f"swift://{s3.bucket}/swift", s3.endpoint_url, PlatformAccess(s3.access), patience=60)
    assert store.put_stream("a", pieces(9)).size == 9 * MIB
    assert store.url == f"swift://{s3.bucket}/swift" and store.delete_all("") == 1


def test_an_object_that_arrives_changed_is_refused_and_deleted(
    s3: PrivateS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import obstore

    # What the network or the store's disks would do: the first part is another one when it arrives.
    put = obstore.put
    damaged = iter([True])

    def harmful(store: object, path: str, source: Iterator[bytes], **options: object) -> object:
        return put(store, path, (b"x" + piece[1:] if next(damaged, False) else piece for piece in source), **options)

    monkeypatch.setattr(obstore, "put", harmful)
    store = open_store(f"s3://{s3.bucket}/{tmp_path.name}", s3.endpoint_url, PlatformAccess(s3.access))
    with pytest.raises(OutsideFailure, match="is not what was sent"):
        store.put_stream("a", pieces(20))
    assert store.list() == []


def test_a_tag_that_is_no_md5_makes_it_read_back(
    s3: PrivateS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import obstore

    put = obstore.put
    monkeypatch.setattr(obstore, "put", lambda *words, **options: {**put(*words, **options), "e_tag": '"encrypted"'})
    store = open_store(f"s3://{s3.bucket}/{tmp_path.name}", s3.endpoint_url, PlatformAccess(s3.access))
    sent = pieces(20)
    assert store.put_stream("a", sent) == (20 * MIB, digest(sent))


def test_files_are_private_whole_and_never_followed_elsewhere(tmp_path: Path) -> None:
    root = tmp_path / "store"
    store = open_store(f"file://{root}")
    before = os.umask(0)
    try:
        store.put_bytes("a/b", b"secret")
    finally:
        os.umask(before)
    assert (root / "a" / "b").stat().st_mode & 0o777 == 0o600 and (root / "a").stat().st_mode & 0o777 == 0o700
    outside = tmp_path / "outside"
    outside.write_text("outside")
    (root / "a" / "link").symlink_to(outside)
    with pytest.raises(ScalarizrError):
        store.get_bytes("a/link")
    store.put_bytes("a/link", b"inside")
    assert outside.read_text() == "outside" and store.get_bytes("a/link") == b"inside"
    # What a kill left: no object, and gone with its directory.
    (root / "a" / ".b.0badcafe.staged").write_bytes(b"half")
    assert [entry.path for entry in store.list("a")] == ["a/b", "a/link"]
    assert store.delete_all("a") == 2 and not (root / "a").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    root = tmp_path / "small"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", root], check=True)
    yield root
    subprocess.run(["umount", root], check=True)


@pytest.mark.root
def test_a_full_disk_is_said_so_and_the_file_is_gone(small_disk: Path) -> None:
    store = open_store(f"file://{small_disk}")
    with pytest.raises(OutsideFailure, match="is full"):
        store.put_stream("a/b", pieces(8))
    assert store.list() == [] and list((small_disk / "a").iterdir()) == []
    assert store.put_stream("a/b", pieces(2)).size == 2 * MIB


@pytest.mark.root
def test_a_read_only_disk_is_said_so_and_what_was_left(small_disk: Path) -> None:
    store = open_store(f"file://{small_disk}")
    store.put_bytes("a/b", b"whole")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(OutsideFailure, match=r"read-only.* It was not kept.*mount it for writing"):
        store.put_bytes("a/c", b"more")
    with pytest.raises(OutsideFailure, match=r"read-only.* Nothing was changed"):
        store.delete("a/b")
    assert store.get_bytes("a/b") == b"whole"
