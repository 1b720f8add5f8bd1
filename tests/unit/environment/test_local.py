"""The environment from files: what is read, read again, and told of mistakes."""

import os
from pathlib import Path

import pytest

from scalarizr.environment.local import LocalFiles
from scalarizr.environment.source import Metric, Server, VirtualHost
from scalarizr.errors import InvalidParameter, NotFound, OutsideFailure

ROLES = """
[roles.1234]                       # the farm_role_id
name = "app-frontend"
behaviours = ["app"]
servers = [
  { private = "10.0.0.11", public = "203.0.113.11", cloud_location = "us-east-1" },
  { private = "127.0.0.1:8001" },
]

[roles."5678"]
"""


@pytest.fixture
def local(tmp_path: Path) -> LocalFiles:
    (tmp_path / "certificates").mkdir()
    return LocalFiles(tmp_path)


def test_roles(local: LocalFiles, tmp_path: Path) -> None:
    assert local.roles() == []
    (tmp_path / "roles.toml").write_text(ROLES)
    role = local.role("1234")
    assert (role.name, role.behaviours) == ("app-frontend", ("app",))
    assert role.servers == (
        Server(private="10.0.0.11", public="203.0.113.11", cloud_location="us-east-1"),
        Server(private="127.0.0.1:8001"),
    )
    assert local.role(5678).servers == ()  # type: ignore[arg-type]  # as control planes send ids
    with pytest.raises(NotFound, match="no role 9"):
        local.role("9")


def test_metrics_and_virtual_hosts(local: LocalFiles, tmp_path: Path) -> None:
    (tmp_path / "metrics.toml").write_text(
        '[[metrics]]\nid = 101011\nname = "queue.length"\npath = "/usr/local/bin/q"\nretrieve_method = "execute"\n'
    )
    assert local.metrics() == [
        Metric(id=101011, name="queue.length", path="/usr/local/bin/q", retrieve_method="execute")
    ]
    (tmp_path / "www.conf").write_text("<VirtualHost *:80>\n</VirtualHost>\n")
    (tmp_path / "virtual_hosts.toml").write_text(
        '[[virtual_hosts]]\nhostname = "www.example.com"\ntemplate_file = "www.conf"\n'
        '[[virtual_hosts]]\nhostname = "b"\nport = 443\nssl = true\ntemplate = """x"""\nssl_certificate_id = 410\n'
    )
    assert local.virtual_hosts() == [
        VirtualHost(hostname="www.example.com", template="<VirtualHost *:80>\n</VirtualHost>\n"),
        VirtualHost(hostname="b", port=443, ssl=True, template="x", ssl_certificate_id="410"),
    ]


def test_a_file_is_read_again_when_it_changed(local: LocalFiles, tmp_path: Path) -> None:
    path = tmp_path / "roles.toml"
    path.write_text("[roles.1]\n")
    assert [role.id for role in local.roles()] == ["1"]
    path.write_text("[roles.1]\n[roles.2]\n")
    assert [role.id for role in local.roles()] == ["1", "2"]
    before = path.stat()
    replacement = tmp_path / "new"
    replacement.write_text("[roles.1]\n[roles.3]\n")
    os.utime(replacement, ns=(before.st_atime_ns, before.st_mtime_ns))
    replacement.rename(path)
    assert [role.id for role in local.roles()] == ["1", "3"]
    path.unlink()
    assert local.roles() == []


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("roles.toml", "[roles.1]\nname = \n", r"roles\.toml, line 2: is not TOML"),
        ("roles.toml", "[roles.1]\n\nname = 5\n", r"line 3: name: got 5, expected text"),
        ("roles.toml", "[roles.1]\nbehaviour = ['app']\n", r"line 2: behaviour: .*behaviours, perhaps"),
        ("roles.toml", "[roles.1]\nservers = [{ private = 1 }]\n", r"line 2: private: got 1, expected text"),
        ("roles.toml", "[roles.1]\nservers = ['10.0.0.1']\n", r"line 2: servers: .*expected tables"),
        ("roles.toml", "[rolls.1]\n", r"rolls: .*expected roles"),
        ("metrics.toml", "[[metrics]]\nid = 1\n", r"line 1: name: got nothing"),
        (
            "metrics.toml",
            '[[metrics]]\nid=1\nname="a"\npath="/a"\nretrieve_method="read"\n\n[[metrics]]\nid="x"\nname="b"\n',
            r"line 8: id: got 'x', expected a whole number",
        ),
        (
            "metrics.toml",
            '[[metrics]]\nid=1\nname="a"\npath="/a"\nretrieve_method="guess"\n',
            r'line 5: retrieve_method: got \'guess\', expected "execute" or "read"',
        ),
        ("metrics.toml", "metrics = 5\n", r"line 1: metrics: .*\[\[metrics\]\]"),
        ("virtual_hosts.toml", "[[virtual_hosts]]\nport = 80\n", r"line 1: hostname: got nothing"),
        ("virtual_hosts.toml", "[[virtual_hosts]]\nhostname='a'\ntemplate_file='../x'\n", r"template_file: .*below"),
        ("virtual_hosts.toml", "[[virtual_hosts]]\nhostname='a'\ntemplate_file='x'\n", r"x, which .*line 1 names"),
        ("virtual_hosts.toml", "[[virtual_hosts]]\nhostname='a'\ntemplate_file='x'\ntemplate='y'\n", r"one of the two"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_key(
    local: LocalFiles, tmp_path: Path, file: str, text: str, words: str
) -> None:
    (tmp_path / file).write_text(text)
    read = {"roles.toml": local.roles, "metrics.toml": local.metrics, "virtual_hosts.toml": local.virtual_hosts}[file]
    with pytest.raises((OutsideFailure, NotFound), match=words):
        read()


def test_certificates(local: LocalFiles, tmp_path: Path) -> None:
    for name in ("410.crt", "410.key", "410.ca", "default.crt", "default.key"):
        (tmp_path / "certificates" / name).write_text(f"PEM of {name}")
    found = local.certificate("410")
    assert (found.certificate, found.key.reveal(), found.chain) == ("PEM of 410.crt", "PEM of 410.key", "PEM of 410.ca")
    assert "PEM of 410.key" not in repr(found)
    assert local.certificate(None).chain is None
    with pytest.raises(NotFound, match=r"411\.crt"):
        local.certificate("411")
    for identity in ("../410", "", "a/b", "a.b", "x" * 65):
        with pytest.raises(InvalidParameter):
            local.certificate(identity)


def test_a_link_out_of_the_directory_is_not_followed(tmp_path: Path) -> None:
    inside = tmp_path / "environment"
    inside.mkdir()
    (tmp_path / "secret").write_text("secret")
    (inside / "link.conf").symlink_to(tmp_path / "secret")
    (inside / "virtual_hosts.toml").write_text("[[virtual_hosts]]\nhostname='a'\ntemplate_file='link.conf'\n")
    with pytest.raises(OutsideFailure, match="below"):
        LocalFiles(inside).virtual_hosts()


def test_a_file_that_is_too_large_or_no_text_is_refused(local: LocalFiles, tmp_path: Path) -> None:
    (tmp_path / "roles.toml").write_bytes(b"# " + b"x" * (1 << 20))
    with pytest.raises(OutsideFailure, match="larger than 1 MiB"):
        local.roles()
    (tmp_path / "roles.toml").write_bytes(b"\n\n# \xff\n")
    with pytest.raises(OutsideFailure, match="line 3: is not UTF-8"):
        local.roles()
