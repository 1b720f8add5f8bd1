"""Keeping a file system still: what is copied meanwhile is whole, and it ends as it should whoever interferes."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from block_devices import BlockDevices, said
from scalarizr.errors import Interrupted, NotSupported, OutsideFailure, Refused, TimedOut
from scalarizr.host.paths import HostPaths
from scalarizr.host.processes import wait_until
from scalarizr.operations.progress import Canceled
from scalarizr.storage import filesystems
from scalarizr.storage.freezing import Freeze, frozen, may_freeze, thaw_after_death
from scalarizr.storage.mounting import mount, unmount

pytestmark = pytest.mark.root
HOST = HostPaths()


class Note:
    """The note that an operation would keep."""

    def __init__(self) -> None:
        self.open: list[int] = []

    def note(self) -> int:
        self.open.append(len(self.open))
        return self.open[-1]


@pytest.fixture
def note() -> Note:
    return Note()


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[BlockDevices]:
    made = BlockDevices(tmp_path)
    yield made
    made.close()


def mounted(disks: BlockDevices, place: Path, fstype: str = "ext4") -> Path:
    device = disks.make(512)
    said(f"mkfs.{fstype}", "-q", device)
    mount(device, place, fstype)
    return device


def can_be_written(place: Path, patience: float = 60) -> bool:
    """Try in a process of its own: who writes to a frozen file system waits, and cannot be killed."""
    process = subprocess.Popen(["touch", place / "touched"])
    try:
        return process.wait(patience) == 0
    except subprocess.TimeoutExpired:
        threading.Thread(target=process.wait).start()  # it ends once the file system is thawed
        return False


def watchdogs() -> list[psutil.Process]:
    """Give the first and the second one, as far as they are there."""
    return [one for one in psutil.Process().children(recursive=True) if "freezer_program" in " ".join(one.cmdline())]


def wait_until_thawed(freeze: Freeze) -> None:
    assert wait_until(lambda: not freeze.holds, 20)


@pytest.mark.parametrize("fstype", ["ext3", "ext4", "xfs", "btrfs"])
def test_a_copy_of_what_is_written_to_is_whole(disks: BlockDevices, tmp_path: Path, note: Note, fstype: str) -> None:
    device = mounted(disks, tmp_path / "m", fstype)
    stop = threading.Event()
    counted = [0]

    def write() -> None:
        while not stop.is_set():
            # Written, then renamed: each file that is there is whole, and none before it is missing.
            new = tmp_path / "m" / "new"
            new.write_text("x" * 5000 + str(counted[0]))
            os.rename(new, tmp_path / "m" / f"file-{counted[0]}")
            counted[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        time.sleep(0.2)
        with frozen(tmp_path / "m", 30, note.note, note.open.remove) as freeze:
            before = counted[0]
            said("cp", "--sparse=always", disks.image_of(device), tmp_path / "copy.img")
            assert freeze.holds and counted[0] <= before + 1
    finally:
        stop.set()
        writer.join()
    assert note.open == [] and can_be_written(tmp_path / "m")
    unmount(HOST, tmp_path / "m")
    copy = disks.over(tmp_path / "copy.img")
    if fstype != "xfs":  # whose log is dirty by design: xfs_repair does not look at it before it was replayed
        filesystems.check(copy, fstype)
    mount(copy, tmp_path / "copy", fstype)
    files = sorted((tmp_path / "copy").glob("file-*"), key=lambda file: int(file.name[5:]))
    assert before - 1 <= len(files) <= before + 1
    for number, file in enumerate(files):
        assert file.read_text() == "x" * 5000 + str(number)
    unmount(HOST, tmp_path / "copy")
    filesystems.check(copy, fstype)


def test_nothing_is_written_while_the_block_runs(disks: BlockDevices, tmp_path: Path, note: Note) -> None:
    mounted(disks, tmp_path / "m")
    with frozen(tmp_path / "m", 30, note.note, note.open.remove):
        assert not can_be_written(tmp_path / "m", 0.5)
        assert note.open == [0]
    assert can_be_written(tmp_path / "m") and watchdogs() == []


def test_at_the_limit_it_thaws_and_the_snapshot_is_refused(disks: BlockDevices, tmp_path: Path, note: Note) -> None:
    mounted(disks, tmp_path / "m")
    with (
        pytest.raises(TimedOut, match="not consistent"),
        frozen(tmp_path / "m", 0.2, note.note, note.open.remove) as freeze,
    ):
        wait_until_thawed(freeze)
        assert can_be_written(tmp_path / "m")
    assert note.open == []


def test_what_somebody_else_had_frozen_stays_frozen(disks: BlockDevices, tmp_path: Path, note: Note) -> None:
    mounted(disks, tmp_path / "m")
    said("fsfreeze", "--freeze", tmp_path / "m")
    try:
        with (
            pytest.raises(Refused, match="frozen already"),
            frozen(tmp_path / "m", 30, note.note, note.open.remove),
        ):
            raise AssertionError("the block ran")
        assert note.open == [] and not can_be_written(tmp_path / "m", 0.5)
    finally:
        said("fsfreeze", "--unfreeze", tmp_path / "m")


def test_what_somebody_else_thaws_makes_no_snapshot(disks: BlockDevices, tmp_path: Path, note: Note) -> None:
    mounted(disks, tmp_path / "m")
    with (
        pytest.raises(Interrupted, match="somebody else thawed it"),
        frozen(tmp_path / "m", 30, note.note, note.open.remove),
    ):
        said("fsfreeze", "--unfreeze", tmp_path / "m")
    assert note.open == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_watchdog_that_ends_makes_no_snapshot(disks: BlockDevices, tmp_path: Path, note: Note, number: int) -> None:
    mounted(disks, tmp_path / "m")
    with (
        pytest.raises(Interrupted, match="not consistent"),
        frozen(tmp_path / "m", 30, note.note, note.open.remove) as freeze,
    ):
        watchdogs()[0].send_signal(number)
        wait_until_thawed(freeze)
        assert can_be_written(tmp_path / "m")
    assert note.open == []


def test_a_watchdog_that_was_stopped_keeps_nothing_frozen(disks: BlockDevices, tmp_path: Path, note: Note) -> None:
    mounted(disks, tmp_path / "m")
    # On a busy machine the first may have come to its limit before it is stopped.
    with pytest.raises((Interrupted, TimedOut)), frozen(tmp_path / "m", 1, note.note, note.open.remove):
        first = watchdogs()[0]
        first.suspend()
        assert wait_until(lambda: can_be_written(tmp_path / "m"), 20)
        first.kill()
    assert note.open == []


@pytest.mark.parametrize("failure", [Canceled, ValueError, KeyboardInterrupt])
def test_whatever_the_block_raises_it_thaws(
    disks: BlockDevices, tmp_path: Path, note: Note, failure: type[BaseException]
) -> None:
    mounted(disks, tmp_path / "m")
    with pytest.raises(failure), frozen(tmp_path / "m", 30, note.note, note.open.remove):
        raise failure
    assert note.open == [] and can_be_written(tmp_path / "m") and watchdogs() == []


def test_the_watchdogs_are_in_no_group_of_the_workers(disks: BlockDevices, tmp_path: Path, note: Note) -> None:
    mounted(disks, tmp_path / "m")
    with frozen(tmp_path / "m", 30, note.note, note.open.remove):
        first, second = watchdogs()
        groups = {os.getpgid(0), os.getpgid(first.pid), os.getpgid(second.pid)}
        assert len(groups) == 3 and os.getsid(first.pid) == first.pid and os.getsid(second.pid) == second.pid
        for one in (first, second):
            # No page of theirs has to be read, or got free, while others wait for them.
            status = Path(f"/proc/{one.pid}/status").read_text()
            locked = int(status.split("VmLck:")[1].split()[0])
            assert locked > 1000 or os.geteuid() != 0


def test_what_cannot_be_frozen_is_refused(tmp_path: Path, note: Note) -> None:
    mount("tmpfs", tmp_path / "m", "tmpfs", "size=1m")
    try:
        with (
            pytest.raises(NotSupported, match="cannot be frozen"),
            frozen(tmp_path / "m", 30, note.note, note.open.remove),
        ):
            raise AssertionError("the block ran")
        assert not may_freeze(HOST, tmp_path / "m", [])
    finally:
        unmount(HOST, tmp_path / "m")
    with pytest.raises(OutsideFailure), frozen(tmp_path / "missing", 30, note.note, note.open.remove):
        raise AssertionError("the block ran")
    assert note.open == []


def test_the_undoing_of_a_killed_freeze_tolerates_everything(disks: BlockDevices, tmp_path: Path) -> None:
    mounted(disks, tmp_path / "m")
    said("fsfreeze", "--freeze", tmp_path / "m")
    thaw_after_death(str(tmp_path / "m"))
    assert can_be_written(tmp_path / "m")
    thaw_after_death(str(tmp_path / "m"))
    thaw_after_death(str(tmp_path / "missing"))
    thaw_after_death("/proc")


def test_what_is_needed_meanwhile_is_never_frozen(disks: BlockDevices, tmp_path: Path) -> None:
    mounted(disks, tmp_path / "m")
    assert may_freeze(HOST, tmp_path / "m", [Path("/var/lib/scalarizr"), Path("/var/log/scalarizr")])
    assert not may_freeze(HOST, tmp_path / "m", [tmp_path / "m" / "state"])
    assert not may_freeze(HOST, Path("/"), [])
    assert not may_freeze(HOST, tmp_path, [])
    (tmp_path / "link").symlink_to(tmp_path / "m")
    assert not may_freeze(HOST, tmp_path / "m", [tmp_path / "link" / "state"])


def test_a_file_system_under_the_image_that_holds_the_state_is_never_frozen(
    disks: BlockDevices, tmp_path: Path
) -> None:
    mounted(disks, tmp_path / "outer")
    with open(tmp_path / "outer" / "image", "wb") as file:
        file.truncate(64 << 20)
    inner = disks.over(tmp_path / "outer" / "image")
    said("mkfs.ext4", "-q", inner)
    mount(inner, tmp_path / "inner", "ext4")
    state = tmp_path / "inner" / "state"
    assert not may_freeze(HOST, tmp_path / "outer", [state])
    assert may_freeze(HOST, tmp_path / "inner", [tmp_path / "outer" / "image"])
