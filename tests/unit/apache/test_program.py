"""What is read from Apache's words: those of recorded releases, see tests/fixtures/apache/README.md."""

from pathlib import Path

import pytest

from scalarizr.apache.description import read_description
from scalarizr.apache.layout import DEBIAN, RED_HAT
from scalarizr.apache.program import ApacheProgram
from scalarizr.apache.sysconfig import options_in, variables_beside
from scalarizr.apache.words import ErrorLogs, errors_in, plain_words
from scalarizr.errors import NotConfigured, OutsideFailure
from scalarizr.host.run import Finished
from scalarizr.settings.model import Apache

RECORDED = Path(__file__).parents[2] / "fixtures" / "apache"
DEBIANS = sorted(path.parent.name for path in RECORDED.glob("*/test"))
RED_HATS = ["composed/2.4.37-el8", "composed/2.4.6-el7"]
EVERY_DEBIAN = pytest.mark.parametrize("release", DEBIANS)


def recording(release: str, name: str) -> tuple[int, str]:
    status, _, text = (RECORDED / release / name).read_text().partition("\n")
    return int(status.removeprefix("exit ")), text


def repeating(directory: Path, release: str, name: str, config: str = "apache2.conf") -> ApacheProgram:
    """An Apache that says what a release said."""
    status, text = recording(release, name)
    (directory / "words").write_text(text)
    program = directory / "apache-of-the-release"
    program.write_text(f'#!/bin/sh\ncat "{directory}/words"\nexit {status}\n')
    program.chmod(0o755)
    main = directory / "etc" / config
    main.parent.mkdir(parents=True)
    main.write_text("")
    return ApacheProgram(Apache(binary=program, config_dir=directory / "etc"))


@pytest.mark.parametrize("release", [*DEBIANS, *RED_HATS])
def test_the_version_is_read(tmp_path: Path, release: str) -> None:
    assert repeating(tmp_path, release, "v.txt").version() == release.removeprefix("composed/").partition("-")[0]


@EVERY_DEBIAN
def test_debian_s_description_is_read(tmp_path: Path, release: str) -> None:
    program = repeating(tmp_path, release, "describe.txt")
    described = program.describe()
    run = described.run
    assert (str(run.root), str(run.document_root)) == ("/etc/apache2", "/var/www/html")
    assert run.error_log == Path("/var/log/apache2/error.log") and run.user == (33, 33)
    assert run.pid_file in (Path("/var/run/apache2/apache2.pid"), Path("/run/apache2/apache2.pid"))
    assert {"ssl_module", "status_module", "mpm_event_module", "core_module"} <= described.modules
    assert described.files[:2] == (program.main_config, Path("/etc/apache2/apache2.conf"))
    assert Path("/etc/apache2/mods-enabled/ssl.conf") in described.files
    assert described.files[-1] == Path("/etc/scalarizr/private.d/vhosts/www.example.com-8080.vhost.conf")
    assert len(described.files) == len(set(described.files))


def test_red_hat_s_description_is_read(tmp_path: Path) -> None:
    described = repeating(tmp_path, "composed/2.4.37-el8", "describe.txt", "conf/httpd.conf").describe()
    assert (described.run.pid_file, described.run.user) == (Path("/run/httpd/httpd.pid"), (48, 48))
    assert described.run.error_log == Path("/etc/httpd/logs/error_log")
    assert {path.name for path in described.files} >= {"00-ssl.conf", "ssl.conf", "welcome.conf", "httpd.conf"}


def test_red_hat_7_does_not_name_its_files_so_they_are_found(tmp_path: Path) -> None:
    program = repeating(tmp_path, "composed/2.4.6-el7", "describe.txt", "conf/httpd.conf")
    words = tmp_path / "words"
    words.write_text(words.read_text().replace("/etc/httpd", str(tmp_path / "etc")))
    (tmp_path / "etc" / "conf.d").mkdir()
    (tmp_path / "etc" / "conf.d" / "ssl.conf").write_text("Listen 443 https\n")
    program.main_config.write_text("Listen 80\nIncludeOptional conf.d/*.conf\n")
    assert program.describe().files == (program.main_config, tmp_path / "etc" / "conf.d" / "ssl.conf")


def test_a_log_that_is_no_file_is_none() -> None:
    text = 'ServerRoot: "/r"\nMain DocumentRoot: "/d"\nMain ErrorLog: "%s"\nPidFile: "logs/x.pid"\n'
    assert read_description(text % "|/bin/x", Path("/c")).run.error_log is None
    assert read_description(text % "syslog:local7", Path("/c")).run.error_log is None
    described = read_description(text % "logs/e", Path("/c"))
    assert described.run.error_log == Path("/r/logs/e") and described.run.pid_file == Path("/r/logs/x.pid")
    assert described.run.user is None and described.files == ()


@EVERY_DEBIAN
def test_an_invalid_configuration_is_told_in_its_words(tmp_path: Path, release: str) -> None:
    program = repeating(tmp_path, release, "test/unknown-directive.txt")
    with pytest.raises(OutsideFailure, match="Invalid command 'Nonsense'") as caught:
        program.describe()
    assert "Action '-t' failed" not in caught.value.message and "may have more" not in caught.value.message
    with pytest.raises(OutsideFailure, match="The configuration is not valid: AH00526: Syntax error on line 5"):
        program.refuse_invalid()


@EVERY_DEBIAN
def test_what_it_always_says_is_left_out(release: str) -> None:
    for mistake in ("none", "missing-document-root", "held-port"):
        _status, text = recording(release, f"test/{mistake}.txt")
        assert plain_words(Finished(0, text.encode(), b"")) == ""


WHY = {
    "listen-twice": "Cannot define multiple Listeners on the same IP:port",
    "held-port": "(98)Address already in use: AH00072: make_sock: could not bind to address 0.0.0.0:8090",
    "missing-log-directory": "Cannot access directory '/var/log/no-such-directory/' for log file",
    "missing-certificate": "file '/etc/scalarizr/private.d/keys/https_404.crt' does not exist or is empty",
    "certificate-that-is-none": "AH02562: Failed to configure certificate",
    "certificate-of-another-key": "do not match",
    "without-certificate": "AH02572: Failed to configure at least one certificate and key",
}


@EVERY_DEBIAN
@pytest.mark.parametrize("mistake", WHY)
def test_why_it_ended_is_found_in_its_log(release: str, mistake: str) -> None:
    lines = (RECORDED / release / "graceful" / f"{mistake}.txt").read_text().splitlines()
    assert lines.pop(0) == "ended"
    said = errors_in(["[Wed Nov 25 10:00:00 2026] [core:notice] [pid 7:tid 7] AH00094: Command line", *lines])
    assert WHY[mistake] in said and "pid" not in said and "notice" not in said and "AH00094" not in said


def test_the_reason_in_a_host_s_own_log_is_found(tmp_path: Path) -> None:
    main, own, old = tmp_path / "error_log", tmp_path / "ssl_error_log", tmp_path / "old_error.log"
    own.write_text("[Tue Nov 24 10:00:00 2026] [ssl:emerg] [pid 7:tid 7] AH02565: of yesterday\n")
    old.write_text("[Tue Nov 24 10:00:00 2026] [ssl:emerg] [pid 7:tid 7] AH02565: of yesterday\n")
    logs = ErrorLogs(main)
    assert logs.errors() == "" and ErrorLogs(None).errors() == ""
    main.write_text("AH00016: Configuration Failed\n")
    with own.open("a") as file:
        file.write("[Wed Nov 25 10:00:00 2026] [ssl:emerg] [pid 7:tid 7] AH02562: Failed to configure certificate\n")
        file.write("    a script's own words\n")
    assert logs.errors() == "AH02562: Failed to configure certificate AH00016: Configuration Failed"


@EVERY_DEBIAN
def test_processes_have_the_program_s_name(release: str) -> None:
    names = (RECORDED / release / "processes.txt").read_text().split()
    assert len(names) >= 2 and set(names) == {Path(DEBIAN.programs[0]).name}


def tree(directory: Path, *names: str) -> Path:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return directory


@pytest.mark.parametrize(
    ("names", "layout", "main"),
    [
        (["apache2.conf", "mods-available/ssl.load"], DEBIAN, "apache2.conf"),
        (["conf/httpd.conf"], RED_HAT, "conf/httpd.conf"),
        (["httpd.conf"], RED_HAT, "httpd.conf"),
    ],
)
def test_the_layout_is_found_by_looking(tmp_path: Path, names: list[str], layout: object, main: str) -> None:
    program = ApacheProgram(Apache(config_dir=tree(tmp_path, *names)))
    assert program.layout is layout and program.main_config == tmp_path / main
    assert program.is_private and program.is_debian == (layout is DEBIAN)


def test_red_hat_s_control_script_takes_no_arguments_so_the_program_is_asked(tmp_path: Path) -> None:
    etc = tree(tmp_path, "conf/httpd.conf", "envvars")
    program = ApacheProgram(Apache(config_dir=etc))
    command = program.command("-t")
    assert "ctl" not in str(command[0])
    assert command[1:] == ["-d", etc, "-f", etc / "conf" / "httpd.conf", "-t"]
    chosen = ApacheProgram(Apache(config_dir=etc, control=Path("/usr/sbin/my-control")))
    assert chosen.command("-t") == [Path("/usr/sbin/my-control"), "-t"]


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match=r"holds none of apache2\.conf, conf/httpd\.conf, httpd\.conf"):
        _ = ApacheProgram(Apache(config_dir=tmp_path)).layout


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ('OPTIONS="-D TRIAL -DOTHER"\n', ["-D", "TRIAL", "-D", "OTHER"]),
        ("# OPTIONS=-D NO\nLANG=C\nOPTIONS=-D TRIAL\n", ["-D", "TRIAL"]),
        ("OPTIONS='-c \"Define A b\"'\n", ["-c", "Define A b"]),
        ("OPTIONS=-D ONE\nOPTIONS=-D TWO\n", ["-D", "TWO"]),
        # Which files it reads is found by looking, and how it is started the agent's own business.
        ('OPTIONS="-f /srv/httpd.conf -k start -DFOREGROUND -DX -D"', ["-D", "X"]),
        ('OPTIONS="-D \'open"', ["-D", "'open"]),
        ("", []),
    ],
)
def test_what_red_hat_7_starts_its_service_with_is_read(tmp_path: Path, text: str, options: list[str]) -> None:
    (tmp_path / "sysconfig").mkdir()
    (tmp_path / "sysconfig" / "httpd").write_text(text)
    assert options_in(variables_beside(tmp_path / "httpd")) == options
    assert variables_beside(tmp_path / "elsewhere" / "httpd") == {}
