"""Volumes in the small virtual machine (`small_vm.py`), on further disks that are blank."""

import json
from typing import Any

from small_vm_agent import Guest

MIB = 1 << 20
FSTAB = "/dev/vda / ext4 errors=remount-ro 0 1"
DISKS = [f"/dev/vd{letter}" for letter in "bcdefghijklm"]
# One call, its worker killed after a while; prints what became of the operation once nobody is at work on it any more.
KILL = """\
import json, os, signal, subprocess, sys, time
from pathlib import Path
from scalarizr.client import Client
from scalarizr.operations.store import Store
method, parameters, delay = sys.argv[1], json.loads(sys.argv[2]), float(sys.argv[3])
with Client("http://127.0.0.1:8010", key_file="/etc/scalr/private.d/keys/default", timeout=120) as api:
    operation = api.call(method, **parameters, async_=True).id
    deadline, killed = None, False
    while (record := api.call("operation.result", operation_id=operation))["status"] in ("new", "in-progress"):
        if deadline is None and record["status"] == "in-progress":
            deadline = time.monotonic() + delay
        if not killed and deadline is not None and time.monotonic() >= deadline:
            for pid in subprocess.run(["pgrep", "-f", "[s]calarizr.worker"], capture_output=True).stdout.split():
                os.kill(int(pid), signal.SIGKILL)
            killed = True
        time.sleep(0.02)
    # What it had begun is undone after its end is recorded; together with the end it is recorded that this is to come.
    store, deadline = Store(Path("/var/lib/scalarizr/operations/operations.db")), time.monotonic() + 600
    while operation in store.uncleaned():
        assert time.monotonic() < deadline, "what it had begun is not undone"
        time.sleep(0.2)
    print(json.dumps({"killed": killed, **record}))
"""


def base(device: str) -> dict[str, str]:
    return {"type": "base", "device": device}


class StorageGuest(Guest):
    """The agent in a virtual machine with further disks."""

    def killed(self, delay: float, method: str, **parameters: object) -> dict[str, Any]:
        """Have a call's worker killed after a while; gives the operation's record when it is over."""
        command = ["/opt/scalarizr/bin/python", "-c", KILL, method, json.dumps(parameters), str(delay)]
        record: dict[str, Any] = json.loads(self.machine.output(*command, timeout=1500))
        return record

    def create(self, **volume: object) -> Any:
        return self.call("storage.create", storage_config=volume, mkfs=True, mount=True, fstab=True)

    def write(self, path: str, size: int = 8) -> str:
        """Write random data, durably; gives its checksum."""
        return self.shell(f"head -c {size}M /dev/urandom > {path}; sync -f {path}; sha256sum < {path}")

    def read(self, path: str) -> str:
        """Give a file's checksum as it is on the disk."""
        return self.shell(f"echo 3 > /proc/sys/vm/drop_caches; sha256sum < {path}")

    def synchronise_at_most(self, speed: int) -> None:
        """Limit how fast arrays are synchronised, in MB/s."""
        self.shell(f"echo {speed * 1000} > /proc/sys/dev/raid/speed_limit_max")

    def names(self, kind: str) -> list[str]:
        """Give the names of all groups (vg), logical volumes (lv) or physical volumes (pv)."""
        return self.shell(f"{kind}s --noheadings --options {kind}_name").split()

    def blank(self, *disks: str) -> None:
        """See that nothing is on disks any more that a tool would find; and make them as they came."""
        found = self.shell(f"for disk in {' '.join(disks)}; do wipefs --noheadings $disk; done")
        assert found == "", found
        self.shell(
            f"for disk in {' '.join(disks)}; do\n"
            "  last=$(($(blockdev --getsize64 $disk) / 1048576 - 1))\n"
            "  for place in 0 $last; do\n"
            "    dd if=/dev/zero of=$disk bs=1M count=1 seek=$place conv=fsync,notrunc status=none\n"
            "  done\n"
            "done"
        )

    def as_it_came(self) -> None:
        """See that nothing is left of any volume."""
        assert self.names("lv") == [] and self.names("vg") == [] and self.names("pv") == []
        assert "md" not in self.shell("ls /sys/block")
        assert self.shell("cat /etc/fstab") == FSTAB
        assert self.shell("grep -c ' /mnt/' /proc/mounts || true") == "0"
        self.blank(*DISKS)
