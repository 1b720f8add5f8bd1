"""Unpacking a package whose maker is a stranger: regular files and directories below one directory, and nothing else.

A tar archive, plain or compressed, or a Debian package, of which the data archive is taken; its scripts are not run.
What it is, is told by its first bytes and not by its name.
"""

import contextlib
import gzip
import lzma
import os
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from scalarizr.errors import UNCHANGED, OutsideFailure, Refused

LARGEST_CONTENT = 1 << 30
MOST_MEMBERS = 20_000
_LARGEST_HEADER = 1 << 20
_DECODER_MEMORY = 128 << 20
_CHUNK = 1 << 16
_DEEPEST = 40
_AR = b"!<arch>\n"
_SPECIAL_BITS = 0o7000


def unpack(package: Path, directory: Path) -> None:
    """Unpack a package into a directory that is empty.

    :param package: the file.
    :param directory: what it comes into. Where this fails, something of it may be there.
    :raises Refused: there is in it what a package of a program need not have: another path than one below the
        directory, a link, a device, a setuid bit, or more than 1 GiB.
    :raises OutsideFailure: it is no archive, or a damaged one; or the disk is full.
    """
    try:
        with open(package, "rb") as file, tempfile.TemporaryFile(dir=directory.parent) as plain:
            with _data_archive(file) as data:
                _decompress(data, plain)
            plain.seek(0)
            _extract(plain, directory)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, UnicodeError) as error:
        raise _damaged(str(error)) from None
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise _damaged(str(error)) from None
        raise OutsideFailure(
            f"The package cannot be unpacked: {error.strerror or error}. {UNCHANGED} Make room for it.",
            {"path": str(directory.parent)},
        ) from error


class _Bounded:
    """A part of a file, to be read from its beginning to its end."""

    def __init__(self, file: IO[bytes], size: int | None) -> None:
        self._file = file
        self._left = size

    def read(self, size: int = -1) -> bytes:
        if self._left is None:
            return self._file.read(size)
        if size < 0 or size > self._left:
            size = self._left
        data = self._file.read(size)
        self._left -= len(data)
        return data


@contextlib.contextmanager
def _data_archive(file: IO[bytes]) -> Iterator[_Bounded]:
    """Give the archive itself; of a Debian package (deb(5)) the member `data.tar…`."""
    if file.read(len(_AR)) != _AR:
        file.seek(0)
        yield _Bounded(file, None)
        return
    while True:
        header = file.read(60)
        if len(header) < 60 or header[58:] != b"`\n" or not header[48:58].strip().isdigit():
            raise _damaged("it has no data archive")
        name = header[:16].decode("ascii", "replace").strip().rstrip("/")
        size = int(header[48:58])
        if name.startswith("data.tar"):
            yield _Bounded(file, size)
            return
        file.seek(size + size % 2, os.SEEK_CUR)


def _decompress(source: _Bounded, plain: IO[bytes]) -> None:
    first = source.read(6)
    rest = _After(first, source)
    size = 0
    for chunk in _decoder(first)(rest):
        size += len(chunk)
        if size > LARGEST_CONTENT:
            raise _refused(f"it unpacks to more than {LARGEST_CONTENT >> 30} GiB")
        plain.write(chunk)


class _After:
    """A stream whose first bytes were read already."""

    def __init__(self, first: bytes, source: _Bounded) -> None:
        self._first = first
        self._source = source

    def read(self, size: int = -1) -> bytes:
        if self._first:
            taken = self._first if size < 0 else self._first[:size]
            self._first = self._first[len(taken) :]
            return taken
        return self._source.read(size)


def _decoder(first: bytes) -> Callable[[Any], Iterator[bytes]]:
    for magic, decoder in ((b"\x1f\x8b", _gunzipped), (b"\xfd7zXZ\x00", _unxzed), (b"\x28\xb5\x2f\xfd", _unzstded)):
        if first.startswith(magic):
            return decoder
    return _as_it_is


def _as_it_is(source: Any) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK):
        yield chunk


def _gunzipped(source: Any) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=source, mode="rb") as stream:
        yield from _as_it_is(stream)


def _unxzed(source: Any) -> Iterator[bytes]:
    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_DECODER_MEMORY)
    while not decoder.eof:
        data = source.read(_CHUNK) if decoder.needs_input else b""
        if decoder.needs_input and not data:
            raise EOFError("it is cut off")
        if chunk := decoder.decompress(data, _CHUNK):
            yield chunk


def _unzstded(source: Any) -> Iterator[bytes]:
    import zstandard

    decoder = zstandard.ZstdDecompressor(max_window_size=_DECODER_MEMORY)
    try:
        with decoder.stream_reader(source, read_across_frames=True, closefd=False) as stream:
            yield from _as_it_is(stream)
    except zstandard.ZstdError as error:
        raise _damaged(str(error)) from None


class _Guarded:
    """A file whose reader is not led to take it all into memory by what a header claims."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > _LARGEST_HEADER:
            raise _refused("a header in it is larger than 1 MiB")
        return self._file.read(size)


def _extract(plain: IO[bytes], directory: Path) -> None:
    guarded: Any = _Guarded(plain)
    with tarfile.open(fileobj=guarded, mode="r:") as archive:
        for number, member in enumerate(archive):
            if number >= MOST_MEMBERS:
                raise _refused(f"it has more than {MOST_MEMBERS} members")
            parts = _checked(member)
            if not parts:
                continue
            target = directory.joinpath(*parts)
            if member.isdir():
                _make_directories(directory, parts)
            else:
                _make_directories(directory, parts[:-1])
                _write(archive, member, target)


def _checked(member: tarfile.TarInfo) -> list[str]:
    """Give the parts of a member's path below the directory."""
    name = member.name
    shown = ascii(name[:100])
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise _refused(f"{shown} in it is neither a regular file nor a directory")
    if member.mode & _SPECIAL_BITS:
        raise _refused(f"{shown} in it has a setuid, setgid or sticky bit")
    if name.startswith("/"):
        raise _refused(f"{shown} in it has an absolute path")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _refused(f"{shown} in it leads out of its directory")
    if len(parts) > _DEEPEST or any(not part.isprintable() or len(part.encode()) > 255 for part in parts):
        raise _refused(f"{shown} in it has a path that cannot be used")
    return parts


def _make_directories(base: Path, parts: list[str]) -> None:
    path = base
    for part in parts:
        path = path / part
        try:
            path.mkdir(mode=0o755)
        except FileExistsError:
            # Nothing but what this function and the next one made is here: no link can lead away.
            if not path.is_dir():
                raise _refused(f"{part!a} in it is both a file and a directory") from None
        else:
            path.chmod(0o755)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    mode = 0o755 if member.mode & 0o111 else 0o644
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise _refused(f"{member.name[:100]!a} is in it twice") from None
    content = archive.extractfile(member)
    assert content is not None
    with open(descriptor, "wb") as file, content:
        left = member.size
        while left:
            chunk = content.read(min(_CHUNK, left))
            if not chunk:
                raise _damaged("it is cut off")
            file.write(chunk)
            left -= len(chunk)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())


def _refused(why: str) -> Refused:
    return Refused(
        f"The monitoring agent's package was not unpacked: {why}. {UNCHANGED} Use a package of MongoDB's own.",
        {"reason": why},
    )


def _damaged(why: str) -> OutsideFailure:
    return OutsideFailure(
        f"The monitoring agent's package is no tar archive and no Debian package, or is damaged: {why}. {UNCHANGED} "
        "Fetch it again.",
        {"reason": why},
    )
