"""Entries of fstab: added and taken out, everything else to the byte as it was."""

import logging
import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalarizr.changes.changes import Changes
from scalarizr.errors import OutsideFailure, Refused
from scalarizr.storage.fstab import Entry, Fstab

METHOD = "storage.create"
WRITTEN_BY_A_PERSON = b"""# /etc/fstab: static file system information.
#
UUID=1111-aaaa  /  ext4\terrors=remount-ro 0       1

  # a comment with blanks before it
/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0
tmpfs\t/tmp\ttmpfs
LABEL="my-data" /srv/my\\040data xfs defaults 0 0 # and words behind it
UUID=5 none swap sw
"""


@pytest.fixture
def changes(tmp_path: Path) -> Changes:
    return Changes(tmp_path / "state", logging.getLogger("test"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "fstab").write_bytes(WRITTEN_BY_A_PERSON)
    return tmp_path / "etc" / "fstab"


@pytest.fixture
def fstab(changes: Changes, path: Path) -> Fstab:
    return Fstab(changes, path)


def test_entries_are_read_as_mount_reads_them(fstab: Fstab) -> None:
    assert fstab.entries() == [
        Entry("UUID=1111-aaaa", "/", "ext4", "errors=remount-ro", 3),
        Entry("/dev/sr0", "/media/cdrom0", "udf,iso9660", "user,noauto", 6),
        Entry("tmpfs", "/tmp", "tmpfs", "defaults", 7),
        Entry('LABEL="my-data"', "/srv/my data", "xfs", "defaults", 8),
        Entry("UUID=5", "none", "swap", "sw", 9),
    ]


def test_an_entry_is_added_at_the_end_and_nothing_else_changes(fstab: Fstab, path: Path) -> None:
    fstab.add(METHOD, "UUID=2222", "/srv/data", "ext4", "noatime")
    assert path.read_bytes() == WRITTEN_BY_A_PERSON + b"UUID=2222\t/srv/data\text4\tnoatime,nofail\t0\t2\n"


def test_adding_and_removing_leaves_the_file_as_it_was(fstab: Fstab, path: Path) -> None:
    fstab.add(METHOD, "UUID=2222", "/srv/data", "xfs", "")
    assert b"\tdefaults,nofail\t0\t0\n" in path.read_bytes()
    fstab.remove("storage.detach", ["/dev/sdb", "UUID=2222"], "/srv/data")
    assert path.read_bytes() == WRITTEN_BY_A_PERSON


def test_what_is_there_already_is_not_written_again(fstab: Fstab, path: Path, changes: Changes) -> None:
    fstab.add(METHOD, "UUID=2222", "/srv/data", "ext4", "noatime")
    before = os.stat(path)
    fstab.add(METHOD, "UUID=2222", "/srv/data", "ext4", "noatime")
    fstab.add(METHOD, "UUID=2222", "/srv/data/", "ext4", "nofail,noatime")
    assert os.stat(path).st_ino == before.st_ino and len(changes.journal.history()) == 1


def test_an_option_that_a_person_added_stays(fstab: Fstab, path: Path) -> None:
    path.write_bytes(b"UUID=2222 /srv/data ext4 noatime,nofail,data=ordered 0 2\n")
    fstab.add(METHOD, "UUID=2222", "/srv/data", "ext4", "noatime")
    assert path.read_bytes() == b"UUID=2222 /srv/data ext4 noatime,nofail,data=ordered 0 2\n"


def test_other_options_of_the_same_volume_take_the_place_of_the_old(fstab: Fstab, path: Path) -> None:
    fstab.add(METHOD, "UUID=2222", "/srv/data", "ext4", "noatime")
    fstab.add(METHOD, "UUID=2222", "/srv/data", "ext4", "discard")
    assert path.read_bytes() == WRITTEN_BY_A_PERSON + b"UUID=2222\t/srv/data\text4\tdiscard,nofail\t0\t2\n"


def test_a_persons_entry_for_the_mount_point_is_refused(fstab: Fstab, path: Path) -> None:
    with pytest.raises(Refused, match=r"Line 6 of .* mounts /dev/sr0 at /media/cdrom0") as refusal:
        fstab.add(METHOD, "UUID=2222", "/media/cdrom0", "ext4", "")
    assert refusal.value.facts["line"] == 6
    assert path.read_bytes() == WRITTEN_BY_A_PERSON


def test_only_what_is_named_is_removed(fstab: Fstab, path: Path) -> None:
    fstab.remove("storage.detach", ["/dev/sr0"], "/srv/elsewhere")
    fstab.remove("storage.detach", ["UUID=unknown"], None)
    fstab.remove("storage.detach", [], "/")
    assert path.read_bytes() == WRITTEN_BY_A_PERSON


def test_all_entries_of_a_source_go_where_no_mount_point_is_named(fstab: Fstab, path: Path) -> None:
    for mpoint in ("/a", "/b"):
        fstab.add(METHOD, "UUID=abcd-2222", mpoint, "ext4", "")
    fstab.remove("storage.destroy", ['UUID="ABCD-2222"'], None)
    assert path.read_bytes() == WRITTEN_BY_A_PERSON


def test_blanks_and_the_like_are_escaped(fstab: Fstab, path: Path) -> None:
    fstab.add(METHOD, "/var/lib/my images/a#b\\c.img", "/srv/with blank\tand täb", "ext4", "loop")
    line = path.read_bytes().splitlines()[-1]
    assert line == (
        b"/var/lib/my\\040images/a\\043b\\134c.img\t/srv/with\\040blank\\011and\\040t\xc3\xa4b\text4\tloop,nofail\t0\t0"
    )
    entry = fstab.entries()[-1]
    assert (entry.source, entry.mpoint) == ("/var/lib/my images/a#b\\c.img", "/srv/with blank\tand täb")
    fstab.remove("storage.detach", ["/var/lib/my images/a#b\\c.img"], None)
    assert path.read_bytes() == WRITTEN_BY_A_PERSON


def test_a_missing_final_newline_joins_no_lines(fstab: Fstab, path: Path) -> None:
    path.write_bytes(b"UUID=1 / ext4 defaults 0 1")
    fstab.add(METHOD, "UUID=2222", "/srv/data", "xfs", "")
    assert path.read_bytes() == b"UUID=1 / ext4 defaults 0 1\nUUID=2222\t/srv/data\txfs\tdefaults,nofail\t0\t0\n"


@pytest.mark.parametrize(
    "broken", [b"/dev/sdb", b"/dev/sdb /srv", b"UUID=1 /srv ext4 defaults yes 0", b"a\0b /srv ext4 defaults 0 0"]
)
def test_a_broken_line_is_reported_and_nothing_is_rewritten(fstab: Fstab, path: Path, broken: bytes) -> None:
    content = b"UUID=1 / ext4 defaults 0 1\n" + broken + b"\n"
    path.write_bytes(content)
    for call in (
        lambda: fstab.add(METHOD, "UUID=2222", "/srv/data", "xfs", ""),
        lambda: fstab.remove("storage.detach", ["UUID=1"], None),
        lambda: fstab.entries(),
    ):
        with pytest.raises(Refused, match=r"Line 2 of .* is broken") as refusal:
            call()
        assert refusal.value.facts["line"] == 2
    assert path.read_bytes() == content


def test_a_missing_file_is_made(changes: Changes, tmp_path: Path) -> None:
    fstab = Fstab(changes, tmp_path / "fstab")
    assert fstab.entries() == []
    fstab.remove("storage.detach", ["UUID=2222"], None)
    assert not (tmp_path / "fstab").exists()
    fstab.add(METHOD, "UUID=2222", "/srv/data", "btrfs", "compress=zstd")
    assert (tmp_path / "fstab").read_bytes() == b"UUID=2222\t/srv/data\tbtrfs\tcompress=zstd,nofail\t0\t0\n"
    assert stat.S_IMODE(os.stat(tmp_path / "fstab").st_mode) == 0o644


def test_lines_that_end_as_on_another_system_stay_so(fstab: Fstab, path: Path) -> None:
    path.write_bytes(b"UUID=1 / ext4 defaults 0 1\r\nUUID=2222 /srv/data ext4 nofail 0 2\r\n")
    fstab.add(METHOD, "UUID=2222", "/srv/data", "ext4", "noatime")
    assert path.read_bytes() == b"UUID=1 / ext4 defaults 0 1\r\nUUID=2222\t/srv/data\text4\tnoatime,nofail\t0\t2\r\n"


def test_what_is_no_file_is_no_fstab(changes: Changes, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fstab")
    with pytest.raises(OutsideFailure):
        Fstab(changes, tmp_path / "fstab").entries()


def test_the_change_can_be_taken_back_like_any_other(fstab: Fstab, changes: Changes, path: Path) -> None:
    fstab.add(METHOD, "UUID=2222", "/srv/data", "ext4", "")
    (record,) = changes.journal.history()
    assert (record.method, record.service, record.status) == (METHOD, "fstab", "applied")
    assert [file.path for file in record.files] == [str(path)]


LINES = st.lists(
    st.one_of(
        st.binary(max_size=30).map(lambda raw: b"#" + raw.replace(b"\n", b"").replace(b"\0", b"")),
        st.sampled_from([b"", b" ", b"\t", b"UUID=1 / ext4 defaults 0 1", b"  /dev/sda1\t/boot vfat umask=0077"]),
    ),
    max_size=8,
).map(b"\n".join)


# Each example is two changes that are made durable.
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(LINES, st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()))
def test_whatever_else_is_there_stays(tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str) -> None:
    directory = tmp_path_factory.mktemp("fstab")
    fstab = Fstab(Changes(directory / "state", logging.getLogger("test")), directory / "fstab")
    (directory / "fstab").write_bytes(content)
    fstab.add(METHOD, f"/images/{name}", f"/srv/{name}", "ext4", "loop")
    assert (directory / "fstab").read_bytes().startswith(content)
    added = fstab.entries()[-1]
    assert (added.source, added.mpoint) == (f"/images/{name}", f"/srv/{name}")
    fstab.remove("storage.detach", [f"/images/{name}"], f"/srv/{name}")
    left = (directory / "fstab").read_bytes()
    assert left == content or left == content + b"\n"


def test_findmnt_reads_what_we_write(fstab: Fstab, path: Path) -> None:
    path.write_bytes(b"")
    fstab.add(METHOD, "/images/my disk.img", "/srv/my data", "ext4", "loop,noatime")
    command = ["findmnt", "--tab-file", path, "--raw", "--noheadings", "-o", "SOURCE,TARGET,FSTYPE,OPTIONS"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert said.replace("\\x20", "_") == "/images/my_disk.img /srv/my_data ext4 loop,noatime,nofail"
