"""What is read from nginx's words: those of recorded releases, see tests/fixtures/nginx/README.md."""

import os
import stat
from pathlib import Path

import pytest

from scalarizr.errors import NotConfigured
from scalarizr.nginx import program as nginx
from scalarizr.nginx.program import NginxProgram, read_build
from scalarizr.services.log_tail import LogTail
from scalarizr.services.status import Status
from scalarizr.settings.model import Nginx

RELEASES = Path(__file__).parents[2] / "fixtures" / "nginx"
LOG = "/var/log/nginx/error.log"
BUILDS = {
    "1.18.0-debian-11": ("1.18.0", "/usr/share/nginx", "/etc/nginx/nginx.conf", "/run/nginx.pid", LOG),
    "1.22.1-debian-12": ("1.22.1", "/usr/share/nginx", "/etc/nginx/nginx.conf", "/run/nginx.pid", "stderr"),
    "1.26.3-debian-13": ("1.26.3", "/usr/share/nginx", "/etc/nginx/nginx.conf", "/run/nginx.pid", "stderr"),
    "1.30.6-debian-forky": ("1.30.6", "/usr/share/nginx", "/etc/nginx/nginx.conf", "/run/nginx.pid", "stderr"),
    "composed/1.12.2-el7": ("1.12.2", "/usr/share/nginx", "/etc/nginx/nginx.conf", "/run/nginx.pid", LOG),
    "composed/1.14.1-el8": ("1.14.1", "/usr/share/nginx", "/etc/nginx/nginx.conf", "/run/nginx.pid", LOG),
    "composed/1.20.1-el9": ("1.20.1", "/usr/share/nginx", "/etc/nginx/nginx.conf", "/run/nginx.pid", LOG),
    "composed/1.28.0-nginx.org": ("1.28.0", "/etc/nginx", "/etc/nginx/nginx.conf", "/run/nginx.pid", LOG),
    "composed/1.21.4.1-openresty": (
        "1.21.4.1",
        "/usr/local/openresty/nginx",
        "/usr/local/openresty/nginx/conf/nginx.conf",
        "logs/nginx.pid",
        "logs/error.log",
    ),
}


def test_no_release_is_forgotten() -> None:
    assert {str(path.parent.relative_to(RELEASES)) for path in RELEASES.rglob("V.txt")} == set(BUILDS)


@pytest.mark.parametrize("release", BUILDS)
def test_version_and_places_are_read_from_what_it_was_built_with(release: str) -> None:
    build = read_build((RELEASES / release / "V.txt").read_text())
    assert (build.version, str(build.prefix), str(build.config), build.pid_file, build.error_log) == BUILDS[release]


def test_one_that_says_nothing_is_as_nginx_is_built_by_default() -> None:
    build = read_build("")
    assert (build.version, str(build.config)) == ("", "/usr/local/nginx/conf/nginx.conf")


def recorded(directory: Path, release: str) -> NginxProgram:
    """A program that says what a release said, with the configuration of its package in a directory of its own."""
    program = directory / "nginx-of-the-release"
    program.write_text(f"#!/bin/sh\ncat '{RELEASES / release / 'V.txt'}' >&2\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    etc = directory / "etc"
    etc.mkdir()
    packaged = RELEASES / release / "etc" / "nginx" / "nginx.conf"
    (etc / "nginx.conf").write_bytes(packaged.read_bytes() if packaged.exists() else b"events {}\nhttp {}\n")
    return NginxProgram(Nginx(binary=program, config_dir=etc))


@pytest.mark.parametrize("release", BUILDS)
def test_the_packaged_configuration_says_where_pid_and_log_are(tmp_path: Path, release: str) -> None:
    program = recorded(tmp_path, release)
    own = "openresty" in release
    assert program.pid_file() == (tmp_path / "etc" / "logs" / "nginx.pid" if own else Path("/run/nginx.pid"))
    assert program.error_log() == (tmp_path / "etc" / "logs" / "error.log" if own else Path(LOG))
    assert program.is_private and program.main_config == tmp_path / "etc" / "nginx.conf"
    assert program.command("-t")[1:] == ["-p", tmp_path / "etc", "-c", tmp_path / "etc" / "nginx.conf", "-t"]


@pytest.mark.parametrize(
    ("text", "log"),
    [
        ("", None),
        ("error_log stderr;", None),
        ("error_log syslog:server=unix:/dev/log;", None),
        ("error_log memory:32m debug;", None),
        ("error_log logs/e.log warn;", "logs/e.log"),
        ("http { error_log /elsewhere; }", None),
    ],
)
def test_a_log_that_cannot_be_read_is_none(tmp_path: Path, text: str, log: str | None) -> None:
    program = recorded(tmp_path, "1.26.3-debian-13")
    program.main_config.write_text(text)
    assert program.error_log() == (program.config_dir / log if log else None)


def test_a_pid_file_of_somebody_else_is_not_nginx(tmp_path: Path) -> None:
    program = recorded(tmp_path, "1.22.1-debian-12")
    program.main_config.write_text("pid nginx.pid;\n")
    assert program.status() is Status.NOT_RUNNING
    (program.config_dir / "nginx.pid").write_text(f"{os.getpid()}\n")
    assert program.master() is None and program.status() is Status.DEAD_WITH_PID_FILE


@pytest.mark.parametrize("release", [release for release in BUILDS if "debian" in release])
def test_processes_are_known_by_the_names_that_every_release_gives_them(release: str) -> None:
    lines = [line for line in (RELEASES / release / "processes.txt").read_text().splitlines() if line[0] != "#"]
    name, master, *children = lines
    assert name == "nginx" and master.startswith(nginx._MASTER)
    assert children.count(nginx._WORKER) == 4
    assert "nginx: worker process is shutting down" in children and "nginx: cache manager process" in children


@pytest.mark.parametrize("release", [release for release in BUILDS if "debian" in release])
@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("unknown-directive", 'unknown directive "nonsense" in /etc/nginx/proxies.include:23'),
        ("missing-log-directory", 'open() "/var/log/no-such-directory/a.log" failed (2: No such file or directory)'),
        ("missing-certificate", 'cannot load certificate "/etc/scalarizr/private.d/keys/nginx-https_404.crt"'),
        ("held-port", "bind() to 0.0.0.0:8090 failed (98: Address already in use)"),
    ],
)
def test_a_refused_reload_is_seen_in_the_log(tmp_path: Path, release: str, mistake: str, words: str) -> None:
    lines = (RELEASES / release / "reload" / f"{mistake}.txt").read_text()
    master = int(lines.partition("] ")[2].partition("#")[0])
    log = tmp_path / "error.log"
    log.write_text("2026/11/25 10:00:00 [emerg] 7#7: of yesterday\n")
    tail = LogTail(log)
    with log.open("a") as file:
        file.write(f"2026/11/25 10:00:00 [alert] {master + 1}#{master + 1}: *5 open socket #3 left in connection 7\n")
        for line in lines.splitlines():
            # Until it gives up, a port may still become free.
            found = nginx._complaints(tail, master)
            assert not found or nginx._TRYING.search(found[-1])
            file.write(f"{line}\n")
            file.flush()
    found = nginx._complaints(tail, master)
    assert not nginx._TRYING.search(found[-1]) and nginx._plain(found[0]).startswith(words)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match=r"\[nginx\] binary, is no program"):
        _ = NginxProgram(Nginx(binary=tmp_path / "nginx")).binary
    program = recorded(tmp_path, "1.22.1-debian-12")
    program.main_config.unlink()
    with pytest.raises(NotConfigured, match=r"Set \[nginx\] config_dir"):
        _ = NginxProgram(Nginx(binary=program.binary, config_dir=tmp_path / "etc")).config_dir
