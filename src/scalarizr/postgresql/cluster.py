"""Finding the local cluster: Debian's layout, Red Hat's, or a private one by the settings. PostgreSQL 10 and newer."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from scalarizr.errors import NotConfigured, NotSupported
from scalarizr.host.numerals import numeral
from scalarizr.host.paths import HostPaths
from scalarizr.host.processes import is_alive, program_of, read_pid_file
from scalarizr.postgresql.configuration import below, read_configuration
from scalarizr.settings.model import Postgresql

DEFAULT_PORT = 5432
_OLDEST = 10
_SOCKET_DIRS = (Path("/var/run/postgresql"), Path("/tmp"))  # noqa: S108  where servers built from source put theirs
_PROGRAMS = ("postgres", "postmaster")
# Red Hat's own package, and those of the PostgreSQL project for it, one directory and unit a version.
_RED_HAT = (("var/lib/pgsql", "data", "postgresql"), ("var/lib/pgsql", "*/data", "postgresql-{version}"))


class Cluster(msgspec.Struct, frozen=True):
    """One cluster.

    :param version: its major version, such as "15".
    :param data_dir: its data directory.
    :param config_file: its postgresql.conf.
    :param programs: the directory of its version's programs.
    :param layout: whose arrangement it is.
    :param unit: its service's name without `.service`; empty for a private one.
    :param name: Debian's name of it, such as "main"; empty elsewhere.
    :param set_socket_dir: the directory of the socket by the agent's settings; None: found.
    :param set_port: the port by the agent's settings; None: found.
    :param root: what its configuration's paths are looked up under.
    """

    version: str
    data_dir: Path
    config_file: Path
    programs: Path
    layout: Literal["debian", "redhat", "private"]
    unit: str
    name: str = ""
    set_socket_dir: Path | None = None
    set_port: int | None = None
    root: Path = Path("/")

    @property
    def pid_file(self) -> Path:
        """The server's lock file, which tells where and how it runs."""
        return self.data_dir / "postmaster.pid"

    def pid(self) -> int | None:
        """Give the server's process id; None where it does not run."""
        pid = read_pid_file(self.pid_file)
        return pid if pid is not None and is_alive(pid) and program_of(pid) in _PROGRAMS else None

    def state(self) -> str:
        """Give what a running server says of itself: `starting`, `ready`, `standby` (one that takes no connections),
        `stopping`; empty where it does not run.
        """
        lines = self._lock_lines()
        return lines[7].strip() if len(lines) > 7 and self.pid() is not None else ""

    def address(self) -> tuple[Path, int]:
        """Give the directory of its Unix socket and its port, from the running server or else from its files.

        :raises NotConfigured: it has no Unix socket.
        """
        lines = self._lock_lines()
        told = numeral(lines[3].strip()) if len(lines) > 4 and self.pid() is not None else None
        if told is not None:
            directory, port = lines[4].strip(), told
        else:
            configured = self.configuration()
            directory = configured.get("unix_socket_directories", str(self._default_socket_dir())).split(",")[0].strip()
            # A port that is none starts no server: that is for the server to say.
            port = numeral(configured.get("port", "")) or DEFAULT_PORT
        if self.set_socket_dir is not None:
            directory = str(self.set_socket_dir)
        if not directory or directory.startswith("@"):
            raise NotConfigured(
                f"The cluster in {self.data_dir} has no Unix socket in a directory. Nothing was changed. "
                "Set unix_socket_directories in its postgresql.conf and restart it."
            )
        return Path(directory), self.set_port or port

    def _default_socket_dir(self) -> Path:
        return _SOCKET_DIRS[0] if self.layout != "private" or _SOCKET_DIRS[0].is_dir() else _SOCKET_DIRS[1]

    def _lock_lines(self) -> list[str]:
        try:
            return self.pid_file.read_text(errors="replace").splitlines()
        except OSError:
            return []

    def configuration(self) -> dict[str, str]:
        """Read its settings from its files; empty where they cannot be read."""
        try:
            return read_configuration(self.config_file, self.data_dir, self.root)
        except OSError:
            return {}

    def is_standby(self) -> bool:
        """Tell by its files whether it is (or, before 12, may be) a standby."""
        return any((self.data_dir / name).exists() for name in ("standby.signal", "recovery.conf"))

    def program(self, name: str) -> Path:
        """Give one of its programs."""
        return self.programs / name


def find_cluster(settings: Postgresql, host: HostPaths = HostPaths()) -> Cluster:  # noqa: B008  it is frozen
    """Find the cluster that the settings mean: the one they name, the only one, or that on port 5432.

    :param settings: of `[postgresql]`.
    :param host: where the host's trees are.
    :raises NotConfigured: there is none, or more than one could be meant.
    :raises NotSupported: it is older than PostgreSQL 10.
    """
    found = [*_debian(host), *_red_hat(host)]
    if settings.data_dir is not None:
        wanted = settings.data_dir.resolve()
        chosen = next((cluster for cluster in found if cluster.data_dir.resolve() == wanted), None)
        if chosen is None:
            chosen = _private(settings.data_dir, host)
    else:
        chosen = _meant(found, settings)
    if (numeral(chosen.version.partition(".")[0]) or 0) < _OLDEST:
        raise NotSupported(
            f"The cluster in {chosen.data_dir} is of PostgreSQL {chosen.version}; {_OLDEST} or newer is needed. "
            "Nothing was changed."
        )
    return msgspec.structs.replace(chosen, set_socket_dir=settings.socket_dir, set_port=settings.port)


def _meant(found: list[Cluster], settings: Postgresql) -> Cluster:
    if settings.socket_dir is not None:
        data_dir = _data_dir_of(settings.socket_dir, settings.port or DEFAULT_PORT)
        if data_dir is not None:
            return next((cluster for cluster in found if cluster.data_dir == data_dir), _private(data_dir, HostPaths()))
    if settings.port is not None:
        found = [cluster for cluster in found if cluster.address()[1] == settings.port]
    if not found:
        raise NotConfigured(
            "No PostgreSQL cluster was found on this host. Nothing was changed. Install one, or set [postgresql] "
            "data_dir to its data directory."
        )
    if len(found) > 1:
        usual = [cluster for cluster in found if cluster.address()[1] == DEFAULT_PORT]
        if len(usual) != 1:
            places = ", ".join(f"{cluster.data_dir} (port {cluster.address()[1]})" for cluster in found)
            raise NotConfigured(
                f"There is more than one PostgreSQL cluster on this host: {places}. Nothing was changed. Set "
                "[postgresql] data_dir to the one that is meant."
            )
        found = usual
    return found[0]


def _data_dir_of(socket_dir: Path, port: int) -> Path | None:
    """Give the data directory of the server behind a socket: its lock file tells (the layout of postmaster.pid)."""
    try:
        lines = (socket_dir / f".s.PGSQL.{port}.lock").read_text(errors="replace").splitlines()
    except OSError:
        return None
    return Path(lines[1]) if len(lines) > 1 else None


def _debian(host: HostPaths) -> Iterator[Cluster]:
    """Find the clusters of Debian's postgresql-common: /etc/postgresql/VERSION/NAME."""
    for main in sorted((host.etc / "postgresql").glob("*/*/postgresql.conf")):
        version, name = main.parts[-3:-1]
        try:
            directory = read_configuration(main, root=host.root).get("data_directory")
        except OSError:
            continue
        data_dir = below(host.root, Path(directory or f"/var/lib/postgresql/{version}/{name}"))
        yield Cluster(
            version=version,
            data_dir=data_dir,
            config_file=main,
            programs=host.usr / "lib" / "postgresql" / version / "bin",
            layout="debian",
            unit=f"postgresql@{version}-{name}",
            name=name,
            root=host.root,
        )


def _red_hat(host: HostPaths) -> Iterator[Cluster]:
    for base, pattern, unit in _RED_HAT:
        for data_dir in sorted((host.root / base).glob(pattern)):
            version = _version_of(data_dir)
            if version is not None:
                yield Cluster(
                    version=version,
                    data_dir=data_dir,
                    config_file=data_dir / "postgresql.conf",
                    programs=_programs(version, host),
                    layout="redhat",
                    unit=unit.format(version=version),
                    root=host.root,
                )


def _private(data_dir: Path, host: HostPaths) -> Cluster:
    version = _version_of(data_dir)
    if version is None:
        raise NotConfigured(
            f"{data_dir}, the setting [postgresql] data_dir, is no data directory of PostgreSQL: it holds no readable "
            "PG_VERSION. Nothing was changed."
        )
    return Cluster(
        version=version,
        data_dir=data_dir,
        config_file=data_dir / "postgresql.conf",
        programs=_programs(version, host),
        layout="private",
        unit="",
        root=host.root,
    )


def _version_of(data_dir: Path) -> str | None:
    try:
        return (data_dir / "PG_VERSION").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def _programs(version: str, host: HostPaths) -> Path:
    """Give the directory of a version's programs, which differs from one distribution to the next."""
    places = (
        host.usr / f"pgsql-{version}" / "bin",
        host.usr / "lib" / "postgresql" / version / "bin",
        host.usr / "bin",
        host.usr / "local" / "pgsql" / "bin",
    )
    found = next((place for place in places if (place / "postgres").exists()), None)
    if found is None:
        on_path = shutil.which("postgres")
        found = Path(on_path).parent if on_path else places[2]
    return found
