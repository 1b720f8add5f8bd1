"""What `scalarizr doctor` looks at. Each check gives findings: how it stands, and what to do where it is not well."""

import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from scalarizr.errors import ScalarizrError
from scalarizr.host.run import run
from scalarizr.settings.address import read_address
from scalarizr.settings.key_id import DEFAULT
from scalarizr.settings.load import BadSettings
from scalarizr.settings.model import Settings

_SOON = 14 * 86400
_MAKES_ONE = (
    "`scalarizr init` makes one where there is none, `scalarizr key rotate default` another; root may be needed."
)
_ROTATES = "`scalarizr key rotate` makes another; root may be needed."
_LOW_SHARE, _LOW, _TOO_LOW = 0.1, 500 << 20, 50 << 20


class Finding(msgspec.Struct, frozen=True):
    """One line of the report.

    :param check: what was looked at.
    :param verdict: `ok`, `warn` or `fail`.
    :param words: what was found, and what to do.
    """

    check: str
    verdict: Literal["ok", "warn", "fail"]
    words: str


def check_keys(etc: Path, settings: Settings) -> Iterator[Finding]:
    """The keys: their rules can be read; each that is accepted is there, readable by the agent alone, and strong."""
    from scalarizr.cli.key_files import KeyFiles, problem_of

    files = KeyFiles(etc, settings)
    try:
        rules = files.rules()
    except (BadSettings, OSError) as error:
        yield Finding("key", "fail", f"{error} No key is accepted after the next start; put that right.")
        return
    now = time.time()
    for identity, one in rules.items():
        path = files.file_of(identity)
        problem = problem_of(path) if one.enabled else None
        if problem is not None:
            yield Finding("key", "fail", f"{path}: {problem}. {_MAKES_ONE if identity == DEFAULT else _ROTATES}")
        elif one.expires is not None and one.expires <= now + _SOON:
            when = "has expired" if one.expires <= now else f"expires in {(one.expires - now) / 86400:.0f} days"
            yield Finding("key", "warn", f"{identity} {when}: `scalarizr key add` makes another, `revoke` removes it.")
        else:
            yield Finding("key", "ok", f"{path}" if one.enabled else f"{identity} is switched off")


def check_clock(settings: Settings) -> Iterator[Finding]:
    """The clock: plausible, and kept by somebody."""
    if time.time() < 1_700_000_000:
        yield Finding(
            "clock", "fail", f"The clock says {time.strftime('%Y-%m-%d')}: set it, or no message is accepted."
        )
        return
    keepers = ("chronyd", "ntpd", "systemd-timesyn", "openntpd", "ptp4l", "phc2sys")
    kept = [name for name in keepers if _is_running(name)]
    if kept:
        yield Finding("clock", "ok", f"kept by {', '.join(kept)}")
    else:
        yield Finding(
            "clock",
            "warn",
            "No time service was found: run one (chrony), since messages more than "
            f"{settings.api.clock_skew:g} s off are refused.",
        )


def check_agent(settings: Settings) -> Iterator[Finding]:
    """The port: an agent answers there, or it is free."""
    from scalarizr.cli.target import local_url
    from scalarizr.client import Client, ClientError, Unreachable

    listen = settings.api.listen
    for address in [listen] if isinstance(listen, str) else listen:
        holder = _port_holder(*read_address(address))
        if holder is None:
            yield Finding("port", "warn", f"{address} is free: no agent runs; `scalarizr serve` starts it.")
            continue
        try:
            with Client(local_url(settings), key_file=settings.paths.key, timeout=5, connect_timeout=2) as client:
                client.call("system.load_average")
            yield Finding("port", "ok", f"an agent answers on {address}")
        except Unreachable as error:
            yield Finding("port", "fail", f"{address}: {error} Something else may hold the port: `ss -ltnp` shows it.")
        except ClientError as error:
            yield Finding("port", "fail", f"{address}: {error}")


def check_service_manager(settings: Settings) -> Iterator[Finding]:
    """Who starts and stops services here."""
    del settings
    if Path("/run/systemd/system").is_dir():
        yield Finding("services", "ok", "systemd")
    elif shutil.which("service"):
        yield Finding("services", "ok", "no systemd; `service` and the programs' own control")
    else:
        yield Finding("services", "warn", "neither systemd nor `service`: programs are controlled by themselves")


_PROGRAMS = (
    ("nginx", ("nginx", "/usr/sbin/nginx"), ("-v",)),
    ("apache", ("apache2", "/usr/sbin/apache2", "httpd", "/usr/sbin/httpd"), ("-v",)),
    ("postgresql", ("postgres", "/usr/lib/postgresql/*/bin/postgres", "/usr/pgsql-*/bin/postgres"), ("--version",)),
    ("mongodb", ("mongod",), ("--version",)),
)


def check_programs(settings: Settings) -> Iterator[Finding]:
    """The servers that can be managed, and their versions."""
    del settings
    for name, places, arguments in _PROGRAMS:
        path = next((found for place in places for found in _found(place)), None)
        if path is None:
            yield Finding(name, "ok", "not installed")
            continue
        try:
            finished = run([path, *arguments], timeout=5)
        except ScalarizrError as error:
            yield Finding(name, "warn", f"{path}: {error.message}")
            continue
        words = (finished.stdout + finished.stderr).decode("utf-8", "replace").strip().splitlines()
        if finished.returncode == 0 and words:
            yield Finding(name, "ok", f"{path}: {words[0]}")
        else:
            yield Finding(name, "warn", f"{path} does not tell its version: status {finished.returncode}.")


def check_directories(settings: Settings) -> Iterator[Finding]:
    """What the agent writes to: writable, with room left."""
    for name, directory in (("state", settings.paths.state), ("logs", settings.paths.logs)):
        place = next((parent for parent in (directory, *directory.parents) if parent.exists()), Path("/"))
        if not os.access(place, os.W_OK | os.X_OK):
            yield Finding(name, "fail", f"{place} is not writable: run the agent as root, or move `[paths] {name}`.")
            continue
        if not place.is_dir():
            yield Finding(name, "fail", f"{place} is no directory: move it away, or set `[paths] {name}`.")
            continue
        usage = shutil.disk_usage(place)
        room = f"{usage.free / 2**30:.1f} GiB free"
        if usage.free < _TOO_LOW:
            yield Finding(name, "fail", f"{place}: {room}: make room, or operations cannot be recorded.")
        elif usage.free < _LOW or usage.free < usage.total * _LOW_SHARE:
            yield Finding(name, "warn", f"{place}: {room}: make room soon.")
        else:
            yield Finding(name, "ok", f"{directory}: {room}")


# Beside `check_keys`, which looks at the directory of the configuration as well.
CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    check_clock,
    check_agent,
    check_service_manager,
    check_programs,
    check_directories,
)


def _is_running(name: str) -> bool:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "comm").read_text().strip() == name:
                    return True
            except OSError:
                continue
    return False


def _port_holder(host: str, port: int) -> bool | None:
    """Tell whether something listens there; None where nothing does."""
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    try:
        socket.create_connection((target, port), 2).close()
    except OSError:
        return None
    return True


def _found(place: str) -> list[str]:
    if "*" in place:
        return [str(path) for path in sorted(Path("/").glob(place[1:]), reverse=True)]
    found = shutil.which(place)
    return [found] if found else []
