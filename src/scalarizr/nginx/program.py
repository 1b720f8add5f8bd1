"""The nginx program: where it and its files are, and starting, reloading and stopping it until that is really so."""

import contextlib
import os
import re
import resource
import shutil
import signal
import time
from functools import cached_property
from pathlib import Path

import msgspec

from scalarizr.errors import NotConfigured, OutsideFailure, ScalarizrError
from scalarizr.host import processes
from scalarizr.host.listening import answers, listening_sockets, sockets_of
from scalarizr.host.run import Finished, run
from scalarizr.nginx.syntax import BadSyntax, parse
from scalarizr.services.log_tail import LogTail
from scalarizr.services.status import Status
from scalarizr.services.supervision import Direct, Supervisor, find_supervisor
from scalarizr.services.web_server import WebServer
from scalarizr.settings.model import Nginx

_PROGRAMS = ("/usr/sbin/nginx", "/usr/local/nginx/sbin/nginx", "/usr/local/sbin/nginx", "/opt/nginx/sbin/nginx")
_BUILT_IN = re.compile(r"--(?P<name>[a-z-]+)=(?P<value>'[^']*'|\S+)")
# Its forks call themselves by their own names (openresty/1.21.4.1).
_VERSION = re.compile(r"^[\w ]*version: [\w.-]+/(?P<version>[0-9.]+)", re.MULTILINE)
# It tries for 2.5 s to listen where another program does, and may well succeed.
_TRYING = re.compile(r"\[emerg\] \d+#\d+: bind\(\) to .* failed")
# A fifth of its time is the kernel's, handing out pages by 4 KiB (glibc's tunables; others pass over it).
_IN_LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
_TEST_LIMIT = 300.0
_RELOAD_LIMIT = 300.0
_FEW = 200
_BUSY_LIMIT = 60.0
_NAMING_LIMIT = 1.0
_IDLE = 1.0
_LOOK = 0.02
_MASTER, _WORKER = "nginx: master process", "nginx: worker process"


class Build(msgspec.Struct, frozen=True):
    """What was built into an nginx: its places, unless its configuration says others.

    :param version: such as `1.22.1`; empty: it does not say.
    :param prefix: what its relative places are below.
    :param config: its main configuration.
    :param pid_file: its pid file.
    :param error_log: its main error log, a file or where else it writes; below the prefix where it is relative.
    """

    version: str
    prefix: Path
    config: Path
    pid_file: str
    error_log: str


def read_build(said: str) -> Build:
    """Read what `nginx -V` said; what it says nothing of is as in nginx's own auto/options."""
    built_in = {match["name"]: match["value"].strip("'") for match in _BUILT_IN.finditer(said)}
    version = _VERSION.search(said)
    prefix = Path(built_in.get("prefix", "/usr/local/nginx"))
    return Build(
        version=version["version"] if version else "",
        prefix=prefix,
        config=prefix / built_in.get("conf-path", "conf/nginx.conf"),
        pid_file=built_in.get("pid-path", "logs/nginx.pid"),
        error_log=built_in.get("error-log-path", "logs/error.log"),
    )


class NginxProgram(WebServer):
    """One nginx: the system's, or a private one by the settings.

    :param settings: of `[nginx]`.
    :raises NotConfigured: there is none on this host.
    """

    called = "nginx"
    endings = ((signal.SIGQUIT, 20.0), (signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))

    def __init__(self, settings: Nginx) -> None:
        self._settings = settings

    @cached_property
    def binary(self) -> Path:
        """The program."""
        if self._settings.binary is not None:
            if not os.access(self._settings.binary, os.X_OK):
                raise NotConfigured(f"{self._settings.binary}, the setting [nginx] binary, is no program.")
            return self._settings.binary
        found = shutil.which("nginx") or next((path for path in _PROGRAMS if os.access(path, os.X_OK)), None)
        if found is None:
            raise NotConfigured("There is no nginx on this host. Install it, or set [nginx] binary.")
        return Path(found)

    @cached_property
    def build(self) -> Build:
        """What was built into it."""
        said = run([self.binary, "-V"], timeout=10)
        return read_build((said.stderr + said.stdout).decode("utf-8", "replace"))

    @cached_property
    def config_dir(self) -> Path:
        """The directory of its configuration."""
        directory = self._settings.config_dir or self.build.config.parent
        if not (directory / "nginx.conf").exists():
            raise NotConfigured(f"There is no {directory / 'nginx.conf'}. Set [nginx] config_dir.")
        return Path(os.path.realpath(directory))

    @property
    def main_config(self) -> Path:
        """Its main configuration file."""
        return self.config_dir / "nginx.conf"

    @cached_property
    def is_private(self) -> bool:
        """Whether its configuration is another than the one that its package made."""
        return Path(os.path.realpath(self.build.config.parent)) != self.config_dir

    def command(self, *arguments: str | os.PathLike[str], config: Path | None = None) -> list[str | os.PathLike[str]]:
        """Give the argument vector that runs it with its configuration."""
        place: list[str | os.PathLike[str]] = (
            ["-p", self.config_dir, "-c", config or self.main_config] if self.is_private or config else []
        )
        return [self.binary, *place, *arguments]

    def test(self, config: Path | None = None, *, opens: int = 0) -> Finished:
        """Run `nginx -t`.

        :param opens: how many sockets and logs it will open: where these are many, it may open no more files than the
            running nginx.
        """
        command = [*self._limit_of_files(), *self.command("-t", "-q", config=config)] if opens > _FEW else None
        return run(command or self.command("-t", "-q", config=config), timeout=_TEST_LIMIT, environment=_IN_LARGE_PAGES)

    def _limit_of_files(self) -> list[str]:
        master = self.master()
        if master is None or shutil.which("prlimit") is None:
            return []
        with contextlib.suppress(OSError):
            soft, _hard = resource.prlimit(master, resource.RLIMIT_NOFILE)
            return ["prlimit", f"--nofile={soft}:", "--"]
        return []

    def _mistakes(self) -> str | None:
        tested = self.test()
        return tested.last_words() if tested.returncode != 0 else None

    # Where it writes

    def pid_file(self) -> Path:
        """Give its pid file."""
        return self._place(self._main_directive("pid") or self.build.pid_file)

    def error_log(self) -> Path | None:
        """Give its main error log; None where it writes to none that can be read."""
        said = self._main_directive("error_log") or self.build.error_log
        return None if said == "stderr" or said.startswith(("syslog:", "memory:")) else self._place(said)

    def _place(self, said: str) -> Path:
        return (self.config_dir if self.is_private else self.build.prefix) / said

    def _main_directive(self, name: str) -> str | None:
        with contextlib.suppress(OSError, BadSyntax):
            text = self.main_config.read_text("utf-8", "replace")
            for directive in parse(text):
                if directive.name == name and len(directive.words) > 1:
                    return directive.words[1]
        return None

    # Its state

    def master(self) -> int | None:
        """Give the master's process id; None where it does not run."""
        pid = processes.read_pid_file(self.pid_file())
        return pid if pid is not None and self._is_nginx(pid) else None

    def status(self) -> Status:
        """Tell its state."""
        try:
            if self.master() is not None:
                return Status.RUNNING
            return Status.DEAD_WITH_PID_FILE if self.pid_file().exists() else Status.NOT_RUNNING
        except ScalarizrError:
            return Status.UNKNOWN

    def _main_process(self) -> int | None:
        return self.master()

    def _is_nginx(self, pid: int) -> bool:
        if not processes.is_alive(pid):
            return False
        title = processes.title_of(pid)
        return title.startswith(_MASTER) or processes.program_of(pid) == self.binary.name[:15]

    def workers(self, master: int) -> set[int]:
        """Give the workers that serve new connections."""
        return {pid for pid in processes.children_of(master) if processes.title_of(pid) == _WORKER}

    # Its control

    @cached_property
    def _supervisor(self) -> Supervisor:
        direct = Direct(self.command(), self._stop_directly)
        return (
            direct
            if self.is_private and self._settings.manager == "auto"
            else find_supervisor(self._settings.manager, "nginx", direct)
        )

    def start(self) -> None:
        """Start it; returns when its workers serve.

        :raises OutsideFailure: it does not run; with its own words.
        """
        if self.is_running():
            return
        tail = LogTail(self.error_log())
        try:
            self._supervisor.start()
        except OutsideFailure as failure:
            raise OutsideFailure(f"nginx did not start. {self._own_words(tail) or failure.message}") from failure

        def serves() -> bool:
            master = self.master()
            return master is not None and bool(self.workers(master)) and self._answers(master)

        if not processes.wait_until(serves, 30):
            raise OutsideFailure(f"nginx did not start. {self._own_words(tail)}".rstrip())

    def reload(self) -> None:
        """Let it load its configuration; returns when only workers of the new generation take connections.

        A stopped one is started.

        :raises OutsideFailure: it goes on with the old configuration; with its own words.
        """
        master = self.master()
        if master is None:
            self.start()
            return
        # Where it is at a reload already (one that was interrupted is undone by another), the workers of that one are
        # not those that are waited for.
        processes.wait_until(lambda: processes.takes(master, signal.SIGHUP), _BUSY_LIMIT)
        # Nor are those that were started just now and have not named themselves yet.
        processes.wait_until(lambda: not _unnamed(processes.children_of(master)), _NAMING_LIMIT)
        tail = LogTail(self.error_log())
        old = processes.children_of(master)
        os.kill(master, signal.SIGHUP)
        refused: list[str] = []
        idle_since: list[float] = []
        looked = time.monotonic()

        def serves() -> bool:
            return any(processes.title_of(pid) == _WORKER for pid in processes.children_of(master) - old)

        def is_over() -> bool:
            nonlocal looked
            if serves():
                return True
            if time.monotonic() - looked < _LOOK:
                return False  # who waits takes little of what nginx needs for its work
            looked = time.monotonic()
            refused[:] = _complaints(tail, master)
            if refused and not _TRYING.search(refused[-1]):
                return True
            # Its log may be none that can be read. It takes signals only while it has nothing else to do.
            if processes.children_of(master) - old or not processes.takes(master, signal.SIGHUP):
                idle_since.clear()
            elif not idle_since:
                idle_since.append(time.monotonic())
            has_given_up = bool(idle_since) and time.monotonic() - idle_since[0] > _IDLE
            return has_given_up or not processes.is_alive(master)

        in_time = processes.wait_until(is_over, _RELOAD_LIMIT, share=0.01)
        if serves():
            self._send_the_old_off(master, old)
            return
        if not processes.is_alive(master):
            raise OutsideFailure("nginx ended while it was reloaded.")
        words = _plain(refused[0]) if refused else self._own_words(tail) if in_time else "it did not within 300 s."
        raise OutsideFailure(f"nginx did not load the configuration: {words or 'its error log says why.'}")

    def _send_the_old_off(self, master: int, old: set[int]) -> None:
        """Wait until old workers take no connections any more; tell them to go, each while it sleeps.

        The master tells them 100 ms after it has started the new ones, whatever they do (ngx_process_cycle.c). One that
        is told in the middle of its work closes kept connections on which the next request has arrived meanwhile, and
        a client sees a reset. One that sleeps has read all that came (epoll_wait(2)). Not told in time, it is told by
        the master; told already, it does nothing at the master's word.
        """
        waiting = dict.fromkeys(old, False)

        def are_gone() -> bool:
            new = processes.children_of(master) - old
            have_started = not _unnamed(new)
            for pid, is_told in list(waiting.items()):
                if processes.title_of(pid) != _WORKER:
                    del waiting[pid]
                elif have_started and not is_told and processes.sleeps(pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGQUIT)
                    waiting[pid] = True
            return not waiting

        processes.wait_until(are_gone, 10, shortest=0.0003)

    def _answers(self, master: int) -> bool:
        held = sockets_of(master)
        own = [socket for socket in listening_sockets() if socket.inode in held]
        return not own or answers(own[0].address, own[0].port)

    def _own_words(self, tail: LogTail) -> str:
        lines = [line for line in tail.new_lines() if "[emerg]" in line or "[alert]" in line]
        if lines:
            return _plain(lines[0])
        return self._mistakes() or ""


def _unnamed(children: set[int]) -> set[int]:
    """Give the children that still have their master's title (one that replaces the program keeps it)."""
    return {pid for pid in children if processes.title_of(pid).startswith(_MASTER)}


def _complaints(tail: LogTail, master: int) -> list[str]:
    """Give why a master could not do what it was told; what its workers complain of is their own business."""
    return [line for line in tail.new_lines() if re.search(rf"\[(?:emerg|alert)\] {master}#", line)]


def _plain(line: str) -> str:
    """Take the time and process off a line of the error log."""
    return re.sub(r"^\S+ \S+ \[\w+\] \d+#\d+: ", "", line)
