"""The watchdog that holds a frozen file system: a program of its own, in a session of its own, a second behind it.

`python freezer_program.py LIMIT DIRECTORY_FD PEER_FD LIFE_FD`. Nothing of the agent is imported, so that it starts at
once. What it says on the PEER socket, and hears there, is one letter a message:

    S  the file system is synced, the freeze comes next     F  it is frozen: the time runs
    B  somebody else had frozen it: hands off               E  it cannot be frozen; the number of the error follows
    T  (heard) thaw it                                      t  thawed
    x  somebody else had thawed it before                   L  thawed because the limit was reached
    k  thawed because it was told to end (SIGTERM)

The first process freezes, and thaws when it is told so, when its peer is gone, at the limit and on a signal. The second
thaws when the first is gone without having said that it did, or is a second over the limit. LIFE is the second's: when
it is closed, the second is gone; a `d` before that says that all is thawed.
"""

import ctypes
import errno
import fcntl
import os
import select
import signal
import sys
import time

# linux/fs.h: _IOWR('X', 119, int), _IOWR('X', 120, int)
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
_MCL_CURRENT, _MCL_FUTURE = 1, 2
_BEHIND = 1.0


def thaw(directory: int) -> bool:
    """Thaw a file system.

    :return: whether it was frozen until now.
    """
    try:
        fcntl.ioctl(directory, FITHAW, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def thaw_aside(directory: int) -> bool:
    """Thaw a file system in a process that nobody knows of.

    A btrfs reads its superblock to thaw, and takes it for broken and itself for read-only where that is interrupted by
    a kill of who thaws (btrfs_unfreeze). A kill of a watchdog at that very instant shall not do that.

    :return: whether it was frozen until now.
    """
    try:
        child = os.fork()
    except OSError:
        return thaw(directory)  # no process to be had: better so than not at all
    if child == 0:
        try:
            os._exit(0 if thaw(directory) else 1)
        finally:
            os._exit(2)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return thaw(directory) if status not in (0, 1) else status == 0


def main() -> None:
    """Be the first watchdog, and start the second."""
    limit, directory, peer, life = float(sys.argv[1]), *map(int, sys.argv[2:5])
    libc = ctypes.CDLL(None)
    libc.syncfs(directory)
    if _gone(peer):
        return
    said, saying = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(saying)
        os.close(peer)
        os.setsid()
        _stay_in_memory(libc)
        _second(directory, said, life, limit)
        return
    os.close(said)
    os.close(life)
    _stay_in_memory(libc)
    _first(directory, peer, saying, limit)
    os.close(saying)
    ended = os.pidfd_open(child)
    if select.select([ended], [], [], _BEHIND)[0]:
        os.waitpid(child, 0)


def _first(directory: int, peer: int, saying: int, limit: float) -> None:
    woken, waking = os.pipe()
    os.set_blocking(waking, False)
    signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    _tell(peer, b"S")
    if _gone(peer):
        return
    try:
        os.write(saying, b"b")
    except BrokenPipeError:
        return  # nothing is frozen without a second one behind it
    try:
        fcntl.ioctl(directory, FIFREEZE, 0)
    except OSError as error:
        _tell(saying, b"d")
        _tell(peer, b"B" if error.errno == errno.EBUSY else b"E%d" % (error.errno or 0))
        return
    deadline = time.monotonic() + limit
    _tell(saying, b"f")
    _tell(peer, b"F")
    poll = select.poll()
    for descriptor in (peer, woken):
        poll.register(descriptor, select.POLLIN)
    ready = [descriptor for descriptor, _events in poll.poll(max(deadline - time.monotonic(), 0) * 1000)]
    frozen = thaw_aside(directory)
    _tell(saying, b"d")
    why = b"L" if not ready else b"k" if woken in ready else b"t"
    _tell(peer, why if frozen else b"x")


def _second(directory: int, said: int, life: int, limit: float) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    poll = select.poll()
    poll.register(said, select.POLLIN)
    heard = b""
    # Freezing itself has no limit but its peer's life: the kernel waits for writers. Then the time runs.
    while not heard.endswith((b"f", b"d")):
        chunk = os.read(said, 16)
        if not chunk:
            break
        heard += chunk
    if heard.endswith(b"f") and poll.poll((limit + _BEHIND) * 1000):
        heard += os.read(said, 16)
    # Without a word of the end the first is gone, or stopped: whatever it had frozen is thawed. Had it not begun, or
    # told that it could not, there is nothing of ours.
    if heard and not heard.endswith(b"d"):
        thaw_aside(directory)
    _tell(life, b"d")


def _gone(peer: int) -> bool:
    poll = select.poll()
    poll.register(peer, select.POLLIN)
    return bool(poll.poll(0))


def _tell(descriptor: int, message: bytes) -> None:
    try:
        os.write(descriptor, message)
    except OSError:
        return  # who should have heard it is gone, and finds out by other ways


def _stay_in_memory(libc: ctypes.CDLL) -> None:
    # Where that is not permitted, its pages are read again where they must: a frozen file system can be read.
    libc.mlockall(_MCL_CURRENT | _MCL_FUTURE)
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("-1000")  # the kernel looks for others to end where memory runs out
    except OSError:
        return


if __name__ == "__main__":
    main()
