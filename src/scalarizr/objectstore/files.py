"""A store in a directory: `file:///…`.

Written by us and not by obstore's local store, which never calls fsync(2) and gives files the mode of the umask: a
backup has to outlive a power cut, and holds the passwords of roles.
"""

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from scalarizr.errors import UNCHANGED, NotFound, OutsideFailure, PermissionRefused, ScalarizrError
from scalarizr.host.files import fsync_directory
from scalarizr.objectstore.store import SMALL, Entry, Progress, Stored, checked_directory, checked_path, compare_sizes

_PIECE = 2**20
_STAGED = ".staged"
_NOT_KEPT = "It was not kept."


class FileStore:
    """Objects as files of mode 0600 in directories of mode 0700.

    :param root: the store's directory; made when something is first written.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def url(self) -> str:
        return f"file://{self._root}"

    def put_stream(
        self, path: str, chunks: Iterable[bytes], progress: Progress | None = None, *, size_hint: int | None = None
    ) -> Stored:
        del size_hint
        place = self._root / checked_path(path)
        digest, size = hashlib.sha256(), 0
        staged = place.with_name(f".{place.name[:100]}.{os.urandom(4).hex()}{_STAGED}")
        with self._translated(path, _NOT_KEPT):
            self._make_directories(place.parent)
            descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                for chunk in chunks:
                    with self._translated(path, _NOT_KEPT):
                        view = memoryview(chunk)
                        while view:
                            view = view[os.write(descriptor, view) :]
                    digest.update(chunk)
                    size += len(chunk)
                    if progress is not None:
                        progress(size)
                with self._translated(path, _NOT_KEPT):
                    os.fsync(descriptor)
                    compare_sizes(self.url, path, size, os.fstat(descriptor).st_size)
            finally:
                os.close(descriptor)
            with self._translated(path, _NOT_KEPT):
                os.rename(staged, place)
                fsync_directory(place.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(staged)
            raise
        return Stored(size, digest.hexdigest())

    def put_bytes(self, path: str, data: bytes) -> Stored:
        return self.put_stream(path, [data])

    def get_stream(self, path: str) -> Iterator[bytes]:
        descriptor = self._open(path)
        return self._pieces(path, descriptor)

    def _pieces(self, path: str, descriptor: int) -> Iterator[bytes]:
        with open(descriptor, "rb", buffering=0) as file:
            while True:
                with self._translated(path):
                    piece = file.read(_PIECE)
                if not piece:
                    return
                yield piece

    def get_bytes(self, path: str, limit: int = SMALL) -> bytes:
        with open(self._open(path), "rb", buffering=0) as file, self._translated(path):
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise OutsideFailure(f"{self.url}: {path} has {size} bytes; at most {limit} were expected there.")
            return file.readall()

    def _open(self, path: str) -> int:
        with self._translated(path):
            return os.open(self._root / checked_path(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def size(self, path: str) -> int | None:
        try:
            with self._translated(path):
                return (self._root / checked_path(path)).stat(follow_symlinks=False).st_size
        except NotFound:
            return None

    def list(self, directory: str = "") -> list[Entry]:
        found = []
        for place in self._files(checked_directory(directory)):
            with contextlib.suppress(FileNotFoundError):
                facts = place.stat(follow_symlinks=False)
                if not place.name.startswith("."):
                    found.append(Entry(str(place.relative_to(self._root)), facts.st_size, facts.st_mtime))
        return sorted(found, key=lambda entry: entry.path)

    def delete(self, path: str) -> None:
        with contextlib.suppress(NotFound), self._translated(path):
            place = self._root / checked_path(path)
            os.unlink(place)
            fsync_directory(place.parent)

    def delete_all(self, directory: str) -> int:
        count = 0
        top = self._root / checked_directory(directory)
        for place in self._files(directory):
            if place.name.startswith(".") and not place.name.endswith(_STAGED):
                continue
            with contextlib.suppress(NotFound), self._translated(str(place.relative_to(self._root))):
                os.unlink(place)
                count += not place.name.startswith(".")
        for emptied, _directories, _names in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):  # not empty: something else lives there
                if Path(emptied) != self._root:
                    os.rmdir(emptied)
        with contextlib.suppress(FileNotFoundError):
            fsync_directory(top.parent)
        return count

    def _files(self, directory: str) -> Iterator[Path]:
        """Give every file below; links are not followed, and what is no ordinary file is no object."""

        def fail(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                raise self._failure(error, directory or "the directory") from error

        for place, _directories, names in os.walk(self._root / directory, onerror=fail):
            for name in names:
                found = Path(place, name)
                if found.is_file() and not found.is_symlink():
                    yield found

    def _make_directories(self, directory: Path) -> None:
        missing = []
        while not directory.is_dir():
            missing.append(directory)
            directory = directory.parent
        for one in reversed(missing):
            with contextlib.suppress(FileExistsError):
                one.mkdir(mode=0o700)
            fsync_directory(one.parent)

    @contextlib.contextmanager
    def _translated(self, path: str, left: str = UNCHANGED) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._failure(error, path, left) from error

    def _failure(self, error: OSError, path: str, left: str = UNCHANGED) -> ScalarizrError:
        if isinstance(error, FileNotFoundError):
            return NotFound(f"There is no {path} in {self.url}.", {"path": path})
        if isinstance(error, PermissionError):
            return PermissionRefused(
                f"{self.url}: {path}: {error.strerror}. Let the agent's account read and write that directory."
            )
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return OutsideFailure(
                f"The disk of {self.url} is full: {path} was not kept. Make room there, or choose another store."
            )
        if error.errno == errno.EROFS:
            return OutsideFailure(
                f"The file system of {self.url} is read-only, at {path}. {left} Look into the kernel's log, since a "
                "disk that fails makes it so; then mount it for writing, or choose another store."
            )
        return OutsideFailure(f"{self.url}: {path}: {error.strerror or error}. {left}")
