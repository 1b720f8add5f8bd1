"""Packages of a small monitoring agent of either kind, for tests: it notes each start and what it was told, and waits.

A key `ends` makes it end at once with status 3; `deaf` makes it ignore SIGTERM.
"""

import contextlib
import gzip
import hashlib
import io
import json
import lzma
import os
import signal
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scalarizr.host.processes import is_alive, wait_until

without_systemd = pytest.mark.skipif(
    Path("/run/systemd/system").is_dir() and os.geteuid() == 0,
    reason="LEFT OUT: systemd runs here, and would be given a unit of this test",
)
_TELLING = """\
import json, os, signal, sys
def tell(told):
    with open(REPORT, "a") as report:
        report.write(json.dumps({"pid": os.getpid(), "uid": os.getuid(), "cwd": os.getcwd(), **told}) + "\\n")
    key = told["api_key"]
    if key == "ends":
        print("this key is not known")
        sys.exit(3)
    if key == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()
"""
_CLASSIC = """\
import settings
tell({"api_key": settings.mms_key, "secret_key": settings.secret_key, "user": settings.globalAuthUsername,
      "password": settings.globalAuthPassword, "kept": settings.kept})
"""
SETTINGS = '''\
# The agent's settings.
mms_key = "@API_KEY@"
secret_key = "@SECRET_KEY@"   # of the group
kept = 42

globalAuthUsername = """yourAdminUser
"""
globalAuthPassword=None
'''
_AUTOMATION = """\
assert sys.argv[1] == "-f" and len(sys.argv) == 3, sys.argv
lines = [line.strip() for line in open(sys.argv[2])]
told = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
with open(told["logFile"], "a") as log:
    log.write("begins\\n")
tell({"api_key": told["mmsGroupId"], "secret_key": told["mmsApiKey"], "kept": told["mmsBaseUrl"]})
"""
# The same in a few milliseconds: for a test that hangs on how soon it ends.
_SHELL = """\
key=$(sed -n 's/^mmsGroupId=//p' "$2")
printf '{"pid": %s, "api_key": "%s"}\\n' $$ "$key" >> "$report"
[ "$key" != ends ] || { echo "this key is not known"; exit 3; }
while :; do sleep 1 & wait $!; done
"""
CONFIGURATION = """\
# REQUIRED
mmsGroupId=@GROUP_ID@
mmsApiKey=@API_KEY@
mmsBaseUrl=https://api-agents.mongodb.com
logFile=/var/log/mongodb-mms-automation/automation-agent.log
mmsConfigBackup=/var/lib/mongodb-mms-automation/mms-cluster-config-backup.json
"""


def classic_files(report: Path) -> dict[str, tuple[int, str]]:
    """The files of the classic agent: path to mode and text."""
    telling = f"REPORT = {str(report)!r}\n{_TELLING}"
    return {
        "mms-agent/agent.py": (0o644, telling + _CLASSIC),
        "mms-agent/settings.py": (0o644, SETTINGS),
        "mms-agent/README": (0o644, "Read me.\n"),
    }


def automation_files(report: Path, *, debian: bool = False) -> dict[str, tuple[int, str]]:
    """The files of the automation agent, as its tar archive or its Debian package has them."""
    text = f"#!/usr/bin/env python3\nREPORT = {str(report)!r}\n{_TELLING}{_AUTOMATION}"
    if debian:
        return {
            "./opt/mongodb-mms-automation/bin/mongodb-mms-automation-agent": (0o755, text),
            "./etc/mongodb-mms/automation-agent.config": (0o600, CONFIGURATION),
            "./usr/share/doc/mongodb-mms-automation-agent-manager/copyright": (0o644, "free\n"),
        }
    return {
        "mongodb-mms-automation-agent-1.0.x86_64/mongodb-mms-automation-agent": (0o755, text),
        "mongodb-mms-automation-agent-1.0.x86_64/automation-agent.config": (0o600, CONFIGURATION),
    }


def shell_files(report: Path) -> dict[str, tuple[int, str]]:
    """The files of an automation agent that is a shell script."""
    return {
        "agent/mongodb-mms-automation-agent": (0o755, f"#!/bin/sh\nreport='{report}'\n{_SHELL}"),
        "agent/automation-agent.config": (0o600, CONFIGURATION),
    }


def tar(files: Mapping[str, tuple[int, str]]) -> bytes:
    """A tar archive, with its directories."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        directories = {str(parent) for name in files for parent in Path(name).parents if str(parent) != "."}
        for directory in sorted(directories):
            member = tarfile.TarInfo(directory)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(member)
        for name, (mode, text) in files.items():
            member = tarfile.TarInfo(name)
            member.mode, member.size = mode, len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return data.getvalue()


def compressed(data: bytes, how: str) -> bytes:
    """Compress it: `gz`, `xz`, `zst` or not at all."""
    if how == "zst":
        import zstandard

        return zstandard.compress(data)
    return {"gz": gzip.compress, "xz": lzma.compress, "": bytes}[how](data)


def debian_package(files: Mapping[str, tuple[int, str]], how: str) -> bytes:
    """A Debian package (deb(5)) whose script would leave a trace if it were run."""
    trace = next(iter(files.values()))[1].split("REPORT = '")[1].split("'")[0]
    control = tar(
        {"./postinst": (0o755, f"#!/bin/sh\necho ran > {trace}.postinst\n"), "./control": (0o644, "Package: x\n")}
    )
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": gzip.compress(control),
        f"data.tar{'.' if how else ''}{how}": compressed(tar(files), how),
    }
    package = b"!<arch>\n"
    for name, data in members.items():
        package += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
        )
    return package


def package_content(report: Path, kind: str, how: str) -> bytes:
    """A package whose program tells in the file `report`."""
    if kind == "debian":
        return debian_package(automation_files(report, debian=True), how)
    kinds = {"classic": classic_files, "shell": shell_files, "automation": automation_files}
    return compressed(tar(kinds[kind](report)), how)


class Package:
    """A package of one kind on disk, and what its program tells.

    :param directory: where both are.
    :param kind: `classic`, `automation`, `debian` or `shell`.
    :param how: its compression.
    """

    def __init__(self, directory: Path, kind: str = "classic", how: str = "gz") -> None:
        self.report = directory / "report"
        self.path = directory / f"package-{kind}-{how}"
        self.programs = directory / "state-mongodb-monitoring" / "programs"
        self.content = package_content(self.report, kind, how)
        self.path.write_bytes(self.content)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def setting(self, source: str | None = None, sha256: str | None = None) -> str:
        source = str(self.path) if source is None else source
        sha256 = self.sha256 if sha256 is None else sha256
        return f'[mongodb]\nmonitoring_agent = {{ package = "{source}", sha256 = "{sha256}" }}\n'

    def starts(self) -> list[dict[str, Any]]:
        """What each start told, in order."""
        return [json.loads(line) for line in self.report.read_text().splitlines()] if self.report.exists() else []

    def running(self) -> list[int]:
        """The processes of its program, told or not."""
        found = []
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError, ValueError):
                words = Path(f"/proc/{int(entry)}/cmdline").read_bytes()
                if f"{self.programs}/".encode() in words and is_alive(int(entry)):
                    found.append(int(entry))
        return found

    def started_again(self, count: int, seconds: float = 90) -> dict[str, Any]:
        """Wait until it was started that often; gives what the last start told."""
        assert wait_until(lambda: len(self.starts()) >= count, seconds), f"{len(self.starts())} starts, not {count}"
        return self.starts()[-1]

    def end(self) -> None:
        """End what may be left of it."""
        for pid in self.running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
