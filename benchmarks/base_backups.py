"""pgBackRest and Barman, for the comparison with `create_backup`: each copies the same cluster's files to a directory.

Both are Debian's packages, installed where they are missing and the machine allows it. They compress as the agent does,
zstd at level 3, by one process; what small files cost pgBackRest is spared by its bundles.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from private_postgresql import USER, PrivateCluster

_LIMIT = 1800
_RECEIVING = 30
_BARMAN = """\
[barman]
barman_home = {home}
barman_user = {user}
log_file = {home}/log
configuration_files_directory = {home}/none
[bench]
description = bench
conninfo = host={socket_dir} port={port} user={user} dbname=postgres
streaming_conninfo = host={socket_dir} port={port} user={user}
path_prefix = {programs}
backup_method = postgres
streaming_archiver = on
slot_name = barman
immediate_checkpoint = true
backup_compression = zstd
backup_compression_level = 3
backup_compression_location = client
backup_compression_format = tar
"""


class Tool(Protocol):
    """One of them, ready to make backups.

    :ivar title: what it is, and its version.
    """

    title: str

    def start(self) -> "subprocess.Popen[bytes]":
        """Begin a backup; it is there when the process has ended."""


@contextmanager
def tools(cluster: PrivateCluster, place: Path) -> Iterator[list[Tool]]:
    """Give those that there are, for a cluster that runs; says which are left out."""
    with ExitStack() as ends:
        found: list[Tool] = []
        for program, kind in (("pgbackrest", PgBackRest), ("barman", Barman)):
            if _installed(program):
                home = place / program
                home.mkdir(mode=0o755)
                shutil.chown(home, USER)
                found.append(ends.enter_context(kind(cluster, home)))
            else:
                print(f"LEFT OUT: there is no {program}, and it cannot be installed here.")
        yield found


class PgBackRest:
    """Full backups by pgBackRest, of which it keeps one, as the agent is told to."""

    def __init__(self, cluster: PrivateCluster, home: Path) -> None:
        self.title = _first_line(["pgbackrest", "version"])
        self._where = [
            "--stanza=bench",
            f"--pg1-path={cluster.data_dir}",
            f"--pg1-socket-path={cluster.socket_dir}",
            f"--pg1-port={cluster.port}",
            f"--repo1-path={home}/repository",
            f"--lock-path={home}/lock",
            "--log-level-file=off",
            "--log-level-console=warn",
        ]

    def __enter__(self) -> "PgBackRest":
        _as_postgres(["pgbackrest", *self._where, "stanza-create"])
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def start(self) -> "subprocess.Popen[bytes]":
        how = ["--compress-type=zst", "--compress-level=3", "--process-max=1", "--repo1-bundle", "--type=full"]
        kept = ["--start-fast", "--no-archive-check", "--repo1-retention-full=1"]
        return _begun(["pgbackrest", *self._where, *how, *kept, "backup"])


class Barman:
    """Backups by Barman over pg_basebackup, while it receives the log (WAL) of the cluster."""

    def __init__(self, cluster: PrivateCluster, home: Path) -> None:
        self.title = f"Barman {_first_line(['barman', '--version']).split()[0]}"
        self._file = home / "barman.conf"
        self._log, self._said = home / "received", home / "said"
        self._file.write_text(
            _BARMAN.format(
                home=home, user=USER, socket_dir=cluster.socket_dir, port=cluster.port, programs=cluster.bindir
            )
        )

    def __enter__(self) -> "Barman":
        _as_postgres(self._command("receive-wal", "--create-slot", "bench"))
        self._receiver = _begun(self._command("receive-wal", "bench"), self._log)
        deadline = time.monotonic() + _RECEIVING
        while "starting log streaming" not in self._log.read_text():
            assert time.monotonic() < deadline and self._receiver.poll() is None, self._log.read_text()
            time.sleep(0.1)
        # It makes no backup before it has a segment of the log.
        _as_postgres(self._command("switch-wal", "--force", "--archive", "--archive-timeout", "60", "bench"))
        return self

    def __exit__(self, *exception: object) -> None:
        _begun(self._command("receive-wal", "--stop", "bench")).wait(60)
        self._receiver.wait(30)

    def start(self) -> "subprocess.Popen[bytes]":
        return _begun(self._command("backup", "bench"), self._said)

    def _command(self, *words: str) -> list[str]:
        return ["barman", "-c", str(self._file), *words]


def _installed(program: str) -> bool:
    """Tell whether a program is there, which a package of its name brings where apt may."""
    if shutil.which(program) is None and os.geteuid() == 0 and shutil.which("apt-get"):
        command = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", program]
        words = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(command, env=words, capture_output=True, timeout=600)
    return shutil.which(program) is not None


def _first_line(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()[0]


def _as_postgres(command: list[str]) -> None:
    process = _begun(command)
    assert process.wait(_LIMIT) == 0, f"{command[0]} failed"


def _begun(command: list[str], log: Path | None = None) -> "subprocess.Popen[bytes]":
    with open(log or os.devnull, "wb") as told:
        return subprocess.Popen(
            command,
            user=USER,
            group=USER,
            extra_groups=[],
            cwd="/",
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"},
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=told,
        )
