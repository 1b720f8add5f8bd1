"""What a backup and its parts are called, and which backups a retention lets go of."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from scalarizr.errors import InvalidParameter, NotConfigured
from scalarizr.objectstore.files import FileStore
from scalarizr.postgresql import backup_catalogue as catalogue
from scalarizr.postgresql.backup_catalogue import Manifest, Part
from scalarizr.postgresql.backup_parts import _file_name
from scalarizr.postgresql.dump import Compression, Database

OWN, OTHER = "00000001", "00000002"


def made(store: FileStore, second: int, server: str = OWN, *, whole: bool = True, database: str = "shop") -> str:
    """Put a backup into the store; gives its id."""
    identity = catalogue.new_identity(server, b"\1\2\3", datetime(2026, 1, 1, 0, 0, second, 7000, tzinfo=UTC))
    path = f"{catalogue.directory_of(identity)}/{database}.dump"
    stored = store.put_bytes(path, b"data")
    part = Part(path, database, stored.size + (not whole), stored.sha256)
    manifest = Manifest(identity, "", "", "host", "15", "1", "none", [part])
    store.put_bytes(catalogue.manifest_path(identity), msgspec.json.encode(manifest))
    return identity


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store")


def left(store: FileStore) -> list[str]:
    return [found.identity for found in catalogue.list_backups(store)]


def test_an_id_sorts_by_time_to_the_millisecond() -> None:
    times = [datetime(2026, 1, 1, 0, 0, 0, 999_000, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 1, 2000, tzinfo=UTC)]
    first, second = (catalogue.new_identity(OWN, b"\xff\0\0", time) for time in times)
    assert first < second == "20260101T000001002Z-00000001-ff0000"


def test_a_backup_is_meant_by_its_path_its_url_or_its_id(store: FileStore) -> None:
    identity = made(store, 1)
    for words in (identity, f"postgresql/{identity}/manifest.json", f"{store.url}/postgresql/{identity}/manifest.json"):
        assert catalogue.identity_of(words, store) == identity
    for words in (
        "",
        "x",
        f"../{identity}",
        f"postgresql/{identity}/shop.dump",
        f"s3://x/{identity}",
    ):
        with pytest.raises(InvalidParameter):
            catalogue.identity_of(words, store)


def test_the_newest_whole_ones_are_kept_and_damaged_ones_do_not_count(store: FileStore) -> None:
    oldest, old, damaged, new, newest = (made(store, second, whole=second != 3) for second in range(1, 6))
    other = made(store, 1, OTHER)
    assert catalogue.retire(store, OWN, 3, newest) == [oldest]
    assert left(store) == [newest, new, damaged, old, other]
    assert catalogue.retire(store, OWN, 2, newest) == [damaged, old]


def test_what_was_just_made_stays_whatever_the_clock_did(store: FileStore) -> None:
    of_tomorrow, just_made = made(store, 9), made(store, 1)
    assert catalogue.retire(store, OWN, 0, just_made) == [of_tomorrow]
    assert left(store) == [just_made]


def test_of_a_database_that_is_not_in_the_new_one_the_newest_whole_backup_stays(store: FileStore) -> None:
    oldest, last_good, damaged = made(store, 1), made(store, 2), made(store, 3, whole=False)
    without_it = made(store, 4, database="postgres")
    newest = made(store, 5, database="postgres")
    assert catalogue.retire(store, OWN, 1, newest, ["shop", "never there"]) == [without_it, damaged, oldest]
    assert left(store) == [newest, last_good]
    # Once it is in one again, or dropped, nothing holds the old one any more.
    assert catalogue.retire(store, OWN, 1, newest) == [last_good]


def test_only_this_servers_remains_are_swept(store: FileStore) -> None:
    whole = made(store, 1)
    remains = {server: catalogue.new_identity(server, b"abc") for server in (OWN, OTHER)}
    for identity in remains.values():
        store.put_bytes(f"{catalogue.directory_of(identity)}/shop.dump", b"half")
    store.put_bytes("postgresql/notes", b"of a person")
    assert catalogue.sweep(store, OWN) == [remains[OWN]]
    assert {entry.path.split("/")[1] for entry in store.list()} == {whole, remains[OTHER], "notes"}


def test_a_part_is_named_after_its_database_and_no_two_share_a_name() -> None:
    names = ["shop", "Shop", "my shop", "my_shop", "a.b", "..", "-x", "a/b", "ü" * 31, "x" * 63, "globals", "a\nb"]
    files = {name: _file_name(Database(1, name, 0, True), Compression(3)) for name in names}
    assert files["shop"] == "shop.dump.zst" and files["globals"] == "globals.dump.zst"
    assert len(set(files.values())) == len(names)
    assert _file_name(None, Compression(None)) == "globals.sql"
    from scalarizr.objectstore.store import checked_path

    for file in files.values():
        assert checked_path(f"postgresql/x/{file}")


@pytest.mark.parametrize("text", ["", "gzip", "zstd:", "zstd:0", "zstd:20", "zstd:x", "zstd:-1", "none:1", "zstd:３"])
def test_a_compression_that_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(NotConfigured, match="compression"):
        Compression.parse(text)


def test_what_is_compressed_unpacks_to_what_it_was() -> None:
    import zstandard

    pieces = [bytes([number]) * 100_000 for number in range(50)]
    for level in (1, 3):
        packed = b"".join(Compression.parse(f"zstd:{level}").apply(iter(pieces)))
        assert zstandard.ZstdDecompressor().decompressobj().decompress(packed) == b"".join(pieces)
    assert list(Compression.parse("none").apply(iter(pieces))) == pieces


def test_what_is_compressed_is_one_frame_with_a_checksum_however_much_it_is() -> None:
    import zstandard

    # More than zstd's thread takes at a time.
    piece = bytes(range(256)) * 4096
    packed = b"".join(Compression(1).apply(piece for _ in range(20)))
    assert zstandard.get_frame_parameters(packed).has_checksum
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    assert unpacker.decompress(packed) == piece * 20
    assert unpacker.eof and not unpacker.unused_data
    damaged = packed[:-1] + bytes([packed[-1] ^ 1])
    with pytest.raises(zstandard.ZstdError):
        zstandard.ZstdDecompressor().decompressobj().decompress(damaged)
