"""The configuration as a whole: its files, its ports, its virtual hosts."""

import logging
from pathlib import Path

import msgspec
import pytest

from scalarizr.apache.conditions import Conditions
from scalarizr.apache.configuration import listen_ports_of, listening_ports, served_files
from scalarizr.apache.description import Description, RunConfig
from scalarizr.apache.includes import included_files
from scalarizr.apache.program import ApacheProgram
from scalarizr.apache.syntax import BadSyntax, parse
from scalarizr.changes.changes import Changes
from scalarizr.settings.model import Apache

RECORDED = Path(__file__).parents[2] / "fixtures" / "apache"
HTTPD = RECORDED / "composed" / "2.4.37-el8" / "etc" / "httpd"


@pytest.mark.parametrize("release", sorted(path.parent.name for path in RECORDED.glob("*/hosts.txt")))
def test_served_hosts_are_those_that_apache_names(tmp_path: Path, release: str) -> None:
    program = tmp_path / "apache-of-the-release"
    program.write_text(f"#!/bin/sh\nsed 1d '{RECORDED / release}/hosts.txt'\n")
    program.chmod(0o755)
    (tmp_path / "apache2.conf").write_text("")
    served = served_files(ApacheProgram(Apache(binary=program, config_dir=tmp_path)))
    assert served == [
        "/etc/apache2/sites-enabled/000-default.conf",
        "/etc/scalarizr/private.d/vhosts/www.example.com-8080.vhost.conf",
    ]


SEVERAL = """\
VirtualHost configuration:
*:80                   is a NameVirtualHost
         default server a.example.com (/v/a.example.com-80.vhost.conf:1)
         port 80 namevhost a.example.com (/v/a.example.com-80.vhost.conf:1)
                 alias b.example.com
         port 80 namevhost c.example.com (/v/c d.conf:12)
*:443                  s.example.com (/v/s.conf:3)
ServerRoot: "/etc/apache2"
"""


def test_several_hosts_on_a_port_are_all_found(tmp_path: Path) -> None:
    program = tmp_path / "apache"
    (tmp_path / "said").write_text(SEVERAL)
    program.write_text(f"#!/bin/sh\ncat '{tmp_path}/said'\n")
    program.chmod(0o755)
    (tmp_path / "apache2.conf").write_text("")
    served = served_files(ApacheProgram(Apache(binary=program, config_dir=tmp_path)))
    assert served == ["/v/a.example.com-80.vhost.conf", "/v/c d.conf", "/v/s.conf"]


def ports(
    directory: Path,
    *modules: str,
    new: str = "",
    gone: str = "",
    leave_out: str = "",
    defines: tuple[str, ...] = (),
    version: str = "",
) -> set[int]:
    files = tuple(sorted(path for path in directory.rglob("*.conf")))
    run = RunConfig(directory, directory, None, directory / "pid", None)
    described = Description(run, files, frozenset(modules), frozenset(defines), version)
    changes = Changes(directory / "state", logging.getLogger("test"))
    with changes.transaction("apache", "test") as transaction:
        if new:
            transaction.write(directory / "new.conf", new.encode())
        if gone:
            transaction.unlink(directory / gone)
        return listening_ports(
            described,
            transaction,
            frozenset(modules),
            leave_out=frozenset({directory / leave_out} if leave_out else ()),
        )


def test_ports_are_those_of_the_conditions_that_hold(tmp_path: Path) -> None:
    (tmp_path / "ports.conf").write_text(
        "Listen 80\n#Listen 81\nListen 127.0.0.1:82\nListen [::]:83 http\n"
        "<IfModule ssl_module>\n  Listen 443\n</IfModule>\n<IfModule mod_gnutls.c>\nListen 444\n</IfModule>\n"
        "<IfModule !mod_ssl.c>\n  Listen 8443\n</IfModule>\n<IfDefine X>\nListen 84\n</IfDefine>\n"
    )
    (tmp_path / "broken.conf").write_text("<VirtualHost *:85>\nListen 85\n")
    assert ports(tmp_path) == {80, 82, 83, 8443}
    assert ports(tmp_path, "ssl_module") == {80, 82, 83, 443}
    assert ports(tmp_path, leave_out="ports.conf") == set()


def test_a_file_that_comes_beside_others_counts_and_one_that_goes_does_not(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text("Listen 80\n")
    assert ports(tmp_path, new="Listen 443 https\n") == {80, 443}
    assert ports(tmp_path, gone="a.conf") == set()


def test_the_ports_of_one_text() -> None:
    assert listen_ports_of("Listen 80\nlisten 10.0.0.1:81\n") == {80, 81}
    with pytest.raises(BadSyntax):
        listen_ports_of("</X>")


def test_red_hat_s_files_are_found_in_the_order_in_which_they_are_read() -> None:
    files = included_files(HTTPD / "conf" / "httpd.conf", HTTPD, Conditions())
    assert [str(path.relative_to(HTTPD)) for path in files] == [
        "conf/httpd.conf",
        "conf.modules.d/00-base.conf",
        "conf.modules.d/00-mpm.conf",
        "conf.modules.d/00-proxy.conf",
        "conf.modules.d/00-ssl.conf",
        "conf.d/autoindex.conf",
        "conf.d/ssl.conf",
        "conf.d/userdir.conf",
        "conf.d/welcome.conf",
    ]


def test_includes_are_followed_as_apache_follows_them(tmp_path: Path) -> None:
    main = tmp_path / "conf" / "httpd.conf"
    for name, text in {
        "conf/httpd.conf": "Include 'a b.conf'\nIncludeOptional none/*.conf\n<IfModule ssl_module>\nInclude s.conf\n"
        "</IfModule>\nInclude dir\nInclude */part.conf\nInclude conf/httpd.conf\n",
        "a b.conf": f"Include {tmp_path}/inner.conf\n",
        "inner.conf": "# Include s.conf\n",
        "s.conf": "Listen 443\n",
        "dir/b": "",
        "dir/a/deep.conf": "",
        "sub/part.conf": "<Broken\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def found(*modules: str) -> list[str]:
        return [
            str(path.relative_to(tmp_path)) for path in included_files(main, tmp_path, Conditions(frozenset(modules)))
        ]

    inner = ["a b.conf", "inner.conf"]
    assert found() == ["conf/httpd.conf", *inner, "dir/b", "dir/a/deep.conf", "sub/part.conf"]
    assert found("ssl_module")[3] == "s.conf"


def test_conditions() -> None:
    text = "<IfModule ssl_module>\n<IfDefine !X>\nA\n</IfDefine>\n</IfModule>\n<VirtualHost *:80>\nB\n</VirtualHost>\n"
    directives = {one.name: one for one in parse(text)}
    with_tls = Conditions(frozenset({"ssl_module"}))
    assert with_tls.hold_around(directives["A"]) and not Conditions().hold_around(directives["A"])
    assert not msgspec.structs.replace(with_tls, defines=frozenset({"X"})).hold_around(directives["A"])
    assert Conditions().hold_around(directives["B"])


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("2.4.62", True),
        ("2.4", False),  # 2.4.0
        (">= 2.4", True),
        ("> 2.4.62", False),
        ("<= 2.4.62", True),
        ("< 2.4.7", False),
        ("!>= 2.5", True),
        ("! < 2.5", False),
        ("= /^2\\.4\\./", True),
        ("~ ^2\\.2", False),
        ("!~ ^2\\.2", True),
    ],
)
def test_conditions_on_the_version(condition: str, *, holds: bool) -> None:
    *_sections, directive = parse(f"<IfVersion {condition}>\nListen 80\n</IfVersion>\n")
    assert Conditions(version="2.4.62").hold_around(directive) is holds
    assert Conditions().hold_around(directive), "where the version is not known"


def test_ports_below_what_is_defined_count(tmp_path: Path) -> None:
    (tmp_path / "ports.conf").write_text(
        "<IfDefine X>\nListen 84\n</IfDefine>\n<IfDefine !X>\nListen 85\n</IfDefine>\n"
        "<IfVersion >= 2.4>\n<IfDefine Y>\nListen 86\n</IfDefine>\nListen 87\n</IfVersion>\n"
    )
    assert ports(tmp_path, defines=("X",)) == {84, 87}
    assert ports(tmp_path, defines=("Y",), version="2.4.6") == {85, 86, 87}
    assert ports(tmp_path, version="2.2.34") == {85}
