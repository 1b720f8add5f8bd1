"""Reading log files over the wire: the newest part, in whole lines, whatever the file's size."""

import base64
import os
import re
import stat
from pathlib import Path

from scalarizr.errors import InvalidParameter, NotFound, OutsideFailure

LARGEST = 64 << 20
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)


def newest_part(path: Path, size: int) -> str:
    """Give the end of a log in base64: whole lines, `size` bytes of them at most.

    The file is opened once: one that is rotated meanwhile is read to its end under its old name.

    :raises NotFound: there is no such file.
    :raises OutsideFailure: it cannot be read.
    """
    _check_size(size)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist; nothing was logged there yet.", {"file": str(path)}) from None
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        return base64.b64encode(_tail(descriptor, path, size)).decode("ascii")
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(descriptor)


def script_output(directory: Path, execution_id: str, size: int) -> dict[str, str]:
    """Give what a script printed.

    :param directory: of the scripts' logs.
    :param execution_id: the id of its execution.
    :param size: bytes of each stream at most; what is longer is cut, with a note at its end.
    :return: `{stdout, stderr}`, each base64. Where a log is gone, a text that says so.
    """
    if not _ID.fullmatch(execution_id):
        raise InvalidParameter(
            "exec_script_id", repr(execution_id[:60]), "letters, digits, `-` and `_`, at most 128 of them"
        )
    _check_size(size)
    return {
        stream: base64.b64encode(_script_log(directory, f"{execution_id}-{suffix}.log", size)).decode("ascii")
        for stream, suffix in (("stdout", "out"), ("stderr", "err"))
    }


def _script_log(directory: Path, ending: str, size: int) -> bytes:
    gone = f"The log *.{ending} is not there: it was rotated away, or there never was one.".encode()
    try:
        names = [entry for entry in os.scandir(directory) if _belongs(entry, ending)]
        if not names:
            return gone
        newest = max(names, key=lambda entry: entry.stat(follow_symlinks=False).st_mtime_ns)
        descriptor = os.open(newest.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return gone
    except OSError as error:
        raise _unreadable(directory, error) from error
    with open(descriptor, "rb", buffering=0) as file:
        total = os.fstat(file.fileno()).st_size
        content = _read(file.fileno(), 0, size)
    if total > len(content):
        note = f"\n[cut: the first {len(content)} of {total} bytes are shown]\n"
        content += note.encode()
    return content


def _belongs(entry: "os.DirEntry[str]", ending: str) -> bool:
    return (entry.name == ending or entry.name.endswith(f".{ending}")) and entry.is_file(follow_symlinks=False)


def _tail(descriptor: int, path: Path, size: int) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise OutsideFailure(f"{path} is no regular file.", {"file": str(path)})
    start = max(status.st_size - size, 0)
    # One byte more tells whether the part begins with a whole line.
    content = _read(descriptor, max(start - 1, 0), min(size, status.st_size) + (1 if start else 0))
    if start:
        newline = content.find(b"\n")
        content = content[newline + 1 :] if 0 <= newline < len(content) - 1 else content[1:]
    return content


def _read(descriptor: int, start: int, size: int) -> bytes:
    parts = []
    while size > 0:
        part = os.pread(descriptor, min(size, 1 << 20), start)
        if not part:
            break
        parts.append(part)
        start += len(part)
        size -= len(part)
    return b"".join(parts)


def _check_size(size: int) -> None:
    if not 1 <= size <= LARGEST:
        raise InvalidParameter("maxsize", str(size)[:40], f"1 to {LARGEST} bytes")


def _unreadable(path: Path, error: OSError) -> OutsideFailure:
    return OutsideFailure(f"{path} cannot be read: {error.strerror}.", {"file": str(path)})
