"""Changing many files in one instant: the arrangement that makes a change visible by one rename.

A single file is renamed over. Of several, each live name first becomes a link that leads, through one link of the
change's own (`now`), to the file's old content: nothing changes for a reader. Then `now` is renamed over, and every
name leads to its new content in the same instant. At last each link is replaced by the file itself, which changes
nothing for a reader either. So at every instant, after a kill or a power cut too, a reader finds the old set or the
new set, whole. Going back is the same, the other way round. Every step is made durable before the next one.

A name that is there in one of the sets only leads to an empty file in the other, as long as the switch takes.
A file that cannot be renamed over (`in_place`) is rewritten beside this, at the switch's instant but not in it.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Literal

from scalarizr.changes.journal import PlannedFile
from scalarizr.changes.live_file import FileState, beside, half_written, read_state, rewrite, stage
from scalarizr.errors import Refused
from scalarizr.host.files import fsync_directory, fsync_file, make_private_directory

Side = Literal["old", "new"]
_BESIDE = ("old", "new", "link", "next")


class Switch:
    """The switch of one change's files, either way, from wherever a crash left it.

    :param change_id: the change's.
    :param files: all of its files, with their contents.
    """

    def __init__(self, change_id: str, files: list[PlannedFile]) -> None:
        self._id = change_id
        self._files = files
        self._linked = [file for file in files if not file.in_place]
        self._home = files[0].path.with_name(f".change.{change_id}")
        self._is_prepared = False

    def prepare(self) -> None:
        """Make what `to("new")` needs beside the live files, where there is room for it; these stay as they are.

        :raises OSError: `to` does what is missing.
        """
        if not all(file.path.parent.is_dir() for file in self._files):
            return
        if len(self._linked) > 1:
            self._prepare("new")
        else:
            for file in self._linked:
                self._stage_sides(file)
        self._is_prepared = True

    def to(self, side: Side, *, leave: Iterable[Path] = ()) -> None:
        """Make the live files one of the two sets.

        :param leave: files that are left as they are.
        :raises Refused: somebody edited a file at this very moment; it is as they left it.
        :raises OSError: it could not be done; `to` the other side undoes what was.
        """
        self._make_parents(side)
        is_prepared, self._is_prepared = self._is_prepared and side == "new", False
        left = set(leave)
        for path in left:
            self._keep_edited(path)
        numbered = [entry for entry in enumerate(self._files) if not entry[1].in_place and entry[1].path not in left]
        linked = [entry for entry in numbered if not self._is_at(entry[1], side)]
        parents = {file.path.parent for _number, file in linked}
        if len(self._linked) > 1 and linked:
            if not is_prepared:
                self._prepare(side)
            for number, file in linked:
                self._lead_through_now(number, file, side)
            _fsync(parents)
            self._point_now(side)
            self._rewrite_in_place(side, left)
            for _number, file in linked:
                if not self._is_ours(file.path):
                    raise _edited(file.path)
                self._settle(file, side)
        else:
            for _number, file in linked:
                if not is_prepared:
                    self._stage_sides(file)
                self._refuse_edited(file, side)
                self._settle(file, side)
            self._rewrite_in_place(side, left)
        _fsync(parents)

    def edited(self, expected: Side | None = None) -> list[Path]:
        """Give the files that are neither old nor new: a person edited them.

        :param expected: only what this set holds counts as not edited.
        """
        return [file.path for file in self._files if not self._is_known(file, expected)]

    def tidy(self, *, durably: bool = False) -> None:
        """Remove everything that the switch needed; on a file system that became read-only it stays.

        :param durably: what is removed does not come back after a power cut, for which `sweep` is there otherwise.
        """
        for file in self._linked:
            for what in _BESIDE:
                with contextlib.suppress(OSError):
                    os.unlink(beside(file.path, self._id, what))
        if len(self._linked) > 1:
            shutil.rmtree(self._home, ignore_errors=True)
        if durably:
            with contextlib.suppress(OSError):
                _fsync({file.path.parent for file in self._linked if file.path.parent.is_dir()})

    def _is_known(self, file: PlannedFile, expected: Side | None) -> bool:
        try:
            live = read_state(file.path)
        except OSError:
            return False
        if expected is not None:
            return live.holds_the_same(getattr(file, expected))
        if self._is_ours(file.path):
            # An editor that rewrites in place went through the link.
            with contextlib.suppress(OSError):
                through = file.path.read_bytes()
                return through in (file.old.content or b"", file.new.content or b"")
            return file.old.target is not None or file.new.target is not None
        return (
            live.holds_the_same(file.old)
            or live.holds_the_same(file.new)
            or (file.in_place and half_written(live.content, file.old.content, file.new.content))
            or (file.in_place and half_written(live.content, file.new.content, file.old.content))
        )

    def _prepare(self, side: Side) -> None:
        other: Side = "old" if side == "new" else "new"
        with contextlib.suppress(FileExistsError):
            self._home.mkdir(mode=0o755)
        for name in ("old", "new"):
            with contextlib.suppress(FileExistsError):
                (self._home / name).mkdir(mode=0o755)
        empty = self._home / "empty"
        if not _is_staged(empty, FileState(b"")):
            _stage_again(empty, FileState(b""))
        if not (self._home / "now").is_symlink():
            os.symlink(other, self._home / "now")
        for number, file in enumerate(self._files):
            if file in self._linked:
                self._stage_sides(file)
                for name in ("old", "new"):
                    _link(self._target(file, name, empty), self._home / name / str(number))  # type: ignore[arg-type]
        for directory in (self._home / "old", self._home / "new", self._home):
            fsync_directory(directory)
        _fsync({file.path.parent for file in self._linked})

    def _make_parents(self, side: Side) -> None:
        for file in self._files:
            parent = file.path.parent
            if not getattr(file, side).absent and not parent.is_dir():
                existing = next(one for one in parent.parents if one.is_dir())
                make_private_directory(parent, 0o700 if file.secret else 0o755)
                fsync_directory(existing)

    def _is_at(self, file: PlannedFile, side: Side) -> bool:
        wanted: FileState = getattr(file, side)
        try:
            live = read_state(file.path)
        except OSError:
            return False
        return live.holds_the_same(wanted) and (wanted.content is None or live.mode == wanted.mode)

    def _stage_sides(self, file: PlannedFile) -> None:
        for side in ("old", "new"):
            state: FileState = getattr(file, side)
            place = beside(file.path, self._id, side)
            if state.content is None or _is_staged(place, state):
                continue
            # The live file itself stands for what it holds, so that going back brings the very same file back.
            live = read_state(file.path)
            if live.content == state.content and (live.mode, live.owner) == (state.mode, state.owner or live.owner):
                try:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(place)
                    os.link(file.path, place, follow_symlinks=False)
                except OSError as error:
                    if error.errno not in (errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                        raise
                    stage(place, state)
            else:
                _stage_again(place, state)

    def _target(self, file: PlannedFile, side: Side, empty: Path) -> str:
        state: FileState = getattr(file, side)
        if state.target is not None:
            return os.path.join(file.path.parent, state.target)
        return str(empty if state.content is None else beside(file.path, self._id, side))

    def _through(self, number: int) -> str:
        return str(self._home / "now" / str(number))

    def _is_ours(self, path: Path) -> bool:
        try:
            return os.readlink(path).startswith(f"{self._home}/now/")
        except OSError:
            return False

    def _lead_through_now(self, number: int, file: PlannedFile, side: Side) -> None:
        if self._is_ours(file.path):
            return
        self._refuse_edited(file, side)
        # Also where a crash left some names settled: `now` leads to the set that is live, whichever it is.
        bridge = beside(file.path, self._id, "link")
        _link(self._through(number), bridge)
        os.rename(bridge, file.path)

    def _keep_edited(self, path: Path) -> None:
        """Give a name of its own to what somebody edited through our link."""
        if self._is_ours(path):
            following = beside(path, self._id, "next")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(following)
            os.link(os.path.realpath(path), following)
            os.rename(following, path)
            fsync_directory(path.parent)

    def _point_now(self, side: Side) -> None:
        if os.readlink(self._home / "now") != side:
            _link(side, self._home / "next")
            os.rename(self._home / "next", self._home / "now")
            fsync_directory(self._home)

    def _settle(self, file: PlannedFile, side: Side) -> None:
        state: FileState = getattr(file, side)
        following = beside(file.path, self._id, "next")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(following)
        if state.absent:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file.path)
            return
        if state.target is not None:
            os.symlink(state.target, following)
        else:
            os.link(beside(file.path, self._id, side), following)
        # rename(2) does nothing where both are names of one file already: then `next` is what is left over.
        os.rename(following, file.path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(following)

    def _rewrite_in_place(self, side: Side, left: set[Path]) -> None:
        for file in self._files:
            content = getattr(file, side).content
            if not file.in_place or file.path in left:
                continue
            live = read_state(file.path)
            if live.content == content:
                continue
            if not self._is_known(file, None):
                raise _edited(file.path)
            if content is None:
                os.unlink(file.path)
                fsync_directory(file.path.parent)
            elif live.content is None:
                stage(beside(file.path, self._id, "next"), getattr(file, side))
                os.rename(beside(file.path, self._id, "next"), file.path)
                fsync_directory(file.path.parent)
            else:
                rewrite(file.path, content)

    def _refuse_edited(self, file: PlannedFile, side: Side) -> None:
        other: FileState = file.old if side == "new" else file.new
        live = read_state(file.path)
        if not live.holds_the_same(other) and not live.holds_the_same(getattr(file, side)):
            raise _edited(file.path)


def sweep(directories: Iterable[Path], finished: Container[str]) -> None:
    """Remove what switches left beside live files, where a power cut brought back what was removed already.

    :param directories: where live files are.
    :param finished: ids of the changes that came to their end.
    """
    for directory in directories:
        with contextlib.suppress(OSError):
            for name in os.listdir(directory):
                if not name.startswith(".") or name.count(".") < 2:
                    continue
                *rest, change_id, what = name.split(".")
                if what in _BESIDE and change_id in finished:
                    os.unlink(directory / name)
                elif rest == [""] and change_id == "change" and what in finished:
                    shutil.rmtree(directory / name, ignore_errors=True)


def _edited(path: Path) -> Refused:
    return Refused(
        f"{path} was edited by somebody else at the same moment; try again.",
        {"file": str(path)},
    )


def _link(target: str, place: Path) -> None:
    try:
        if os.readlink(place) == target:
            return  # live names may lead through it: it is not taken away for a moment either
        os.unlink(place)
    except FileNotFoundError:
        pass
    os.symlink(target, place)


def _is_staged(place: Path, state: FileState) -> bool:
    """Tell whether a file was staged to its end, and make that durable: a crash may have come before either."""
    staged = read_state(place)
    if staged.content != state.content or staged.mode != state.mode:
        return False
    fsync_file(place)
    return True


def _stage_again(place: Path, state: FileState) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(place)
    stage(place, state)


def _fsync(directories: Iterable[Path]) -> None:
    for directory in sorted(directories):
        fsync_directory(directory)
