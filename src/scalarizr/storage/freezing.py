"""Keeping a file system still for the instant of a snapshot, and letting it go whatever is killed meanwhile.

Two watchdogs (`freezer_program`) hold it, outside of the worker's session: the worker's end is seen by the first, the
first's by the second; a thread of the worker sees both gone. Where all are, the operation's note of `thaw_after_death`
is left, which the agent undoes.
"""

import contextlib
import errno
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from scalarizr.errors import Interrupted, NotSupported, OutsideFailure, Refused, TimedOut
from scalarizr.host.paths import HostPaths
from scalarizr.host.processes import wait_until
from scalarizr.operations.progress import current
from scalarizr.storage import freezer_program
from scalarizr.storage.block_tree import foundations
from scalarizr.storage.freezer_program import thaw
from scalarizr.storage.mount_table import mount_table

_FREEZABLE = ("ext3", "ext4", "xfs", "btrfs")
# Everything dirty is written first, and the kernel waits for whoever is writing.
_SYNC_LIMIT = 600.0
_END_LIMIT = 10.0
_DYING_LIMIT = 120.0
_TOO_EARLY = {b"Fx": "somebody else thawed it", b"Fk": "its watchdog was told to end"}
_NOT_CONSISTENT = "the snapshot is not consistent"


class Freeze:
    """A file system that is kept still; made by `frozen`.

    :param mpoint: where it is mounted.
    """

    def __init__(self, mpoint: Path) -> None:
        self._mpoint = mpoint
        self._heard = b""
        self._life = b""
        self._changed = threading.Condition()
        self._ended = False
        self._stuck = False
        try:
            self._directory = os.open(mpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise OutsideFailure(f"{mpoint} cannot be frozen: {error.strerror}. Nothing was changed.") from error
        self._process: subprocess.Popen[bytes] | None = None
        self._peer: socket.socket | None = None
        self._listener: threading.Thread | None = None

    def start(self, limit: float) -> None:
        """Start both watchdogs; returns when the file system is frozen."""
        # A cancellation comes before or after it: there is no watchdog that nobody listens to.
        with current().uninterrupted():
            self._start_watchdogs(limit)
        if not self._wait(lambda: self._ended or self._heard.strip(b"S") != b"", _SYNC_LIMIT):
            raise TimedOut(
                f"{self._mpoint} could not be synced and frozen within {_SYNC_LIMIT:.0f} s. It is not frozen."
            )
        self._require_frozen()

    def _start_watchdogs(self, limit: float) -> None:
        self._peer, theirs = socket.socketpair()
        life, their_life = os.pipe()
        program = [sys.executable, "-I", "-S", freezer_program.__file__]
        descriptors = [self._directory, theirs.fileno(), their_life]
        try:
            self._process = subprocess.Popen(
                [*program, f"{limit:g}", *map(str, descriptors)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=descriptors,
                start_new_session=True,
                cwd="/",
                env={},
            )
        except OSError as error:
            os.close(life)
            raise OutsideFailure(f"The watchdog cannot be started: {error.strerror}. Nothing was frozen.") from error
        finally:
            theirs.close()
            os.close(their_life)
        self._listener = threading.Thread(target=self._listen, args=(self._peer, life), name="freeze", daemon=True)
        self._listener.start()

    @property
    def holds(self) -> bool:
        """Whether the file system is still kept still. What takes long may look, and give up early."""
        with self._changed:
            return self._heard.strip(b"S") == b"F" and not self._ended

    def end(self) -> bool:
        """Thaw, whatever became of the watchdogs.

        :return: whether it is certain that nothing is frozen any more.
        """
        if self._peer is not None:
            with contextlib.suppress(OSError):
                self._peer.send(b"T")
            thawed = self._wait(lambda: self._ended, _END_LIMIT)
            with contextlib.suppress(OSError):
                self._peer.shutdown(socket.SHUT_RDWR)
            if not thawed and b"F" in self._heard:
                # It neither answers nor ends: stopped by somebody, or the kernel does not come back.
                thaw(self._directory)
                thawed = True
        else:
            thawed = True
        return thawed and not self._stuck

    def close(self) -> None:
        """Let go of what is held here; the watchdogs end by themselves."""
        if self._peer is not None:
            with contextlib.suppress(OSError):
                self._peer.shutdown(socket.SHUT_RDWR)
        if self._listener is not None:
            self._listener.join(_END_LIMIT)
        if self._process is not None:
            try:
                self._process.wait(_END_LIMIT)
            except subprocess.TimeoutExpired:
                # Stopped, or stuck in the kernel: the second one follows it.
                self._process.kill()
        if self._listener is None or not self._listener.is_alive():
            if self._peer is not None:
                self._peer.close()
            os.close(self._directory)

    def require_consistent(self, limit: float) -> None:
        """Refuse a snapshot during which the file system was thawed.

        :raises TimedOut: because it took longer than the limit.
        :raises Interrupted: because a watchdog was killed, or somebody else thawed it.
        """
        said = self._heard.strip(b"S")
        if said == b"Ft":
            return
        where = {"mpoint": str(self._mpoint)}
        if said == b"FL":
            raise TimedOut(
                f"{self._mpoint} was frozen for {limit:g} s, which is the limit, and was thawed: {_NOT_CONSISTENT}. "
                "Raise freeze_limit under [storage], or take it at a quieter time.",
                where,
            )
        who = _TOO_EARLY.get(said, "its watchdog was killed")
        raise Interrupted(f"{self._mpoint} was thawed too early, since {who}: {_NOT_CONSISTENT}. Take it again.", where)

    def _require_frozen(self) -> None:
        said = self._heard.strip(b"S")
        where = {"mpoint": str(self._mpoint)}
        if said[:1] == b"B":
            raise Refused(
                f"{self._mpoint} is frozen already, by somebody else: it was left so. Nothing was changed.", where
            )
        if said[:1] == b"E":
            number = int(said[1:] or b"0")
            if number in (errno.EOPNOTSUPP, errno.ENOTTY):
                raise NotSupported(f"The file system at {self._mpoint} cannot be frozen. Nothing was changed.", where)
            raise OutsideFailure(f"{self._mpoint} could not be frozen: {os.strerror(number)}.", where)
        if said[:1] != b"F":
            raise Interrupted(f"The watchdog of {self._mpoint} was killed before it had frozen it.", where)

    def _wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(condition, seconds)

    def _listen(self, peer: socket.socket, life: int) -> None:
        """Hear both watchdogs to their end; thaw where both were killed. A thread of its own."""
        poll = select.poll()
        poll.register(peer, select.POLLIN)
        poll.register(life, select.POLLIN)
        open_ones = {peer.fileno(), life}
        try:
            while open_ones:
                for descriptor, _events in poll.poll():
                    try:
                        chunk = peer.recv(64) if descriptor == peer.fileno() else os.read(life, 64)
                    except OSError:
                        chunk = b""
                    if not chunk:
                        poll.unregister(descriptor)
                        open_ones.discard(descriptor)
                    with self._changed:
                        if descriptor == life:
                            self._life += chunk
                        else:
                            self._heard += chunk
                        self._changed.notify_all()
            # Neither said how it ended, and the first had come as far as freezing: both were killed.
            if not self._life and self._heard in (b"S", b"SF"):
                self._stuck = True
                thaw(self._directory)
                self._stuck = False
        except OSError:
            pass  # it stays frozen: the note stays, too
        finally:
            os.close(life)
            with self._changed:
                self._ended = True
                self._changed.notify_all()


@contextlib.contextmanager
def frozen(mpoint: Path, limit: float, note: Callable[[], int], forget: Callable[[int], None]) -> Iterator[Freeze]:
    """Keep a file system still while the block runs: what is on its device then is whole.

    :param mpoint: where it is mounted.
    :param limit: seconds after which it is thawed whatever the block does.
    :param note: notes durably that `thaw_after_death` is to be called where all of this is killed; gives its number.
    :param forget: forgets the note.
    :raises Refused: somebody else had frozen it; it stays so.
    :raises NotSupported: it cannot be frozen.
    :raises TimedOut: at the block's end: it took longer than the limit; the snapshot is not consistent.
    :raises Interrupted: at the block's end: it was thawed too early; the snapshot is not consistent.
    """
    running = current()
    freeze = Freeze(mpoint)
    number = None
    try:
        number = note()
        freeze.start(limit)
        yield freeze
    finally:
        with running.uninterrupted():
            thawed = freeze.end()
            freeze.close()
            if number is not None and thawed:
                forget(number)
    freeze.require_consistent(limit)


def thaw_after_death(mpoint: str) -> None:
    """Thaw what an operation had frozen that was killed with its watchdogs. Not frozen, or not there: nothing to do.

    :param mpoint: where it is mounted.
    :raises OSError: it is frozen, and cannot be thawed.
    """
    try:
        directory = os.open(mpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        thaw(directory)
        # One that was killed while the kernel was freezing for it still does that to its end.
        wait_until(lambda: not _watchdogs_of(mpoint), _DYING_LIMIT)
        thaw(directory)
    except OSError as error:
        # No such ioctl: what is mounted there now cannot be frozen at all.
        if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(directory)


def _watchdogs_of(mpoint: str) -> list[int]:
    """Give the processes of `freezer_program` that hold this directory, however they are about to end."""
    name = os.fsencode(freezer_program.__file__)
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            if name not in Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0"):
                continue
            descriptors = [f"/proc/{entry}/fd/{number}" for number in os.listdir(f"/proc/{entry}/fd")]
            if any(os.readlink(descriptor) == os.path.realpath(mpoint) for descriptor in descriptors):
                found.append(int(entry))
    return found


def may_freeze(host: HostPaths, mpoint: Path, not_holding: Sequence[Path]) -> bool:
    """Tell whether a file system may be kept still: it can be, and nothing that is needed meanwhile rests on it.

    :param mpoint: where it is mounted.
    :param not_holding: what is needed, such as the agent's state, its logs, and the image that is copied; an image on
        another file system rests on that, too.
    """
    table = mount_table(host)
    there = [mounted for mounted in table if mounted.mpoint == str(mpoint)]
    if not there or there[-1].fstype not in _FREEZABLE:
        return False
    needed: set[int] = set()
    for path in (Path("/"), *not_holding):
        needed |= foundations(host, path, table)[0]
    return there[-1].number not in needed
