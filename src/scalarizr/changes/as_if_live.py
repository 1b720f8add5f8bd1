"""Running a program that sees planned files in their live places, while everybody else sees the live ones.

A thread mounts the planned files over the live ones in a namespace of its own, and starts the program, which inherits
it. Where that is not permitted (containers), `Shadow` stands in: a copy of the configuration's directories.
"""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from scalarizr.changes.journal import PlannedFile
from scalarizr.changes.live_file import FileState
from scalarizr.errors import OutsideFailure
from scalarizr.host.files import make_private_directory
from scalarizr.host.mount_namespace import BIND, BIND_ALL, NotPermitted, in_own_namespace, mount
from scalarizr.host.run import Finished

T = TypeVar("T")
_LIVE = ".live"


def check_as_if_live(
    files: Sequence[PlannedFile],
    scratch: Path,
    directories: Sequence[Path],
    main_config: Path,
    test: Callable[[Path | None], Finished],
    words: Callable[[Finished], str],
) -> tuple[int, str]:
    """Have a program test planned files: in their live places, or in a copy where that is not permitted.

    :param scratch: a directory that nothing else is in.
    :param directories: the configuration's.
    :param main_config: the live main configuration.
    :param test: runs the test, of the main configuration that it gets; None: of the live one.
    :param words: takes out what the program said.
    :return: its exit status and its words, with live places in them.
    :raises OutsideFailure: the planned files could not be put there.
    """
    try:
        tested = as_if_live(files, scratch, lambda: test(None))
        return tested.returncode, words(tested)
    except NotPermitted:
        with Shadow(directories, files, scratch / "shadow") as shadow:
            tested = test(Path(shadow.there(str(main_config))))
            return tested.returncode, shadow.back(words(tested))


def as_if_live(files: Sequence[PlannedFile], scratch: Path, work: Callable[[], T]) -> T:
    """Run `work` in a thread whose programs see the planned files in their live places.

    :param scratch: a directory that nothing else is in; it stays empty for everybody else.
    :return: what `work` returns.
    :raises NotPermitted: that needs a mount namespace of its own.
    :raises OutsideFailure: the planned files could not be put there.
    """
    make_private_directory(scratch)

    def inside() -> T:
        try:
            _lay_over(files, scratch)
        except OSError as error:
            raise OutsideFailure(
                f"The planned files could not be laid over the live ones: {error}. Nothing was changed."
            ) from error
        return work()

    return in_own_namespace(inside, "as-if-live")


def _lay_over(files: Sequence[PlannedFile], scratch: Path) -> None:
    mount("scalarizr", scratch, 0, "tmpfs")
    directories: dict[Path, list[PlannedFile]] = {}
    for number, file in enumerate(files):
        if file.new.content is not None and file.old.content is not None:
            staged = scratch / f"file.{number}"
            _write(staged, file.new)
            mount(str(staged), file.path, BIND)
        else:
            directories.setdefault(_existing_ancestor(file.path), []).append(file)
    for number, directory in enumerate(sorted(directories, key=lambda path: len(path.parts))):
        _shadow_directory(directory, directories[directory], scratch / f"planned.{number}")


def _existing_ancestor(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.is_dir())


def _shadow_directory(directory: Path, files: list[PlannedFile], planned: Path) -> None:
    """Mount over a directory another with the same entries, but for what comes and goes."""
    live = planned / _LIVE
    live.mkdir(mode=0o755, parents=True)
    mount(str(directory), live, BIND_ALL)
    for entry in os.scandir(live):
        # A link is copied as it is: a relative one has to start from the same place. All others lead relatively, too,
        # since an absolute path may lead through this very directory.
        os.symlink(os.readlink(entry.path) if entry.is_symlink() else f"{_LIVE}/{entry.name}", planned / entry.name)
    for file in files:
        place = planned / file.path.relative_to(directory)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        if file.new.target is not None:
            os.symlink(file.new.target, place)
        elif file.new.content is not None:
            _write(place, file.new)
    mount(str(planned), directory, BIND_ALL)


def _write(place: Path, state: FileState) -> None:
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, state.mode)
        if state.owner is not None and state.owner != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, *state.owner)
        file.write(state.content or b"")


class Shadow:
    """A copy of configuration directories with the planned files in it, for a program that is told where to look.

    Every mention of a directory in a file of it is made to mean the copy.

    :param directories: the configuration's directories; those of planned files outside of them are copied, too.
    :param place: where the copy is made; removed at the end.
    """

    def __init__(self, directories: Sequence[Path], files: Sequence[PlannedFile], place: Path) -> None:
        self.place = place
        whole = list(dict.fromkeys(directories))
        for parent in sorted({file.path.parent for file in files}):
            if not any(map(parent.is_relative_to, whole)) and not place.is_relative_to(parent):
                whole.append(parent)
        self._pairs = [(str(directory), str(place / str(number))) for number, directory in enumerate(whole)]
        self._files = files

    def __enter__(self) -> "Shadow":
        shutil.rmtree(self.place, ignore_errors=True)
        make_private_directory(self.place)
        for live, copy in self._pairs:
            self._copy(Path(live), Path(copy))
        for file in self._files:
            place = Path(self.there(str(file.path)))
            if str(place) == str(file.path):
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            if file.new.target is not None:
                os.symlink(self.there(file.new.target), place)
            elif file.new.content is not None:
                _write(place, FileState(self._translated(file.new.content), 0o600))
        return self

    def __exit__(self, *exception: object) -> None:
        shutil.rmtree(self.place, ignore_errors=True)

    def there(self, path: str) -> str:
        """Give the place of a live path in the copy; a path outside of it stays."""
        for live, copy in self._pairs:
            if path == live or path.startswith(f"{live}/"):
                return copy + path[len(live) :]
        return path

    def back(self, text: str) -> str:
        """Give a program's words with live places in place of the copy's."""
        for live, copy in self._pairs:
            text = text.replace(copy, live)
        return text

    def _copy(self, live: Path, copy: Path) -> None:
        copy.mkdir(parents=True, exist_ok=True)
        for entry in os.scandir(live) if live.is_dir() else ():
            place = copy / entry.name
            if entry.is_symlink():
                # A relative one may lead out of what is copied: from the copy it would lead elsewhere.
                os.symlink(self.there(os.path.normpath(os.path.join(live, os.readlink(entry.path)))), place)
            elif entry.is_dir():
                self._copy(Path(entry.path), place)
            elif entry.is_file() and entry.stat().st_size <= 1 << 26:
                descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with open(entry.path, "rb") as source, open(descriptor, "wb") as target_file:
                    target_file.write(self._translated(source.read()))

    def _translated(self, content: bytes) -> bytes:
        for live, copy in self._pairs:
            content = re.sub(
                re.escape(live.encode()) + rb"(?=[/\"'\s;>]|\Z)", copy.encode().replace(b"\\", rb"\\"), content
            )
        return content
