"""fstab(5): entries added and removed through the same transactions as every configuration file; other lines to the
byte as they were."""

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from scalarizr.changes.changes import Changes
from scalarizr.errors import OutsideFailure, Refused, ScalarizrError
from scalarizr.host.mount_fields import unescaped
from scalarizr.host.run import run

_TO_ESCAPE = re.compile(rb"[\x00-\x20#\\\x7f]")
_TAGS = ("UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=", "ID=")
_CHECKED_AT_BOOT = ("ext3", "ext4")
_LARGEST = 1 << 20
_SYSTEMD = Path("/run/systemd/system")


class Entry(msgspec.Struct, frozen=True):
    """One entry.

    :param source: what is mounted: a device, `UUID=…`, an image.
    :param mpoint: where.
    :param fstype: as what.
    :param options: by comma.
    :param line: the number of its line, from 1.
    """

    source: str
    mpoint: str
    fstype: str
    options: str
    line: int


class Fstab:
    """The host's fstab.

    :param changes: makes the transactions.
    :param path: the file.
    """

    def __init__(self, changes: Changes, path: Path) -> None:
        self._changes = changes
        self._path = path

    def entries(self) -> list[Entry]:
        """Give all entries.

        :raises Refused: a line is broken; names it.
        :raises OutsideFailure: the file cannot be read.
        """
        return self._parsed(self._read())

    def add(self, method: str, source: str, mpoint: str, fstype: str, options: str) -> None:
        """Have something mounted at boot; `nofail` is always among its options. There already: nothing changes.

        :param method: what the caller called, for the history of changes.
        :param options: by comma.
        :raises Refused: the mount point has an entry of something else, or a line is broken; names the line.
        """
        wanted = _with_nofail(options)
        with self._changes.transaction("fstab", method) as transaction:
            content = transaction.read(self._path) or b""
            before = self._parsed(content)
            there = [entry for entry in before if _same_place(entry.mpoint, mpoint)]
            foreign = [entry for entry in there if not _same_source(entry.source, source)]
            if foreign:
                raise Refused(
                    f"Line {foreign[0].line} of {self._path} mounts {foreign[0].source} at {mpoint}, which somebody "
                    "else wrote. Nothing was changed; remove that line, or choose another mount point.",
                    {"file": str(self._path), "line": foreign[0].line},
                )
            if any(entry.fstype == fstype and set(wanted) <= set(entry.options.split(",")) for entry in there):
                return
            check = "2" if fstype in _CHECKED_AT_BOOT and source.startswith((*_TAGS, "/dev/")) else "0"
            line = "\t".join([_escaped(source), _escaped(mpoint), fstype, ",".join(wanted), "0", check]).encode(
                errors="surrogateescape"
            )
            lines = content.split(b"\n")
            if there:
                ending = b"\r" if lines[there[-1].line - 1].endswith(b"\r") else b""
                lines[there[-1].line - 1] = line + ending
            elif lines[-1] == b"":
                lines[-1:] = [line, b""]
            else:
                lines += [line, b""]
            transaction.write(self._path, b"\n".join(lines))
            transaction.apply()
        self._tell_systemd()

    def remove(self, method: str, sources: Sequence[str], mpoint: str | None) -> None:
        """Have something mounted at boot no more. Not there: nothing changes.

        :param method: what the caller called, for the history of changes.
        :param sources: every name that it may have there.
        :param mpoint: only the entry of this mount point; None: all of its entries.
        :raises Refused: a line is broken; names it.
        """
        with self._changes.transaction("fstab", method) as transaction:
            content = transaction.read(self._path)
            if content is None:
                return
            gone = {
                entry.line - 1
                for entry in self._parsed(content)
                if any(_same_source(entry.source, source) for source in sources)
                and (mpoint is None or _same_place(entry.mpoint, mpoint))
            }
            if not gone:
                return
            lines = content.split(b"\n")
            kept = [line for index, line in enumerate(lines) if index not in gone]
            transaction.write(self._path, b"\n".join(kept))
            transaction.apply()
        self._tell_systemd()

    def _read(self) -> bytes:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise OutsideFailure(f"{self._path} cannot be read: {error.strerror}.") from error
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OutsideFailure(f"{self._path} is no regular file.")
            return file.read(_LARGEST + 1)

    def _parsed(self, content: bytes) -> list[Entry]:
        if len(content) > _LARGEST:
            raise Refused(f"{self._path} is larger than {_LARGEST} bytes: it is left as it is.")
        found = []
        for number, line in enumerate(content.split(b"\n"), 1):
            stripped = line.strip(b" \t\r")
            if not stripped or stripped.startswith(b"#"):
                continue
            entry = _parsed_line(stripped, number)
            if entry is None:
                raise Refused(
                    f"Line {number} of {self._path} is broken: {_shown(stripped)}. Nothing was changed; "
                    "mend it first (fstab(5)).",
                    {"file": str(self._path), "line": number},
                )
            found.append(entry)
        return found

    def _tell_systemd(self) -> None:
        """Let systemd forget what it made of the old entries: it would unmount what stands in their places."""
        if self._path == Path("/etc/fstab") and _SYSTEMD.is_dir():
            try:
                run(["systemctl", "daemon-reload"], timeout=60)
            except ScalarizrError:
                return  # the next boot reads the file anyway


def _parsed_line(line: bytes, number: int) -> Entry | None:
    fields = re.split(rb"[ \t]+", line)
    # mount(8) does without the options and what follows; both numbers have to be some.
    if len(fields) < 3 or b"\0" in line or not all(re.fullmatch(rb"-?\d{1,9}", field) for field in fields[4:6]):
        return None
    options = fields[3] if len(fields) > 3 else b"defaults"
    return Entry(unescaped(fields[0]), unescaped(fields[1]), unescaped(fields[2]), unescaped(options), number)


def _with_nofail(options: str) -> list[str]:
    wanted = list(dict.fromkeys(option for option in options.split(",") if option and option != "fail"))
    return ([*wanted] if wanted else ["defaults"]) + ([] if "nofail" in wanted else ["nofail"])


def _same_place(one: str, other: str) -> bool:
    return os.path.normpath(one) == os.path.normpath(other)


def _same_source(one: str, other: str) -> bool:
    return _bare(one) == _bare(other)


def _bare(source: str) -> str:
    key, separator, value = source.partition("=")
    if separator and f"{key}=" in _TAGS:
        value = value.strip('"')
        return f"{key}={value.lower() if key.endswith('UUID') else value}"
    return source


def _escaped(text: str) -> str:
    raw = text.encode("utf-8", "surrogateescape")
    return _TO_ESCAPE.sub(lambda match: b"\\%03o" % match[0][0], raw).decode("utf-8", "surrogateescape")


def _shown(line: bytes) -> str:
    text = line.decode("utf-8", "replace")
    return repr(text if len(text) <= 120 else text[:119] + "…")
