"""Running other programs: to their end, within a limit, and what becomes of processes that they leave."""

import pwd
import sys
import time
from pathlib import Path

import pytest

from scalarizr.errors import OutsideFailure, TimedOut
from scalarizr.host.processes import is_alive, wait_until
from scalarizr.host.run import run

# As nginx and Apache do it: the parent ends at once, the child takes a session of its own a moment later.
DAEMON = """\
import os, sys, time
child = os.fork()
if child:
    with open(sys.argv[3], "w") as begun:
        begun.write(str(child))
    os._exit(int(sys.argv[2]))
os.close(0); os.close(1); os.close(2)
time.sleep(0.3)
os.setsid()
open(sys.argv[1], "w").close()
"""


def lives_on(directory: Path, status: int, *, leaves_daemon: bool) -> bool:
    """Run one that leaves a daemon; tells whether that came to its work, or was ended before."""
    begun, alive = directory / "begun", directory / "alive"
    begun.unlink(missing_ok=True)
    command = [sys.executable, "-c", DAEMON, alive, str(status), begun]
    finished = run(command, timeout=60, leaves_daemon=leaves_daemon)
    assert finished.returncode == status
    daemon = int(begun.read_text())
    assert wait_until(lambda: alive.exists() or not is_alive(daemon), 60)
    return alive.exists()


def test_a_daemon_has_time_to_take_a_session_of_its_own(tmp_path: Path) -> None:
    assert lives_on(tmp_path, 0, leaves_daemon=True)


def test_what_a_program_leaves_behind_otherwise_is_ended(tmp_path: Path) -> None:
    assert not lives_on(tmp_path, 0, leaves_daemon=False)
    assert not lives_on(tmp_path, 3, leaves_daemon=True)


def test_at_the_limit_the_whole_group_is_ended(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    started = time.monotonic()
    with pytest.raises(TimedOut, match="did not end within"):
        run(["sh", "-c", f"(sleep 1; touch {mark}) & sleep 90"], timeout=0.2, leaves_daemon=True)
    assert time.monotonic() - started < 60
    time.sleep(1.2)
    assert not mark.exists()


@pytest.mark.root
def test_an_account_s_program_has_its_groups_and_none_of_root_s() -> None:
    account = pwd.getpwnam("nobody")
    finished = run(["id"], timeout=60, user="nobody")
    assert f"uid={account.pw_uid}(nobody) gid={account.pw_gid}" in finished.stdout.decode()
    groups = run(["id", "-G"], timeout=60, user="nobody").stdout.split()
    assert groups == [str(account.pw_gid).encode()]


def test_an_account_that_is_not_there_is_told() -> None:
    with pytest.raises(OutsideFailure, match="no account nobody-at-all"):
        run(["true"], timeout=60, user="nobody-at-all")
