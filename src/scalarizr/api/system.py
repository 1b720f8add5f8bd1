"""The `system` namespace: the host itself."""

from typing import TypedDict, cast

from scalarizr.api.parts import Parts
from scalarizr.host import cpu, disks, distribution, interpreters, kernel, memory, name, network
from scalarizr.host.capacity import Capacity
from scalarizr.host.load import LoadAverage
from scalarizr.rpc.method import command, query
from scalarizr.system import hook, hostname, log_files, metrics


class Uname(TypedDict):
    """The kernel and the machine, as uname(1) names them."""

    kernel_name: str
    nodename: str
    kernel_release: str
    kernel_version: str
    machine: str
    processor: str
    hardware_platform: str


class Distribution(TypedDict):
    """The distribution; what is not known is an empty string."""

    distributor: str
    release: str
    codename: str


class Memory(TypedDict):
    """Memory and swap, in kB."""

    total_swap: int
    avail_swap: int
    total_real: int
    total_free: int
    shared: int
    buffer: int
    cached: int
    available: int


class Requests(TypedDict):
    """Requests of one direction since boot."""

    num: int
    sectors: int
    bytes: int


class DiskStatistics(TypedDict):
    """What went through one block device."""

    read: Requests
    write: Requests


class Traffic(TypedDict):
    """Traffic of one direction since boot."""

    bytes: int
    packets: int
    errors: int


class InterfaceStatistics(TypedDict):
    """What went through one network interface."""

    receive: Traffic
    transmit: Traffic


class Space(TypedDict):
    """A file system's size and free space, in kB."""

    total: int
    free: int


class MetricValue(TypedDict):
    """One scaling metric, read."""

    id: int
    name: str
    value: float | None
    error: str | None


class ScriptOutput(TypedDict):
    """What a script printed, each stream in base64."""

    stdout: str
    stderr: str


class SystemAPI:
    """The host: its name, its figures, its logs.

    :param parts: the agent's shared mechanisms.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._host = parts.host
        self._load = LoadAverage(parts.host)
        self._capacity = Capacity(parts.host, parts.log)

    @command(resource="auth-shutdown hook")
    def call_auth_shutdown_hook(self) -> str:
        """Run the auth-shutdown hook of this server (setting `[paths] auth_shutdown_hook`).

        :return: what it printed on standard output, stripped.
        :raises NotFound: there is no such file.
        :raises PermissionRefused: it is not executable.
        :raises OutsideFailure: it ended with another exit status than 0.
        :raises TimedOut: it did not end within `[system] hook_timeout`; it was stopped.
        """
        settings = self._parts.settings
        return hook.run_hook(settings.paths.auth_shutdown_hook, settings.system.hook_timeout)

    @command(resource="hostname", dry_run=True)
    def set_hostname(self, hostname: str) -> str:
        """Give this server a name: the running one, the static one in /etc/hostname, and in /etc/hosts.

        The server's private address is mapped to the name in /etc/hosts; no other line is touched. All of it is done,
        or nothing.

        :param hostname: a name by RFC 1123, 253 characters at most, labels of at most 63 letters, digits and hyphens.
        :return: the name.
        :raises InvalidParameter: it is no such name; nothing was changed.
        :raises PermissionRefused: the agent may not set the kernel's name; nothing was changed.
        """
        return _set_hostname(self._parts, hostname)

    @query
    def get_hostname(self) -> str:
        """Give the fully qualified name of this server.

        :return: the kernel's name where it has a dot, else what /etc/hosts or the resolver make of it.
        """
        return name.fully_qualified_name(self._host)

    @query
    def block_devices(self) -> list[str]:
        """List the block devices, partitions, loop devices and RAM disks included.

        :return: names as in /proc/diskstats, such as `["sda", "sda1", "loop0"]`.
        """
        return disks.block_devices(self._host)

    @query(inline=True)
    def uname(self) -> Uname:
        """Tell the kernel and the machine.

        :return: what uname(1) prints, by the names of its options.
        """
        return cast("Uname", kernel.uname(self._host))

    @query
    def dist(self) -> Distribution:
        """Tell the distribution.

        :return: such as `{"distributor": "debian", "release": "12", "codename": "bookworm"}` (os-release(5)).
        """
        return cast("Distribution", distribution.distribution(self._host))

    @query
    def pythons(self) -> list[str]:
        """List the versions of the Python interpreters in /usr/bin and /usr/local/bin.

        :return: versions sorted as such: `["3.9.2", "3.11.7"]`.
        """
        return interpreters.python_versions(self._host)

    @query
    def cpu_info(self) -> list[dict[str, str]]:
        """Describe the processors.

        :return: one object a processor, keys and values as in /proc/cpuinfo.
        """
        return cpu.cpu_info(self._host)

    @query
    def cpu_stat(self) -> dict[str, int]:
        """Tell what the processors' time went into since boot.

        :return: jiffies: `user`, `nice`, `system`, `idle`, and the further columns that this kernel has (`iowait`,
            `irq`, `softirq`, `steal`, `guest`, `guest_nice`; proc(5)).
        """
        return cpu.cpu_stat(self._host)

    @query(inline=True)
    def mem_info(self) -> Memory:
        """Tell the use of memory and swap.

        :return: kB; `available` is the kernel's estimate of what programs can still get without swapping.
        """
        return cast("Memory", memory.mem_info(self._host))

    @query(inline=True)
    def load_average(self) -> list[float]:
        """Tell the load average.

        :return: over 1, 5 and 15 minutes.
        """
        return self._load.read()

    @query
    def disk_stats(self) -> dict[str, DiskStatistics]:
        """Tell what went through each block device since boot.

        :return: by device: requests, sectors of 512 bytes, and bytes, read and written.
        """
        return cast("dict[str, DiskStatistics]", disks.disk_stats(self._host))

    @query
    def net_stats(self) -> dict[str, InterfaceStatistics]:
        """Tell what went through each network interface since boot.

        :return: by interface: bytes, packets and errors, received and transmitted.
        """
        return cast("dict[str, InterfaceStatistics]", network.net_stats(self._host))

    @query
    def statvfs(self, mpoints: list[str]) -> dict[str, Space | None]:
        """Tell how full file systems are.

        A mount that does not answer, such as one of a dead file server, is given up after 3 s and counts as none.

        :param mpoints: mount points, absolute paths.
        :return: by mount point: size and what an ordinary user may still use, in kB; null where it is no mount point.
        """
        return cast("dict[str, Space | None]", self._capacity.of(mpoints))

    @query(limit=120)
    def scaling_metrics(self) -> list[MetricValue]:
        """Read every scaling metric of the environment, 128 at once, each within `[system] metric_timeout`.

        :return: in the environment's order; `value` is null and `error` says why where a metric has no value.
        """
        limit = self._parts.settings.system.metric_timeout
        return cast("list[MetricValue]", metrics.read_metrics(self._parts.environment.metrics(), limit))

    @query
    def get_script_logs(self, exec_script_id: str, maxsize: int = 2 << 20) -> ScriptOutput:
        """Give what a script printed.

        :param exec_script_id: the id of its execution: letters, digits, `-` and `_`.
        :param maxsize: bytes of each stream at most; what is longer is cut, and says so at its end.
        :return: both streams in base64; where a log was rotated away, a text that says so.
        :raises InvalidParameter: the id has other characters.
        """
        directory = self._parts.settings.paths.scripting_logs
        return cast("ScriptOutput", log_files.script_output(directory, exec_script_id, maxsize))

    @query
    def get_debug_log(self, maxsize: int | None = None) -> str:
        """Give the newest part of the agent's debug log, scalarizr_debug.log.

        :param maxsize: bytes at most, whole lines; `[system] log_size` (5 MiB) when not given.
        :return: base64.
        :raises NotFound: there is no such file.
        """
        return self._log("scalarizr_debug.log", maxsize)

    @query
    def get_update_log(self, maxsize: int | None = None) -> str:
        """Give the newest part of the log of the agent's updates, scalarizr_update.log.

        :param maxsize: bytes at most, whole lines; `[system] log_size` (5 MiB) when not given.
        :return: base64.
        :raises NotFound: there is no such file.
        """
        return self._log("scalarizr_update.log", maxsize)

    @query
    def get_log(self, maxsize: int | None = None) -> str:
        """Give the newest part of the agent's log, scalarizr.log.

        :param maxsize: bytes at most, whole lines; `[system] log_size` (5 MiB) when not given.
        :return: base64.
        :raises NotFound: there is no such file.
        """
        return self._log("scalarizr.log", maxsize)

    def _log(self, file: str, size: int | None) -> str:
        settings = self._parts.settings
        return log_files.newest_part(settings.paths.logs / file, settings.system.log_size if size is None else size)


def _set_hostname(parts: Parts, new_name: str) -> str:
    address = parts.settings.environment.private_address
    return hostname.set_hostname(parts.changes, parts.host, new_name, private_address=address)
