"""nginx's words told in the caller's: what recorded releases said of each mistake, see tests/fixtures/nginx/README.md.

The program here repeats a recording; the checking itself, with the planned file in its live place, is real.
"""

from pathlib import Path

import pytest

from scalarizr.changes.journal import PlannedFile
from scalarizr.changes.live_file import FileState
from scalarizr.errors import Refused
from scalarizr.nginx.check import Checker, new_ports, ports_in
from scalarizr.nginx.document import Document, Origin
from scalarizr.nginx.program import NginxProgram
from scalarizr.settings.model import Nginx

RECORDED = Path(__file__).parents[2] / "fixtures" / "nginx"
RELEASES = sorted(path.parent.name for path in RECORDED.glob("*/test"))
MISTAKES = sorted(path.stem for path in (RECORDED / "mistakes").glob("*.include"))
PROXIES = Path("/etc/nginx/proxies.include")
EVERY_RELEASE = pytest.mark.parametrize("release", RELEASES)
# What one sees without looking at the caller's parameters: the mistake's line, and nginx's word for it.
SAID = {
    "unknown-directive": (23, 'unknown directive "nonsense"'),
    "number-of-arguments": (22, 'invalid number of arguments in "expires" directive'),
    "directive-in-the-wrong-place": (22, '"worker_processes" directive is not allowed here'),
    "value-that-is-none": (21, '"client_max_body_size" directive invalid value'),
    "host-not-found-in-upstream": (10, 'host not found in upstream "no-such-host.invalid:80"'),
    "host-not-found-in-proxy-pass": (22, 'host not found in upstream "no-such-host.invalid"'),
    "duplicate-upstream": (9, 'duplicate upstream "a.example.com"'),
    "upstream-without-servers": (10, "no servers are inside upstream"),
    "duplicate-location": (24, 'duplicate location "/"'),
    "duplicate-default-server": (19, "a duplicate default server for 0.0.0.0:8080"),
    "duplicate-listen": (12, "a duplicate listen 0.0.0.0:8080"),
    "listen-options-twice": (19, "duplicate listen options for 0.0.0.0:8080"),
    "port-out-of-range": (11, 'invalid port in "80800" of the "listen" directive'),
    "missing-certificate": (0, 'cannot load certificate "/etc/scalarizr/private.d/keys/nginx-https_404.crt"'),
    "certificate-that-is-none": (0, "PEM_read_bio_X509_AUX() failed"),
    "certificate-of-another-key": (0, "key values mismatch"),
    "no-certificate": (18, 'no "ssl_certificate" is defined for the "listen ... ssl" directive'),
    "ssl-and-plain-on-one-port": (10, 'no "ssl_certificate" is defined'),
    "ciphers-that-are-none": (0, 'SSL_CTX_set_cipher_list("NONSENSE") failed'),
    "regular-expression": (21, "_compile() failed: missing "),
    "unknown-variable": (0, 'unknown "nope" variable'),
    "names-too-long-for-the-table": (0, "could not build server_names_hash, you should increase"),
    "unclosed-block": (23, "unexpected end of file"),
    "closed-too-often": (17, 'unexpected "}"'),
    "unclosed-quote": (25, "unexpected end of file"),
    "missing-include": (21, 'open() "/etc/nginx/no-such-file" failed (2: No such file or directory)'),
    "missing-log-directory": (0, 'open() "/var/log/no-such-directory/a.log" failed (2: No such file or directory)'),
}
# Valid for nginx; some with a warning, which a dry run shows.
WARNED = {
    "none": "",
    "held-port": "",
    "names-too-many-for-the-table": "could not build optimal server_names_hash",
    "stapling-without-issuer": '"ssl_stapling" ignored, issuer certificate not found',
    "http2-in-listen": "",
}
BY_RELEASE = {"http2-directive", "ssl-directive", "http2-in-listen"}
OTHER = {"conflicting-server-name", "included-secret"}


class Repeating:
    """A checker whose nginx says what a release said where the planned file is there, and nothing of the live ones."""

    def __init__(self, directory: Path, release: str, mistake: str) -> None:
        self.directory = directory
        status, _, words = (RECORDED / release / "test" / f"{mistake}.txt").read_text().partition("\n")
        (directory / "words").write_text(words)
        (directory / "etc").mkdir()
        (directory / "etc" / "nginx.conf").write_text("events {}\nhttp {}\n")
        program = directory / "nginx-of-the-release"
        program.write_text(
            f'#!/bin/sh\nif [ "$1" = -V ]; then exec cat "{RECORDED / release}/V.txt" >&2; fi\n'
            'while [ "$1" != -c ]; do shift; done\n'
            f'if [ -e "${{2%/*}}/planned" ]; then cat "{directory}/words" >&2; {status}; fi\n'
        )
        program.chmod(0o755)
        nginx = NginxProgram(Nginx(binary=program, config_dir=directory / "etc"))
        self.checker = Checker(nginx, directory / "scratch", (PROXIES.parent, Path("/etc/scalarizr/private.d/keys")))
        self.planned = PlannedFile(directory / "etc" / "planned", FileState(None), FileState(b"# planned\n"))

    def check(self, *documents: Document) -> str:
        return self.checker.check([self.planned], documents)

    def refusal(self, *documents: Document) -> Refused:
        with pytest.raises(Refused) as caught:
            self.check(*documents)
        assert caught.value.message.endswith("Nothing was changed.") or "Nothing was changed;" in caught.value.message
        return caught.value


def document(mistake: str) -> Document:
    """The planned file, every line of its second server as if it came from a template."""
    text = (RECORDED / "mistakes" / f"{mistake}.include").read_text()
    try:
        made = Document(str(PROXIES), text)
    except Exception:
        # One that the agent itself would never plan.
        return Document(str(PROXIES), "")
    for block in made.of("server")[1:]:
        where = block.text[: block.start].count("\n")
        block.origins = tuple(
            Origin("proxy_list[1] (b.example.com)", "proxy_list[1].templates[0].content", line + 1)
            if line >= where
            else None
            for line in range(block.text.count("\n"))
        )
    return made


def test_every_mistake_is_expected_to_be_something() -> None:
    assert set(MISTAKES) == set(SAID) | set(WARNED) | BY_RELEASE | OTHER
    assert all((RECORDED / release / "test" / f"{name}.txt").exists() for release in RELEASES for name in MISTAKES)


@EVERY_RELEASE
@pytest.mark.parametrize("mistake", SAID)
def test_a_refusal_has_nginx_s_words_and_its_place(tmp_path: Path, release: str, mistake: str) -> None:
    refused = Repeating(tmp_path, release, mistake).refusal()
    line, words = SAID[mistake]
    assert words in refused.message and "[emerg]" not in refused.message and "test failed" not in refused.message
    expected = {"file": str(PROXIES), "line": line} if line else {}
    assert {name: refused.facts.get(name) for name in expected} == expected


@EVERY_RELEASE
@pytest.mark.parametrize(
    "mistake", ["unknown-directive", "number-of-arguments", "duplicate-location", "regular-expression"]
)
def test_a_line_is_mapped_to_the_template_s(tmp_path: Path, release: str, mistake: str) -> None:
    planned = document(mistake)
    refused = Repeating(tmp_path, release, mistake).refusal(planned)
    origin = planned.origin(SAID[mistake][0])
    assert origin is not None and origin.line > 1
    assert refused.message.startswith(f"In {origin.proxy}, {origin.parameter}, line {origin.line}: nginx says: ")
    assert refused.facts["template_line"] == origin.line and refused.facts["parameter"] == origin.parameter
    assert "proxies.include" not in refused.message


@EVERY_RELEASE
@pytest.mark.parametrize("mistake", WARNED)
def test_what_nginx_takes_passes_with_its_warnings(tmp_path: Path, release: str, mistake: str) -> None:
    assert WARNED[mistake] in Repeating(tmp_path, release, mistake).check(document(mistake))


@EVERY_RELEASE
def test_what_changed_between_releases_is_told_as_the_release_does(tmp_path: Path, release: str) -> None:
    new = tuple(map(int, release.partition("-")[0].split("."))) >= (1, 25, 1)
    for number, mistake in enumerate(sorted(BY_RELEASE)):
        (tmp_path / str(number)).mkdir()
        repeating = Repeating(tmp_path / str(number), release, mistake)
        if (mistake == "ssl-directive") == new and mistake != "http2-in-listen":
            assert "unknown directive" in repeating.refusal().message
        else:
            said = repeating.check()
            assert ("deprecated" in said) == (mistake == "ssl-directive" or (mistake == "http2-in-listen" and new))


@EVERY_RELEASE
def test_a_name_that_nginx_would_ignore_is_refused(tmp_path: Path, release: str) -> None:
    refused = Repeating(tmp_path, release, "conflicting-server-name").refusal(document("conflicting-server-name"))
    assert "a.example.com is claimed on 0.0.0.0:8080" in refused.message
    assert refused.facts["hostname"] == "a.example.com" and refused.facts["port"] == "8080"


@EVERY_RELEASE
def test_text_of_other_files_is_not_shown(tmp_path: Path, release: str) -> None:
    refused = Repeating(tmp_path, release, "included-secret").refusal(document("included-secret"))
    assert "swordfish" not in str(refused) and "swordfish" not in str(refused.facts)
    assert "unknown directive (not shown) in /root/secret:1" in refused.message


def test_ports_are_those_that_come_new() -> None:
    old, new = b"server {\n  listen 80;\n}\n", b"server {\n  listen 80;\n\tlisten [::]:8443 ssl;\n listen unix:/a;\n}\n"
    assert ports_in(new) == {80, 8443} and ports_in(b"# listen 81;\n") == set()
    file = PlannedFile(PROXIES, FileState(old), FileState(new))
    assert new_ports([file]) == {8443} and new_ports([PlannedFile(PROXIES, FileState(new), FileState(old))]) == set()
