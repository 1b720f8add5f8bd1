"""mod_ssl on and off, the way of each distribution."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from scalarizr.apache import tls_module
from scalarizr.apache.conditions import Conditions
from scalarizr.apache.description import Description, RunConfig
from scalarizr.apache.includes import included_files
from scalarizr.apache.program import ApacheProgram
from scalarizr.changes.changes import Changes
from scalarizr.changes.transaction import Transaction
from scalarizr.errors import NotConfigured, Refused
from scalarizr.settings.model import Apache

HTTPD = Path(__file__).parents[2] / "fixtures" / "apache" / "composed" / "2.4.37-el8" / "etc" / "httpd"
WITHOUT, WITH = frozenset({"core_module"}), frozenset({"core_module", "ssl_module"})


class Tree:
    """A configuration, and changes of it for real."""

    def __init__(self, directory: Path) -> None:
        self.etc = directory / "etc"
        self.changes = Changes(directory / "state", logging.getLogger("test"))

    @property
    def program(self) -> ApacheProgram:
        return ApacheProgram(Apache(config_dir=self.etc))

    def write(self, name: str, text: str = "") -> Path:
        path = self.etc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def files(self) -> dict[str, str]:
        paths = [path for path in sorted(self.etc.rglob("*")) if path.is_symlink() or path.is_file()]
        return {str(path.relative_to(self.etc)): path.read_text() for path in paths}

    def change(self, edit: Callable[[Transaction], object]) -> object:
        with self.changes.transaction("apache", "test") as transaction:
            result = edit(transaction)
            transaction.apply()
        return result

    def enable(self, modules: frozenset[str] = WITHOUT) -> object:
        return self.change(lambda transaction: tls_module.enable(transaction, self.program, modules))

    def disable(self, modules: frozenset[str] = WITH) -> object:
        run = RunConfig(self.etc, self.etc, None, self.etc / "pid", None)
        described = Description(run, included_files(self.program.main_config, self.etc, Conditions(modules)), modules)
        return self.change(lambda transaction: tls_module.disable(transaction, self.program, described))


@pytest.fixture
def debian(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path)
    tree.write("apache2.conf", "IncludeOptional mods-enabled/*.load\nIncludeOptional mods-enabled/*.conf\n")
    load = "# Depends: setenvif mime socache_shmcb\nLoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so\n"
    tree.write("mods-available/ssl.load", load)
    for name in ("ssl.conf", "socache_shmcb.load", "setenvif.load", "setenvif.conf", "mime.load", "mime.conf"):
        tree.write(f"mods-available/{name}", f"# {name}\n")
    tree.write("mods-enabled/mime.load", "# somebody's own\n")
    return tree


@pytest.fixture
def red_hat(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path)
    shutil.copytree(HTTPD, tree.etc)
    tree.write("modules/mod_ssl.so")
    return tree


def test_debian_gets_the_links_that_a2enmod_makes_and_loses_two(debian: Tree) -> None:
    assert debian.enable() == WITH
    enabled = debian.etc / "mods-enabled"
    assert {path.name: os.readlink(path) for path in enabled.iterdir() if path.is_symlink()} == {
        name: f"../mods-available/{name}"
        for name in ("ssl.load", "ssl.conf", "socache_shmcb.load", "setenvif.load", "setenvif.conf", "mime.conf")
    }
    assert (enabled / "mime.load").read_text() == "# somebody's own\n"
    before = debian.files()
    assert debian.enable(WITH) == WITH and debian.files() == before
    debian.disable()
    assert not (enabled / "ssl.load").is_symlink() and not (enabled / "ssl.conf").is_symlink()
    assert (enabled / "socache_shmcb.load").is_symlink() and (debian.etc / "mods-available" / "ssl.load").exists()
    debian.disable(WITHOUT)


def test_where_it_is_not_installed_that_is_told(debian: Tree) -> None:
    (debian.etc / "mods-available" / "ssl.load").unlink()
    with pytest.raises(NotConfigured, match="Nothing was changed"):
        debian.enable()


def test_red_hat_needs_the_package(red_hat: Tree) -> None:
    (red_hat.etc / "modules" / "mod_ssl.so").unlink()
    (red_hat.etc / "conf.modules.d" / "00-ssl.conf").unlink()
    with pytest.raises(NotConfigured, match="install the package mod_ssl"):
        red_hat.enable()


def test_red_hat_s_module_and_its_default_host_go_and_come_together(red_hat: Tree) -> None:
    before = red_hat.files()
    red_hat.disable()
    after = red_hat.files()
    assert after.pop("conf.d/ssl.conf.disabled") == before["conf.d/ssl.conf"]
    assert after.pop("conf.modules.d/00-ssl.conf") == "#LoadModule ssl_module modules/mod_ssl.so\n"
    assert after == {name: text for name, text in before.items() if not name.endswith("ssl.conf")}
    assert red_hat.enable() == WITH
    assert red_hat.files() == before


def test_red_hat_s_file_is_written_where_only_the_module_is_there(red_hat: Tree) -> None:
    (red_hat.etc / "conf.modules.d" / "00-ssl.conf").unlink()
    (red_hat.etc / "conf.d" / "ssl.conf").unlink()
    red_hat.enable()
    assert red_hat.files()["conf.modules.d/00-ssl.conf"] == "LoadModule ssl_module modules/mod_ssl.so\n"
    assert "conf.d/ssl.conf" not in red_hat.files()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("#ServerName www.example.com:443", "ServerName www.example.com:443"),
        ('#DocumentRoot "/var/www/html"', 'DocumentRoot "/srv/www"'),
        ("/etc/pki/tls/certs/localhost.crt", "/etc/pki/tls/certs/www.example.com.crt"),
        ("SSLEngine on\n", "SSLEngine on\nProxyPass / http://10.0.0.1/\n"),
        ("</VirtualHost>", "</VirtualHost>\n<VirtualHost *:443>\nServerName b\n</VirtualHost>"),
        ("Listen 443 https", "Listen 443 https\nAlias /x /srv/x"),
        ("</VirtualHost>", ""),
    ],
)
def test_a_default_host_that_somebody_uses_is_left_alone(red_hat: Tree, before: str, after: str) -> None:
    site = red_hat.etc / "conf.d" / "ssl.conf"
    assert before in site.read_text()
    site.write_text(site.read_text().replace(before, after, 1))
    assert red_hat.change(lambda one: tls_module.untouched_default_host(one, red_hat.program)) is None
    red_hat.disable()
    assert site.exists()


def test_it_is_the_package_s_as_long_as_only_its_values_differ(red_hat: Tree) -> None:
    site = red_hat.etc / "conf.d" / "ssl.conf"
    site.write_text(
        site.read_text().replace("443", "8443").replace("#SSLProtocol all -SSLv3", "SSLProtocol all -SSLv3")
    )
    assert red_hat.change(lambda one: tls_module.untouched_default_host(one, red_hat.program)) == site


def test_a_module_that_is_loaded_elsewhere_is_not_said_to_be_off(red_hat: Tree, tmp_path: Path) -> None:
    own = red_hat.write("conf.d/mine.conf", "  LoadModule ssl_module modules/mod_ssl.so\n")
    before = red_hat.files()
    with pytest.raises(Refused, match=f"mod_ssl is loaded in {own}"):
        red_hat.disable()
    assert red_hat.files() == before
    own.unlink()
    (red_hat.etc / "conf.modules.d" / "00-ssl.conf").unlink()
    (red_hat.etc / "conf.d" / "ssl.conf").unlink()
    with pytest.raises(Refused, match="a part of Apache itself"):
        red_hat.disable()


def test_one_that_debian_loads_elsewhere_is_not_said_to_be_off(debian: Tree) -> None:
    debian.enable()
    main = debian.etc / "apache2.conf"
    main.write_text(main.read_text() + "LoadModule ssl_module /opt/mod_ssl.so\n")
    with pytest.raises(Refused, match=r"apache2\.conf, a place of somebody's own"):
        debian.disable()
    assert (debian.etc / "mods-enabled" / "ssl.load").is_symlink()
