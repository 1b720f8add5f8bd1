"""Unpacking packages that mean harm: nothing of them comes out of their directory, into memory or onto the disk."""

import gzip
import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from monitoring_package import classic_files, compressed, debian_package, tar
from scalarizr.errors import OutsideFailure, Refused, ScalarizrError
from scalarizr.mongodb import archive


def unpacked(tmp_path: Path, content: bytes) -> Path:
    package, directory = tmp_path / "package", tmp_path / "unpacked"
    package.write_bytes(content)
    directory.mkdir()
    archive.unpack(package, directory)
    return directory


def refused(tmp_path: Path, content: bytes, kind: type[ScalarizrError] = Refused) -> str:
    """Why it is refused; nothing came out beside its directory, and no temporary file stayed."""
    with pytest.raises(kind) as caught:
        unpacked(tmp_path, content)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["package", "unpacked"]
    return caught.value.message


def with_member(change: Callable[[tarfile.TarInfo], object], name: str = "harm", content: bytes = b"harm") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as made:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        change(member)
        made.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return data.getvalue()


def changed(**values: object) -> Callable[[tarfile.TarInfo], None]:
    def change(member: tarfile.TarInfo) -> None:
        for name, value in values.items():
            setattr(member, name, value)

    return change


@pytest.mark.parametrize("how", ["", "gz", "xz", "zst"])
@pytest.mark.parametrize("debian", [False, True])
def test_files_and_directories_come_out_with_plain_permissions(tmp_path: Path, how: str, debian: bool) -> None:
    files = {**classic_files(Path("/report")), "bin/run": (0o711, "program"), "private": (0o600, "text")}
    content = debian_package(files, how) if debian else compressed(tar(files), how)
    directory = unpacked(tmp_path, content)
    assert (directory / "mms-agent" / "settings.py").read_text() == files["mms-agent/settings.py"][1]
    modes = {name: (directory / name).stat().st_mode & 0o7777 for name in ("bin/run", "private", "bin", "mms-agent")}
    assert modes == {"bin/run": 0o755, "private": 0o644, "bin": 0o755, "mms-agent": 0o755}
    assert not list(directory.rglob("postinst"))


@pytest.mark.parametrize("name", ["../harm", "a/../../harm", "./../harm", "a/.."])
def test_a_path_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    assert "leads out of its directory" in refused(tmp_path, with_member(changed(name=name)))


def test_an_absolute_path_is_refused(tmp_path: Path) -> None:
    assert "absolute path" in refused(tmp_path, with_member(changed(name=str(tmp_path / "harm"))))


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.GNUTYPE_SPARSE,
        b"Z",
    ],
)
def test_what_is_neither_file_nor_directory_is_refused(tmp_path: Path, kind: bytes) -> None:
    content = with_member(changed(type=kind, linkname="/etc", size=0), content=b"")
    assert "neither a regular file nor a directory" in refused(tmp_path, content)


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1777])
def test_special_permission_bits_are_refused(tmp_path: Path, mode: int) -> None:
    assert "setuid" in refused(tmp_path, with_member(changed(mode=mode)))


def test_a_file_that_is_also_a_directory_or_comes_twice_is_refused(tmp_path: Path) -> None:
    assert "both a file and a directory" in refused(
        tmp_path, tar({"a": (0o644, "x")})[:1024] + tar({"a/b": (0o644, "x")})
    )


def test_a_file_that_comes_twice_is_refused(tmp_path: Path) -> None:
    one = tar({"a": (0o644, "x")})[:1024]
    assert "is in it twice" in refused(tmp_path, one + one + b"\0" * 1024)


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2J", "a" * 300, "/".join("a" * 50)])
def test_a_name_that_no_program_has_is_refused(tmp_path: Path, name: str) -> None:
    message = refused(tmp_path, with_member(changed(name=name)))
    assert "path that cannot be used" in message and message.isprintable()


@pytest.mark.parametrize("how", ["gz", "xz", "zst"])
def test_what_unpacks_to_too_much_is_refused_before_it_fills_the_disk(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "LARGEST_CONTENT", 1 << 20)
    bomb = compressed(with_member(changed(), content=bytes(8 << 20)), how)
    assert len(bomb) < 1 << 17
    assert "unpacks to more than" in refused(tmp_path, bomb)


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_MEMBERS", 10)
    assert "more than 10 members" in refused(tmp_path, tar({f"f{number}": (0o644, "x") for number in range(11)}))


@pytest.mark.parametrize("kind", [b"x", b"L", b"K", b"g"])
def test_a_header_that_claims_gigabytes_is_not_read_into_memory(tmp_path: Path, kind: bytes) -> None:
    header = tarfile.TarInfo("header")
    header.type, header.size = kind, 5 << 30
    assert "header in it is larger than 1 MiB" in refused(tmp_path, header.tobuf(tarfile.GNU_FORMAT) + bytes(4096))


def test_a_decoder_that_would_take_gigabytes_is_refused(tmp_path: Path) -> None:
    import zstandard

    plain = tar({"a": (0o644, "x")})
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    large = compressor.compress(plain + bytes(1 << 20)) + compressor.flush()
    assert "is damaged" in refused(tmp_path, large, OutsideFailure)


@pytest.mark.parametrize("how", ["", "gz", "xz", "zst"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.7])
def test_what_is_cut_off_is_damaged(tmp_path: Path, how: str, part: float) -> None:
    noise = random.Random(0).randbytes(20_000).hex()
    whole = compressed(tar({"a": (0o644, noise), "b": (0o644, noise)}), how)
    refused(tmp_path, whole[: int(len(whole) * part)], OutsideFailure)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04" + bytes(1000),
        gzip.compress(b"no archive", mtime=0),
        b"!<arch>\n",
        b"!<arch>\n" + b"x" * 60,
        b"!<arch>\n" + f"{'control.tar.gz':<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{9999999:<10}`\n".encode(),
        b"!<arch>\n" + f"{'data.tar':<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{-5:<10}`\n".encode(),
    ],
    ids=["nothing", "zip", "gzip", "ar", "ar and rubbish", "a member too large", "a member of less than nothing"],
)
def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    assert "no tar archive and no Debian package" in refused(tmp_path, content, OutsideFailure)
