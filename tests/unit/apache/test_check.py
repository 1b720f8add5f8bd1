"""Apache's words told in the caller's: what releases said of each mistake, see tests/fixtures/apache/README.md.

The program here repeats a recording; the checking itself, with the planned file in its live place, is real.
"""

from pathlib import Path

import pytest

from scalarizr.apache.check import Checker, Source
from scalarizr.apache.program import ApacheProgram
from scalarizr.changes.journal import PlannedFile
from scalarizr.changes.live_file import FileState
from scalarizr.errors import Refused
from scalarizr.settings.model import Apache

RECORDED = Path(__file__).parents[2] / "fixtures" / "apache"
RELEASES = sorted(path.parent.name for path in RECORDED.glob("*/test"))
MISTAKES = sorted(path.stem for path in (RECORDED / "mistakes").glob("*.conf"))
HOST = Path("/etc/scalarizr/private.d/vhosts/www.example.com-8080.vhost.conf")
EVERY_RELEASE = pytest.mark.parametrize("release", RELEASES)
# The line of the virtual host's file, and Apache's words.
SAID = {
    "unknown-directive": (5, "Invalid command 'Nonsense', perhaps misspelled"),
    "number-of-arguments": (4, "ServerAdmin takes one argument"),
    "value-that-is-none": (4, "parameter must be 'on', 'off', or 'double'"),
    "directive-in-the-wrong-place": (4, "MaxRequestWorkers cannot occur within <VirtualHost> section"),
    "unclosed-section": (6, "Expected </Directory> but saw </VirtualHost>"),
    "section-closed-by-another-name": (5, "Expected </Directory> but saw </Location>"),
    "module-that-is-not-loaded": (4, "Invalid command 'ProxyPass', perhaps misspelled or defined by a module"),
    "tls-without-the-module": (4, "Invalid command 'SSLEngine'"),
    "missing-log-directory": (4, "Cannot access directory '/var/log/no-such-directory/' for log file"),
    "missing-error-log-directory": (1, "Cannot access directory '/var/log/no-such-directory/' for error log"),
    "missing-include": (4, "Could not open configuration file /etc/apache2/no-such-file"),
    "regular-expression": (4, "Regular expression could not be compiled"),
    "listen-twice": (1, "Cannot define multiple Listeners on the same IP:port"),
    "missing-certificate": (5, "file '/etc/scalarizr/private.d/keys/https_404.crt' does not exist or is empty"),
}
# Valid for Apache; it dies of some.
TAKEN = {
    "none",
    "missing-document-root",
    "held-port",
    "unknown-variable",
    "certificate-that-is-none",
    "certificate-of-another-key",
    "without-certificate",
}


def checker(directory: Path, release: str, mistake: str) -> Checker:
    """One whose Apache says what a release said."""
    status, _, words = (RECORDED / release / "test" / f"{mistake}.txt").read_text().partition("\n")
    (directory / "words").write_text(words)
    (directory / "etc").mkdir()
    (directory / "etc" / "apache2.conf").write_text("")
    program = directory / "apache-of-the-release"
    program.write_text(f'#!/bin/sh\ncat "{directory}/words" >&2\n{status}\n')
    program.chmod(0o755)
    apache = ApacheProgram(Apache(binary=program, config_dir=directory / "etc"))
    return Checker(apache, directory / "scratch", (directory / "etc", Path("/etc/apache2"), HOST.parent))


def planned(directory: Path) -> list[PlannedFile]:
    return [PlannedFile(directory / "etc" / "planned.conf", FileState(None), FileState(b"# planned\n"))]


def sources(mistake: str) -> dict[Path, Source]:
    """Every line as if it came from the template, five lines further down."""
    count = (RECORDED / "mistakes" / f"{mistake}.conf").read_text().count("\n")
    return {HOST: Source("vhosts[2] (www.example.com:8080)", "vhosts[2].template", tuple(range(6, 6 + count)), 2)}


def test_every_mistake_is_expected_to_be_something() -> None:
    assert set(MISTAKES) == set(SAID) | TAKEN | {"included-secret"}
    assert all((RECORDED / release / "test" / f"{name}.txt").exists() for release in RELEASES for name in MISTAKES)


@EVERY_RELEASE
@pytest.mark.parametrize("mistake", SAID)
def test_a_refusal_is_mapped_to_the_template_s_line(tmp_path: Path, release: str, mistake: str) -> None:
    with pytest.raises(Refused) as caught:
        checker(tmp_path, release, mistake).check(planned(tmp_path), sources(mistake))
    line, words = SAID[mistake]
    message, facts = caught.value.message, caught.value.facts
    assert message.startswith(
        f"In vhosts[2] (www.example.com:8080), vhosts[2].template, line {line + 5}: Apache says: "
    )
    assert words in message and message.endswith("Nothing was changed.") and "Action '-t' failed" not in message
    assert (facts["file"], facts["line"], facts["template_line"], facts["index"]) == (str(HOST), line, line + 5, 2)


@EVERY_RELEASE
@pytest.mark.parametrize("mistake", sorted(TAKEN))
def test_what_apache_takes_passes(tmp_path: Path, release: str, mistake: str) -> None:
    said = checker(tmp_path, release, mistake).check(planned(tmp_path), sources(mistake))
    assert ("NO_SUCH_VARIABLE" in said) == (mistake == "unknown-variable")


@EVERY_RELEASE
def test_text_of_other_files_is_not_shown(tmp_path: Path, release: str) -> None:
    with pytest.raises(Refused) as caught:
        checker(tmp_path, release, "included-secret").check(planned(tmp_path), sources("included-secret"))
    assert "swordfish" not in str(caught.value) and "swordfish" not in str(caught.value.facts)
    assert "Invalid command (not shown)" in caught.value.message


@pytest.mark.parametrize(
    "said",
    [
        "Syntax error on line 4 of HOST: Syntax error on line 1 of /root/secret: Expected </A> but saw </swordfish>",
        "Syntax error on line 4 of HOST: /root/secret:1: <swordfish> was not closed.",
    ],
)
def test_sections_of_other_files_are_not_shown(tmp_path: Path, said: str) -> None:
    looking = checker(tmp_path, RELEASES[0], "included-secret")
    (tmp_path / "words").write_text(
        f"apache2: Syntax error on line 9 of /etc/apache2/apache2.conf: {said}\n".replace("HOST", str(HOST))
    )
    with pytest.raises(Refused) as caught:
        looking.check(planned(tmp_path), sources("included-secret"))
    assert "swordfish" not in str(caught.value) and caught.value.facts["file"] == "/root/secret"
