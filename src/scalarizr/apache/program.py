"""The Apache program: where it and its files are, and starting, reloading and stopping it until that is really so."""

import contextlib
import os
import re
import shutil
import signal
import time
from functools import cached_property
from pathlib import Path

import msgspec

from scalarizr.apache.description import Description, RunConfig, read_description
from scalarizr.apache.includes import included_files
from scalarizr.apache.layout import DEBIAN, LAYOUTS, RED_HAT, Layout
from scalarizr.apache.sysconfig import options_in, variables_beside
from scalarizr.apache.words import ErrorLogs, plain_words
from scalarizr.errors import NotConfigured, OutsideFailure, Refused
from scalarizr.host import processes
from scalarizr.host.listening import answers, holder_of, listening_sockets, sockets_of
from scalarizr.host.run import Finished, run
from scalarizr.services.status import Status
from scalarizr.services.supervision import Direct, Supervisor, find_supervisor
from scalarizr.services.web_server import WebServer
from scalarizr.settings.model import Apache

_TEST_LIMIT = 120.0
_START_LIMIT = 60.0
_RELOAD_LIMIT = 120.0
_PID_FILE_LIMIT = 10.0
_LISTEN = re.compile(r"^[ \t]*Listen[ \t]+(?:\S+:)?(\d+)", re.MULTILINE | re.IGNORECASE)
_PID_FILE = re.compile(r"\bAPACHE_PID_FILE=(?P<path>/\S+)")
# ServerLimit where nothing is said of it; with the worker MPM a new process shares the place of one that finishes.
_PLACES = {"mpm_event_module": 16, "mpm_prefork_module": 256}
_SERVER_LIMIT = re.compile(r"^[ \t]*ServerLimit[ \t]+(\d+)", re.MULTILINE | re.IGNORECASE)


_MAIN_FILES = ("apache2.conf", "conf/httpd.conf", "httpd.conf")


class ApacheProgram(WebServer):
    """One Apache: the system's, or a private one by the settings.

    :param settings: of `[apache]`.
    """

    called = "Apache"
    endings = ((signal.SIGTERM, 30.0), (signal.SIGKILL, 5.0))

    def __init__(self, settings: Apache) -> None:
        self._settings = settings

    @cached_property
    def layout(self) -> Layout:
        """The distribution's arrangement.

        :raises NotConfigured: there is no Apache on this host.
        """
        directory = self._settings.config_dir
        for layout in LAYOUTS:
            if directory is not None and (directory / layout.main).exists():
                return layout
        if directory is None:
            for layout in LAYOUTS:
                if (Path(layout.config_dir) / layout.main).exists() and (
                    self._settings.binary or _first(layout.programs)
                ):
                    return layout
        elif (directory / "httpd.conf").exists():
            return RED_HAT
        if directory is not None:
            names = ", ".join(_MAIN_FILES)
            raise NotConfigured(f"{directory}, the setting [apache] config_dir, holds none of {names}.")
        raise NotConfigured("There is no Apache on this host. Install it, or set [apache] binary and config_dir.")

    @cached_property
    def config_dir(self) -> Path:
        """The directory of its configuration."""
        return Path(os.path.realpath(self._settings.config_dir or self.layout.config_dir))

    @cached_property
    def main_config(self) -> Path:
        """Its main configuration file."""
        return next(self.config_dir / name for name in _MAIN_FILES if (self.config_dir / name).exists())

    @property
    def is_debian(self) -> bool:
        """Whether modules and sites are enabled by links."""
        return (self.config_dir / "mods-available").is_dir()

    @cached_property
    def is_private(self) -> bool:
        """Whether its configuration is another than the one that its package made."""
        return Path(os.path.realpath(self.layout.config_dir)) != self.config_dir

    @cached_property
    def _control(self) -> Path | None:
        if self._settings.control is not None:
            return self._settings.control
        # Debian's script alone knows the variables that its configuration is written with. Red Hat's takes no arguments
        # any more (apachectl(8) there): the program itself is asked.
        if self.layout is not DEBIAN:
            return None
        if self._settings.binary is None and (not self.is_private or (self.config_dir / "envvars").exists()):
            found = _first(self.layout.controls)
            return Path(found) if found else None
        return None

    @cached_property
    def binary(self) -> Path:
        """The program."""
        found = (
            self._settings.binary or _first(self.layout.programs) or shutil.which("httpd") or shutil.which("apache2")
        )
        if found is None:
            raise NotConfigured("There is no Apache program on this host. Install it, or set [apache] binary.")
        return Path(found)

    def command(self, *arguments: str, config: Path | None = None) -> list[str | os.PathLike[str]]:
        """Give the argument vector that runs it with its configuration."""
        if self._control is not None:
            return [self._control, *(("-d", self._root_of(config), "-f", config) if config else ()), *arguments]
        return [
            self.binary,
            "-d",
            self._root_of(config or self.main_config),
            "-f",
            config or self.main_config,
            *options_in(self._environment()),
            *arguments,
        ]

    def _root_of(self, config: Path) -> Path:
        """Give the directory that a main configuration, or a copy of it, is arranged in."""
        return config.parents[len(self.main_config.relative_to(self.config_dir).parts) - 1]

    def _environment(self) -> dict[str, str]:
        if self.layout is RED_HAT:
            return variables_beside(self.config_dir)
        return {"APACHE_CONFDIR": str(self.config_dir)} if self._control is not None and self.is_private else {}

    def ask(self, *arguments: str, config: Path | None = None, timeout: float = _TEST_LIMIT) -> Finished:
        """Run it for what it says."""
        return run(
            self.command(*arguments, config=config),
            timeout=timeout,
            environment=self._environment(),
            output_limit=1 << 24,
        )

    def test(self, config: Path | None = None) -> Finished:
        """Run its configuration test."""
        return self.ask("-t", config=config)

    def _mistakes(self) -> str | None:
        tested = self.test()
        return plain_words(tested) if tested.returncode != 0 else None

    def describe(self) -> Description:
        """Ask what it makes of its live configuration, all in one start of it.

        :raises OutsideFailure: the configuration is not valid.
        """
        said = self.ask("-t", "-D", "DUMP_RUN_CFG", "-D", "DUMP_INCLUDES", "-D", "DUMP_MODULES")
        text = said.stdout.decode("utf-8", "replace")
        if said.returncode != 0 or "PidFile" not in text:
            raise OutsideFailure(f"The live configuration is not valid: {plain_words(said)}")
        described = msgspec.structs.replace(read_description(text, self.config_dir), version=self.version())
        self._described = self._stamp(), described.run
        files = tuple(dict.fromkeys([self.main_config, *described.files]))
        if not described.files:
            # 2.4.6 of Red Hat 7 knows no DUMP_INCLUDES.
            files = included_files(self.main_config, described.run.root, described.conditions)
        return msgspec.structs.replace(described, files=files)

    def run_config(self) -> RunConfig:
        """Give how it runs; asked once, since it stays right while its configuration's main files do.

        :raises OutsideFailure: the configuration is not valid.
        """
        if self._described is None or self._described[0] != self._stamp():
            return self.describe().run
        return self._described[1]

    _described: tuple[object, RunConfig] | None = None

    def _stamp(self) -> object:
        paths = (self.main_config, self.config_dir / "envvars", self.config_dir.parent / "sysconfig" / "httpd")
        return tuple((path.stat().st_mtime_ns, path.stat().st_ino) for path in paths if path.exists())

    def version(self) -> str:
        """Give its version, such as `2.4.62`; asked again where the program was replaced."""
        with contextlib.suppress(OSError):
            found = self.binary.stat()
            stamp = found.st_ino, found.st_mtime_ns
            if self._version[0] != stamp:
                match = re.search(rb"Apache/([0-9.]+)", run([self.binary, "-v"], timeout=10).stdout)
                self._version = stamp, match[1].decode() if match else ""
        return self._version[1]

    _version: tuple[object, str] = None, ""

    # Its state

    def parent(self, pid_file: Path | None = None) -> int | None:
        """Give the parent's process id; None where it does not run."""
        pid = processes.read_pid_file(pid_file or self._pid_file())
        if pid is not None and processes.is_alive(pid) and processes.program_of(pid) == self.binary.name[:15]:
            return pid
        return None

    def _main_process(self) -> int | None:
        return self.parent()

    def _pid_file(self) -> Path:
        try:
            return self.run_config().pid_file
        except OutsideFailure:
            # A configuration that is not valid says nothing of itself; the program may run all the same.
            if self._described is not None:
                return self._described[1].pid_file
            with contextlib.suppress(OSError):
                said = _PID_FILE.search((self.config_dir / "envvars").read_text(errors="replace"))
                if said:
                    return Path(said["path"].replace("$SUFFIX", ""))
            return Path(self.layout.pid_file)

    def status(self) -> Status:
        """Tell its state."""
        pid_file = self._pid_file()
        if self.parent(pid_file) is not None:
            return Status.RUNNING
        if pid_file.exists():
            return Status.DEAD_WITH_PID_FILE
        lock = Path("/var/lock/subsys") / self.layout.service
        return Status.DEAD_WITH_LOCK if not self.is_private and lock.exists() else Status.NOT_RUNNING

    def own_sockets(self) -> set[str]:
        """Give the inodes of the sockets that it holds."""
        parent = self.parent()
        return sockets_of(parent) if parent is not None else set()

    # Its control

    @cached_property
    def _supervisor(self) -> Supervisor:
        start = self.command("start") if self._control is not None else self.command("-k", "start")
        direct = Direct(start, self._stop_directly, self._environment())
        if self._settings.manager == "auto" and (self.is_private or self._settings.control is not None):
            return direct
        return find_supervisor(self._settings.manager, self.layout.service, direct)

    def start(self) -> None:
        """Start it; returns when it takes connections.

        :raises OutsideFailure: it does not run; with its own words.
        """
        configured = self.run_config()
        if self.parent(configured.pid_file) is not None:
            return
        # Apache takes whatever process the file names for itself, one that ended and was never reaped too.
        configured.pid_file.unlink(missing_ok=True)
        logs = ErrorLogs(configured.error_log)
        try:
            self._supervisor.start()
        except OutsideFailure as failure:
            raise OutsideFailure(f"Apache did not start. {logs.errors() or failure.message}") from failure

        def serves() -> bool:
            parent = self.parent(configured.pid_file)
            return parent is not None and bool(processes.children_of(parent)) and _takes_connections(parent)

        began = time.monotonic()

        def is_over() -> bool:
            # It writes its pid file before it takes connections: without one for so long, it is gone.
            return serves() or (time.monotonic() - began > _PID_FILE_LIMIT and not configured.pid_file.exists())

        if not processes.wait_until(is_over, _START_LIMIT) or not serves():
            words = logs.errors() or self._held_port()
            raise OutsideFailure(f"Apache did not start. {words}".rstrip())

    def _held_port(self) -> str:
        """Tell of a port that another program holds: an init script keeps Apache's own words of it to itself."""
        texts = [path.read_text(errors="replace") for path in self.describe().files if path.is_file()]
        wanted = {int(number) for text in texts for number in _LISTEN.findall(text)}
        for socket in listening_sockets():
            if socket.port in wanted:
                return f"The port {socket.port} is held by another program ({holder_of(socket.inode)})."
        return ""

    def reload(self) -> None:
        """Let it load its configuration gracefully; returns when only the new generation takes connections.

        A stopped one is started.

        :raises Refused: nobody would be answered then; it was left alone.
        :raises OutsideFailure: it did not load it, or died of it; with its own words.
        """
        configured = self.run_config()
        parent = self.parent(configured.pid_file)
        if parent is None:
            self.start()
            return
        old = processes.children_of(parent)
        self._refuse_without_a_free_place(parent, old)
        logs = ErrorLogs(configured.error_log)
        written = _written(configured.pid_file)
        os.kill(parent, signal.SIGUSR1)

        def is_over() -> bool:
            if not processes.is_alive(parent):
                return True
            children = processes.children_of(parent)
            if _written(configured.pid_file) == written:
                # It writes this file anew once the configuration is loaded, before the first of its new workers starts.
                old.update(children)
                return False
            listening = {socket.inode for socket in listening_sockets()}
            serving = {pid for pid in children | old if sockets_of(pid) & listening}
            return bool(serving - old) and not serving & old

        in_time = processes.wait_until(is_over, _RELOAD_LIMIT)
        if not processes.is_alive(parent):
            raise OutsideFailure(f"Apache ended while it was reloaded: {logs.errors()}")
        if not in_time or not processes.wait_until(lambda: _takes_connections(parent), 10):
            raise OutsideFailure(f"Apache did not load the configuration. {logs.errors()}".rstrip())

    def _refuse_without_a_free_place(self, parent: int, children: set[int]) -> None:
        """A worker that finishes connections of an earlier generation keeps its place among ServerLimit.

        Where such ones hold them all, none of the new generation can start, and nobody is answered until one ends.
        """
        workers = {pid for pid in children if processes.program_of(pid) == self.binary.name[:15]}
        listening = {socket.inode for socket in listening_sockets()}
        finishing = {pid for pid in workers if not sockets_of(pid) & listening}
        places = self._places(parent) if finishing else None
        # A few among many that serve are no danger: those that serve end in a moment, and leave their places.
        if places and len(workers) >= places and len(finishing) * 4 >= places:
            raise Refused(
                f"Apache was not told to reload: {len(finishing)} of its processes still finish connections of earlier "
                f"configurations, and ServerLimit, {places}, leaves no place for new ones: nobody would be answered. "
                "Try again when they are through, or raise ServerLimit and restart Apache.",
                {"finishing": len(finishing), "server_limit": places},
            )

    _known_places: tuple[int, int | None] = 0, None

    def _places(self, parent: int) -> int | None:
        """Give how many workers a parent may have, which stays so while it runs; None: no matter how many finish."""
        if self._known_places[0] != parent:
            described = self.describe()
            usual = next((places for name, places in _PLACES.items() if name in described.modules), None)
            texts = (path.read_text(errors="replace") for path in described.files if path.is_file())
            said = max((int(number) for text in texts for number in _SERVER_LIMIT.findall(text)), default=usual)
            self._known_places = parent, said if usual else None
        return self._known_places[1]


def _written(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_ino, found.st_mtime_ns
    return None


def _takes_connections(parent: int) -> bool:
    held = sockets_of(parent)
    own = [socket for socket in listening_sockets() if socket.inode in held]
    return bool(own) and answers(own[0].address, own[0].port)


def _first(paths: tuple[str, ...]) -> str | None:
    return next((path for path in paths if os.access(path, os.X_OK)), None)
