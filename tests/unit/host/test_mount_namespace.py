"""A mount namespace of a thread's own: what is mounted there is seen there, and nowhere else."""

import subprocess
import sys
from pathlib import Path

import pytest

from scalarizr.host.mount_namespace import BIND, NotPermitted, in_own_namespace, mount

pytestmark = pytest.mark.root

# A plain directory as its root: the kernel makes the namespace, and does not let its mounts be made private.
_IN_A_ROOT_THAT_IS_NO_MOUNT_POINT = """
import os, sys, threading, encodings.idna
from scalarizr.host.mount_namespace import NotPermitted, in_own_namespace
os.chroot(sys.argv[1])
try:
    in_own_namespace(lambda: print("mounted"), "aside")
except NotPermitted as error:
    print("not permitted:", error)
"""


def test_what_is_mounted_there_is_seen_there_alone(tmp_path: Path) -> None:
    place, other = tmp_path / "place", tmp_path / "other"
    place.write_text("live")
    other.write_text("planned")

    def look() -> str:
        mount(str(other), place, BIND)
        return subprocess.run(["cat", place], capture_output=True, text=True, check=True).stdout

    assert in_own_namespace(look, "aside") == "planned"
    assert place.read_text() == "live"


def test_what_cannot_be_mounted_there_says_where_and_why(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        in_own_namespace(lambda: mount(str(tmp_path), tmp_path / "nowhere", BIND), "aside")


def test_a_namespace_that_stays_shared_is_none(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-c", _IN_A_ROOT_THAT_IS_NO_MOUNT_POINT, tmp_path], capture_output=True, text=True, check=True
    )
    assert said.stdout == "not permitted: Invalid argument\n"


def test_not_permitted_is_told_from_what_the_work_raises() -> None:
    with pytest.raises(OSError, match="its own") as raised:
        in_own_namespace(_fail, "aside")
    assert not isinstance(raised.value, NotPermitted)


def _fail() -> None:
    raise OSError("its own")
