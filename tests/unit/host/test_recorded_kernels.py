"""The readers of /proc and /etc against trees of other kernels; see tests/fixtures/proc/README.md."""

from pathlib import Path
from typing import Any

import pytest

from scalarizr.errors import OutsideFailure
from scalarizr.host import cpu, disks, distribution, kernel, memory, name, network
from scalarizr.host.load import LoadAverage
from scalarizr.host.mounts import mounts
from scalarizr.host.paths import HostPaths

TREES = Path(__file__).parents[2] / "fixtures" / "proc"


def load_average(recorded: HostPaths) -> list[float]:
    return LoadAverage(recorded).read()


EVERY_TREE = pytest.mark.parametrize("tree", sorted(path.name for path in TREES.iterdir() if path.is_dir()))


def host(tree: str) -> HostPaths:
    return HostPaths(TREES / tree)


@EVERY_TREE
def test_every_reader_gives_its_shape(tree: str) -> None:
    recorded = host(tree)
    assert len(LoadAverage(recorded).read()) == 3
    assert {"user", "nice", "system", "idle"} <= set(cpu.cpu_stat(recorded))
    processors = cpu.cpu_info(recorded)
    assert [one["processor"] for one in processors] == [str(number) for number in range(len(processors))]
    assert set(memory.mem_info(recorded)) == {
        "total_swap",
        "avail_swap",
        "total_real",
        "total_free",
        "shared",
        "buffer",
        "cached",
        "available",
    }
    assert list(disks.disk_stats(recorded)) == disks.block_devices(recorded)
    assert network.net_stats(recorded) and mounts(recorded)
    assert all(kernel.uname(recorded).values()) and distribution.distribution(recorded)["distributor"]


EXPECTED: dict[str, dict[str, Any]] = {
    "linux-2.6.9-x86": {
        "load": [0.08, 0.03, 0.01],
        "times": {"user": 12203, "idle": 3361920, "iowait": 5804, "softirq": 0, "columns": 7},
        "processors": 2,
        "memory": {"shared": 0, "available": 14372 + 83076 + 296896, "avail_swap": 1048424},
        "devices": ["ram0", "sda", "sda1", "sda2", "fd0"],
        "disk": ("sda2", 26539, 621246, 146545, 1172360),
        "interface": ("eth0", 2718281828, 3141592, 5, 1618033988, 2997924, 7),
        "dist": {"distributor": "rhel", "release": "4", "codename": "nahant update 8"},
        "machine": "x86_64",
    },
    "linux-2.6.32-x86_64": {
        "load": [1.5, 0.75, 0.3],
        "times": {"user": 336150, "steal": 512, "guest": 0, "columns": 9},
        "processors": 2,
        "memory": {"shared": 228, "available": 103824 + 91820 + 595908, "total_swap": 2097144},
        "devices": ["loop0", "vda", "vda1", "dm-0"],
        "disk": ("vda", 14005, 540038, 192834, 3183656),
        "interface": ("eth0", 1000000001, 2000002, 0, 3000000003, 4000004, 0),
        "dist": {"distributor": "centos", "release": "6.10", "codename": "final"},
        "machine": "x86_64",
    },
    "linux-3.10-x86_64": {
        "load": [0.0, 0.01, 0.05],
        "times": {"guest_nice": 10, "columns": 10},
        "processors": 2,
        "memory": {"available": 3400300, "shared": 11900},
        "devices": ["vda", "vda1", "sr0"],
        "disk": ("vda1", 8403, 600067, 2613, 69341),
        "interface": ("eth0", 5550001, 6001, 1, 4440001, 3001, 4),
        "dist": {"distributor": "centos", "release": "7", "codename": "core"},
        "machine": "x86_64",
    },
    "linux-4.18-x86_64": {
        "load": [12.34, 5.67, 0.89],
        "times": {"irq": 6, "columns": 10},
        "processors": 2,
        "memory": {"total_real": 16116340, "total_free": 9000000},
        "devices": ["nvme0n1", "nvme0n1p1"],
        "disk": ("nvme0n1", 52000, 3400018, 90100, 5500017),
        "interface": ("enp1s0", 123, 4, 0, 567, 8, 0),
        "dist": {"distributor": "rhel", "release": "8.10", "codename": "ootpa"},
        "machine": "x86_64",
    },
    "linux-5.10-aarch64": {
        "load": [0.1, 0.2, 0.3],
        "times": {"system": 200, "columns": 10},
        "processors": 4,
        "memory": {"buffer": 20000, "cached": 900000},
        "devices": ["nvme0n1", "zram0"],
        "disk": ("nvme0n1", 5201, 402190, 9907, 501840),
        "interface": ("ens5", 18446744073709551, 99, 1, 22, 33, 44),
        "dist": {"distributor": "debian", "release": "11", "codename": "bullseye"},
        "machine": "aarch64",
    },
    "linux-5.15-armv7": {
        "load": [0.0, 0.0, 0.0],
        "times": {"steal": 80, "columns": 10},
        "processors": 4,
        "memory": {"avail_swap": 102396},
        "devices": ["mmcblk0", "ram0"],
        "disk": ("mmcblk0", 5000, 300000, 900, 20000),
        "interface": ("wlan0", 1, 2, 3, 4, 5, 6),
        "dist": {"distributor": "raspbian", "release": "11", "codename": "bullseye"},
        "machine": "armv7l",
    },
    "linux-6.1-x86_64": {
        "load": [0.52, 0.58, 0.59],
        "times": {"user": 44001, "steal": 7, "columns": 10},
        "processors": 2,
        "memory": {"available": 6543210, "cached": 4567890},
        "devices": ["vda", "loop0"],
        "disk": ("vda", 120001, 9000003, 550005, 77000007),
        "interface": ("wg-up@a", 7, 1, 0, 8, 1, 0),
        "dist": {"distributor": "debian", "release": "12", "codename": "bookworm"},
        "machine": "x86_64",
    },
}


@EVERY_TREE
def test_every_figure_is_the_one_that_stands_in_the_file(tree: str) -> None:
    recorded, expected = host(tree), EXPECTED[tree]
    assert LoadAverage(recorded).read() == expected["load"]
    times = cpu.cpu_stat(recorded)
    assert len(times) == expected["times"].pop("columns") and times.items() >= expected["times"].items()
    assert len(cpu.cpu_info(recorded)) == expected["processors"]
    assert memory.mem_info(recorded).items() >= expected["memory"].items()
    assert disks.block_devices(recorded) == expected["devices"]
    device, reads, sectors_read, writes, sectors_written = expected["disk"]
    assert disks.disk_stats(recorded)[device] == {
        "read": {"num": reads, "sectors": sectors_read, "bytes": sectors_read * 512},
        "write": {"num": writes, "sectors": sectors_written, "bytes": sectors_written * 512},
    }
    interface, *counts = expected["interface"]
    traffic = network.net_stats(recorded)[interface]
    assert [*traffic["receive"].values(), *traffic["transmit"].values()] == counts
    assert distribution.distribution(recorded) == expected["dist"]
    assert kernel.uname(recorded)["machine"] == expected["machine"]


def test_values_of_a_processor_are_those_of_the_file() -> None:
    first = cpu.cpu_info(host("linux-2.6.32-x86_64"))[0]
    assert first["model name"] == "Intel(R) Xeon(R) CPU E5649 @ 2.53GHz" and first["power management"] == ""
    assert "Serial" not in cpu.cpu_info(host("linux-5.15-armv7"))[3]


def test_an_alias_of_an_interface_keeps_its_name() -> None:
    assert network.net_stats(host("linux-2.6.32-x86_64"))["eth0:1"]["receive"]["bytes"] == 10


def test_mount_points_are_unescaped() -> None:
    assert [mount.mpoint for mount in mounts(host("linux-6.1-x86_64"))] == ["/", "/mnt/a b", "/mnt/dead"]
    assert "/mnt/with blank" in [mount.mpoint for mount in mounts(host("linux-2.6.9-x86"))]
    nfs = mounts(host("linux-3.10-x86_64"))[2]
    assert (nfs.mpoint, nfs.fstype, nfs.device) == ("/srv/share", "nfs4", "files.example.com:/share")


def test_the_fqdn_comes_from_the_hosts_file_where_the_kernel_has_a_short_name() -> None:
    assert name.fully_qualified_name(host("linux-6.1-x86_64")) == "web1.example.com"
    assert name.fully_qualified_name(host("linux-4.18-x86_64")) == "rhel8.example.com"
    assert name.fully_qualified_name(host("linux-3.10-x86_64")) == "centos7"


@pytest.mark.parametrize(
    "reader", [load_average, cpu.cpu_stat, cpu.cpu_info, memory.mem_info, disks.disk_stats, network.net_stats]
)
def test_a_missing_or_strange_file_is_named(reader: Any, tmp_path: Path) -> None:
    with pytest.raises(OutsideFailure, match="/proc/"):
        reader(HostPaths(tmp_path))
    (tmp_path / "proc" / "net").mkdir(parents=True)
    for file in ("loadavg", "stat", "meminfo", "diskstats", "net/dev"):
        (tmp_path / "proc" / file).write_text("one\ntwo\nstrange line 1 2 x: y\n")
    if reader is not cpu.cpu_info:
        with pytest.raises(OutsideFailure, match="/proc/"):
            reader(HostPaths(tmp_path))
