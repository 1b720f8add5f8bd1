"""The real file systems of a table of mounts."""

import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest
from psutil import Process

from scalarizr.host.capacity import Capacity
from scalarizr.host.paths import HostPaths
from scalarizr.host.processes import is_alive, wait_until
from scalarizr.system.mounts import real_mounts

TABLE = """\
proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0
tmpfs /run tmpfs rw,nosuid,nodev,size=10% 0 0
/dev/vda1 / ext4 ro,relatime,errors=remount-ro 0 0
/dev/mapper/data /srv/with\\040blank\\011tab\\134and\\043 xfs rw,noatime 0 0
filer:/export /mnt/nfs nfs4 rw,vers=4.2,hard 0 0
s3fs /mnt/bucket fuse.s3fs rw,user_id=0 0 0
/dev/vdb /mnt/over ext4 rw 0 0
/dev/vdc /mnt/over xfs rw 0 0
/dev/vdd /mnt/hidden ext4 rw 0 0
tmpfs /mnt/hidden tmpfs rw 0 0
cgroup2 /sys/fs/cgroup cgroup2 rw 0 0
systemd-1 /proc/sys/fs/binfmt_misc autofs rw 0 0
overlay /merged overlay rw,lowerdir=/l 0 0
broken
"""


def found(root: Path, table: str) -> dict[str, dict[str, object]]:
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "mounts").write_text(table)
    host = HostPaths(root)
    return real_mounts(host, Capacity(host, logging.getLogger("test")))


def test_file_systems_that_keep_data_are_given_and_no_others(tmp_path: Path) -> None:
    mounts = found(tmp_path, TABLE)
    assert list(mounts) == ["/", "/srv/with blank\ttab\\and#", "/mnt/nfs", "/mnt/bucket", "/mnt/over", "/merged"]
    assert mounts["/"] == {
        "device": "/dev/vda1",
        "mpoint": "/",
        "fstype": "ext4",
        "options": "ro,relatime,errors=remount-ro",
        "total": None,
        "free": None,
    }


def test_of_two_at_one_place_the_one_that_is_seen_is_given(tmp_path: Path) -> None:
    mounts = found(tmp_path, TABLE)
    assert mounts["/mnt/over"]["fstype"] == "xfs" and "/mnt/hidden" not in mounts


def test_this_very_host_has_figures() -> None:
    host = HostPaths()
    mounts = real_mounts(host, Capacity(host, logging.getLogger("test")))
    assert mounts and all(place == mount["mpoint"] for place, mount in mounts.items())
    assert "/proc" not in mounts and "/sys" not in mounts


# Mounts a file system whose server takes questions and answers none, but the first one (linux/fuse.h).
DEAD = """
import ctypes, os, sys
device = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
if ctypes.CDLL(None).mount(b"dead", sys.argv[1].encode(), b"fuse.dead", 0, options) != 0:
    sys.exit("it cannot be mounted")
greeting = os.read(device, 1 << 17)
answer = bytes([7, 0, 0, 0, 31, 0, 0, 0]) + bytes(56)
os.write(device, (16 + len(answer)).to_bytes(4, "little") + bytes(4) + greeting[8:16] + answer)
print("mounted", flush=True)
while True:
    os.read(device, 1 << 17)
"""


@pytest.mark.root
@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="LEFT OUT: there is no /dev/fuse")
def test_a_mount_that_does_not_answer_is_there_without_figures(tmp_path: Path) -> None:
    place = tmp_path / "dead"
    place.mkdir()
    host = HostPaths()
    capacity = Capacity(host, logging.getLogger("test"))
    server = subprocess.Popen([sys.executable, "-c", DEAD, place], stdout=subprocess.PIPE)
    try:
        assert server.stdout and server.stdout.readline() == b"mounted\n"
        began = time.monotonic()
        mounts = real_mounts(host, capacity)
        assert time.monotonic() - began < 20, "it is given up, not waited for"
        dead = mounts[str(place)]
        assert (dead["device"], dead["fstype"], dead["total"], dead["free"]) == ("dead", "fuse.dead", None, None)
        assert isinstance(mounts["/"]["total"], int)
    finally:
        server.kill()
        server.communicate()
        # The one that still waits for an answer has an error now, and is let go with the next question.
        assert wait_until(lambda: not [one for one in Process().children() if is_alive(one.pid)], 60)
        assert capacity.of([str(place)]) == {str(place): None}
        subprocess.run(["umount", "--lazy", place], check=True)
