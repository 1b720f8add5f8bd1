"""Host names: which are accepted, and what they do to /etc/hosts."""

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalarizr.changes.changes import Changes
from scalarizr.errors import InvalidParameter
from scalarizr.host.hosts_file import map_address
from scalarizr.host.paths import HostPaths
from scalarizr.system.hostname import check_hostname, set_hostname

LONG = ".".join(["a" * 60] * 4)


@pytest.mark.parametrize(
    "name", ["a", "web1", "Web-1.Example.COM", "1a.b2", "a" * 63, LONG, "xn--80ak6aa92e.com", "3com.com"]
)
def test_names_by_rfc_1123(name: str) -> None:
    check_hostname(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "-a",
        "a-",
        "a_b",
        "a b",
        "a\n",
        "a\0",
        "a/b",
        "a" * 64,
        LONG + "." + "a" * 12,
        "10.0.0.1",
        "пример.рф",
        "a.1",
        "1234",
        "a;reboot",
        "$(id)",
        "a#b",
        "ａ",
    ],
)
def test_what_is_no_name_changes_nothing(name: str, tmp_path: Path) -> None:
    host = tree(tmp_path)
    before = contents(host)
    with pytest.raises(InvalidParameter):
        set_hostname(changes(tmp_path), host, name, private_address=None)
    assert contents(host) == before


def tree(tmp_path: Path, hosts: bytes = b"127.0.0.1 localhost\n") -> HostPaths:
    host = HostPaths(tmp_path / "root")
    (host.proc / "sys" / "kernel").mkdir(parents=True)
    host.etc.mkdir()
    (host.proc / "sys" / "kernel" / "hostname").write_text("old\n")
    (host.etc / "hostname").write_text("old\n")
    (host.etc / "hosts").write_bytes(hosts)
    return host


def changes(tmp_path: Path) -> Changes:
    return Changes(tmp_path / "state", logging.Logger("test"))


def contents(host: HostPaths) -> list[bytes]:
    return [
        (host.proc / "sys/kernel/hostname").read_bytes(),
        *(path.read_bytes() for path in sorted(host.etc.iterdir())),
    ]


def test_a_name_without_a_known_address_is_mapped_the_way_debian_does(tmp_path: Path) -> None:
    host = tree(tmp_path)
    assert set_hostname(changes(tmp_path), host, "web1.example.com", private_address=None) == "web1.example.com"
    assert contents(host) == [
        b"web1.example.com\n",
        b"web1.example.com\n",
        b"127.0.0.1 localhost\n127.0.1.1\tweb1.example.com web1\n",
    ]


def test_a_name_too_long_for_the_kernel_is_whole_in_the_hosts_file(tmp_path: Path) -> None:
    host = tree(tmp_path)
    set_hostname(changes(tmp_path), host, LONG, private_address="10.0.0.1")
    assert contents(host)[0] == contents(host)[1] == b"a" * 60 + b"\n"
    assert contents(host)[2].endswith(f"10.0.0.1\t{LONG} {'a' * 60}\n".encode())


def test_red_hats_old_place_is_kept_up(tmp_path: Path) -> None:
    host = tree(tmp_path)
    network = host.etc / "sysconfig" / "network"
    network.parent.mkdir()
    network.write_text("NETWORKING=yes\nHOSTNAME=old\nGATEWAY=10.0.0.1\n")
    set_hostname(changes(tmp_path), host, "new.example.com", private_address=None)
    assert network.read_text() == "NETWORKING=yes\nHOSTNAME=new.example.com\nGATEWAY=10.0.0.1\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b"10.0.0.1\tw.e w\n"),
        (b"127.0.0.1 localhost", b"127.0.0.1 localhost\n10.0.0.1\tw.e w\n"),
        (b"10.0.0.1 old.e old\n", b"10.0.0.1 w.e w\n"),
        (b"10.0.0.1\told.e old db # main\n", b"10.0.0.1\tw.e w db # main\n"),
        (b"  10.0.0.1   db\r\n", b"  10.0.0.1   w.e w db\r\n"),
        (b"10.0.0.1 w.e w db\n", b"10.0.0.1 w.e w db\n"),
        (b"10.0.0.1 db w w.e\n", b"10.0.0.1 w.e w db\n"),
        (b"10.0.0.1 localhost\n", b"10.0.0.1 localhost w.e w\n"),
        (b"#10.0.0.1 old\n10.0.0.10 old\n", b"#10.0.0.1 old\n10.0.0.10 old\n10.0.0.1\tw.e w\n"),
        (b"a b\r\n", b"a b\r\n10.0.0.1\tw.e w\r\n"),
    ],
)
def test_one_line_of_the_hosts_file_is_changed(before: bytes, after: bytes) -> None:
    assert map_address(before, "10.0.0.1", ["w.e", "w"], ["old.e", "old"]) == after
    assert map_address(after, "10.0.0.1", ["w.e", "w"], ["old.e", "old"]) == after


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line), max_size=8), st.booleans())
def test_every_other_line_stays_to_the_byte(lines: list[bytes], ends: bool) -> None:
    text = b"\n".join(lines) + (b"\n" if ends else b"")
    once = map_address(text, "10.0.0.1", ["w.e", "w"], [])
    assert map_address(once, "10.0.0.1", ["w.e", "w"], []) == once
    ours = [line for line in once.split(b"\n") if line.split(None, 1)[:1] == [b"10.0.0.1"]]
    assert ours
    others = [line.rstrip(b"\r") for line in once.split(b"\n") if line not in ours and line]
    assert others == [
        line.rstrip(b"\r") for line in text.split(b"\n") if line and line.split(None, 1)[:1] != [b"10.0.0.1"]
    ]


def test_a_very_long_line_and_binary_bytes_are_survived() -> None:
    text = b"\xff\x00\x01 x\n" + b"10.0.0.2 " + b" \t" * 2_000_000 + b"x\n" + b"a " * 1_000_000
    assert map_address(text, "10.0.0.1", ["w"], []) == text + b"\n10.0.0.1\tw\n"
