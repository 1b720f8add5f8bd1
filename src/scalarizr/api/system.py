"""The `system` namespace: the host itself."""

import asyncio
import base64
import contextlib
import hashlib
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from scalarizr.api.parts import Parts
from scalarizr.api.system_types import (
    DiskStatistics,
    Distribution,
    GivenScript,
    GlobalVariable,
    InterfaceStatistics,
    Memory,
    MetricValue,
    MountedFileSystem,
    ScriptOutput,
    ScriptResult,
    Space,
    Uname,
)
from scalarizr.errors import Busy
from scalarizr.host import cpu, disks, distribution, interpreters, kernel, memory, name, network
from scalarizr.host.capacity import Capacity
from scalarizr.host.load import LoadAverage
from scalarizr.rpc.method import command, operation, query
from scalarizr.rpc.rights import present_rights, refusal
from scalarizr.system import hook, hostname, log_files, metrics

if TYPE_CHECKING:
    from scalarizr.system.scripts import Places

_UPDATE_LOG = "scalarizr_update.log"


def _executions(parameters: Mapping[str, Any]) -> str:
    """Name the runs that a call asks for, so that the same call is not made a second time meanwhile."""
    named = sorted(str(script["execution_id"]) for script in parameters["scripts"] if script.get("execution_id"))
    if not named:
        return f"scripts {uuid.uuid4().hex}"
    return f"scripts {hashlib.sha256(' '.join(named).encode()).hexdigest()[:32]}"


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
    def mounts(self) -> dict[str, MountedFileSystem]:
        """Tell what is mounted: the real file systems, those that keep data on a device, a network or in a process.

        What the kernel makes up (proc, sysfs, cgroups) or keeps in memory (tmpfs) is left out.

        :return: by mount point; `options` by comma, as mount(8) shows them. A file system that does not answer within
            3 s, such as one of a dead file server, is there without figures.
        """
        from scalarizr.system.mounts import real_mounts

        return cast("dict[str, MountedFileSystem]", real_mounts(self._host, self._capacity))

    @command(resource="")
    async def reboot(self, force: bool = False) -> None:
        """Reboot this server, cleanly, once this answer has got away: `[system] reboot_delay` after it.

        Called again meanwhile, it changes nothing.

        :param force: also while operations run, which are interrupted then.
        :raises Busy: an operation runs or waits; the facts name those that the caller may see.
        :raises NotSupported: this host has no init that reboots it, as in most containers.
        :raises PermissionRefused: the agent does not run as root.
        """
        from scalarizr.system.reboot import begin_reboot

        if not force:
            await self._refuse_while_operations_run()
        settings = self._parts.settings
        delay = float(settings.system.reboot_delay)
        pending = await asyncio.to_thread(begin_reboot, self._host, settings.paths.state, settings.paths.logs, delay)
        when = "is pending already" if pending.already_pending else f"in {delay:g} s"
        self._parts.log.warning("reboot %s command=%s", when, " ".join(pending.command))

    async def _refuse_while_operations_run(self) -> None:
        operations = self._parts.operations
        if operations is None or not await operations.has_in_progress():
            return
        unfinished = [
            record for status in ("in-progress", "new") for record in await operations.newest(status=status, limit=20)
        ]
        if not unfinished:
            return
        shown = [record for record in unfinished if present_rights().show(record.name)]
        named = ", ".join(f"{record.name} ({record.id})" for record in shown) or "those of others"
        raise Busy(
            f"Operations are at work: {named}. This server was not rebooted; wait for them, cancel them, or say "
            "`force`.",
            {"operations": [record.id for record in shown]},
        )

    @operation(resource=_executions)
    def execute_scripts(
        self,
        scripts: list[GivenScript],
        global_variables: list[GlobalVariable] | None = None,
        event_name: str | None = None,
        role_name: str | None = None,
        async_: bool = False,  # noqa: ARG002  the dispatcher's
    ) -> list[ScriptResult]:
        """Run scripts on this server, in their order; one that fails does not keep the next one from running.

        A script is an object: `name`; `body`, its text with `#!` and an interpreter in the first line, or `path`, a
        file; `run_as`, an account (the agent's own when not given); `timeout` in seconds (`[system] script_timeout`
        when not given), at which it is ended with all that it started; `asynchronous`: it runs on, and the next one
        begins; `execution_id`: letters, digits, `-` and `_`, made when not given. What it prints goes to
        `EVENT.ROLE.NAME.EXECUTION_ID-out.log` and `-err.log` in `[paths] scripting_logs`; `get_script_logs` reads it.

        :param scripts: 1 to 100 of them.
        :param global_variables: `{name, value, private}`: environment variables of all scripts. Private values are
            masked in logs, records and answers. Variables that change how programs are found or loaded (`PATH`,
            `LD_PRELOAD` and the like) are refused.
        :param event_name: for the names of the logs.
        :param role_name: for the names of the logs.
        :param async_: give the operation's id at once.
        :return: one entry a script; `return_code` is negative where a signal ended it, 127 or 126 where it could not be
            started, null where it runs on.
        :raises InvalidParameter: a value cannot be accepted, an account is unknown; nothing was started.
        :raises AlreadyExists: an execution id was used before, and its logs are still there; nothing was started.
        :raises OutsideFailure: the logs cannot be written; the facts hold the results until then.
        """
        from scalarizr.system.script_parameters import read_scripts, read_variables
        from scalarizr.system.scripts import run_scripts

        wanted = read_scripts(scripts, self._parts.settings.system.script_timeout)
        variables = read_variables(global_variables or [])
        results = run_scripts(wanted, variables, self._script_places(), event_name, role_name)
        return cast("list[ScriptResult]", results)

    def _script_places(self) -> "Places":
        from scalarizr.system.scripts import Places

        settings = self._parts.settings
        usual = Path("/run/scalarizr-scripts") if os.geteuid() == 0 else settings.paths.state / "scripts"
        return Places(
            logs=settings.paths.scripting_logs,
            bodies=settings.system.script_dir or usual,
            keep=settings.system.script_logs_keep,
            log_size=settings.system.script_log_size,
            logs_size=settings.system.script_logs_size,
        )

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
        :return: both streams in base64, of a script that still runs what it printed so far; where a log was rotated
            away, a text that says so. They are kept for `[system] script_logs_keep`.
        :raises InvalidParameter: the id has other characters.
        :raises PermissionRefused: the caller may not run scripts itself.
        """
        if not present_rights().show("system.execute_scripts"):
            raise refusal("system.execute_scripts")
        from scalarizr.system.script_logs import prune

        directory, kept = self._parts.settings.paths.scripting_logs, self._parts.settings.system
        with contextlib.suppress(OSError):
            prune(directory, kept.script_logs_keep, kept.script_logs_size)
        return cast("ScriptOutput", log_files.script_output(directory, exec_script_id, maxsize))

    @query
    def get_debug_log(self, maxsize: int | None = None) -> str:
        """Give the newest part of the agent's debug log, scalarizr_debug.log: of calls that the caller may make itself.

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
        return self._log(_UPDATE_LOG, maxsize)

    @query
    def get_log(self, maxsize: int | None = None) -> str:
        """Give the newest part of the agent's log, scalarizr.log: of calls that the caller may make itself.

        :param maxsize: bytes at most, whole lines; `[system] log_size` (5 MiB) when not given.
        :return: base64.
        :raises NotFound: there is no such file.
        """
        return self._log("scalarizr.log", maxsize)

    def _log(self, file: str, size: int | None) -> str:
        settings = self._parts.settings
        part = log_files.newest_part(settings.paths.logs / file, settings.system.log_size if size is None else size)
        # Updates are nobody's calls.
        return part if present_rights().unlimited or file == _UPDATE_LOG else _shown_part(part)


def _shown_part(part: str) -> str:
    from scalarizr.system.shown_lines import lines_about

    text = base64.b64decode(part).decode("utf-8", "surrogateescape")
    return base64.b64encode(lines_about(text, present_rights().show).encode("utf-8", "surrogateescape")).decode()


def _set_hostname(parts: Parts, new_name: str) -> str:
    address = parts.settings.environment.private_address
    return hostname.set_hostname(parts.changes, parts.host, new_name, private_address=address)
