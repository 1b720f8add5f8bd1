"""The distribution's default site: taken out where it stands in a proxy's way, and only if nobody made a site of it."""

import logging
from pathlib import Path

import pytest

from scalarizr.changes.changes import Changes
from scalarizr.changes.history import revert
from scalarizr.errors import OutsideFailure
from scalarizr.nginx.default_sites import disable_default_sites
from scalarizr.nginx.syntax import parse

RELEASES = Path(__file__).parents[2] / "fixtures" / "nginx"
DEBIAN = (RELEASES / "1.26.3-debian-13" / "etc" / "nginx" / "sites-available" / "default").read_text()
NGINX_ORG = (RELEASES / "composed" / "1.28.0-nginx.org" / "etc" / "nginx" / "conf.d" / "default.conf").read_text()
SAYING_SO = [RELEASES / "composed" / name / "etc" / "nginx" / "nginx.conf" for name in ("1.12.2-el7", "1.14.1-el8")]
NOT_SAYING_SO = RELEASES / "composed" / "1.20.1-el9" / "etc" / "nginx" / "nginx.conf"
MAIN = "events {}\nhttp {\n    include conf.d/*.conf;\n    include sites-enabled/*;\n}\n"


class Tree:
    """nginx's directory, and changes of it for real."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "nginx"
        self.directory.mkdir()
        self.main = self.directory / "nginx.conf"
        self.main.write_text(MAIN)
        self.changes = Changes(directory / "state", logging.getLogger("test"))

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def files(self) -> dict[str, str]:
        paths = [path for path in sorted(self.directory.rglob("*")) if not path.is_dir() or path.is_symlink()]
        return {str(path.relative_to(self.directory)): path.read_text() for path in paths}

    def disable(self, *ports: int, default: tuple[int, ...] = ()) -> list[str]:
        with self.changes.transaction("nginx", "test") as transaction:
            gone = disable_default_sites(transaction, self.main, set(ports), set(default))
            transaction.apply()
        return gone


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_debian_s_link_goes_and_what_it_leads_to_stays(tree: Tree) -> None:
    available = tree.write("sites-available/default", DEBIAN)
    link = tree.directory / "sites-enabled" / "default"
    link.parent.mkdir()
    link.symlink_to("../sites-available/default")
    assert tree.disable(8080) == [] and link.is_symlink()
    assert tree.disable(80, 443) == [str(link)]
    assert not link.is_symlink() and available.read_text() == DEBIAN


def test_a_file_goes_where_no_include_reads_it_and_nothing_is_overwritten(tree: Tree) -> None:
    site = tree.write("sites-enabled/default", DEBIAN)
    site.chmod(0o640)
    tree.write("default.disabled", "somebody's\n")
    tree.disable(80)
    files = tree.files()
    # Debian includes all of sites-enabled.
    assert set(files) == {"nginx.conf", "default.disabled", "default.disabled.2"}
    assert files["default.disabled"] == "somebody's\n" and files["default.disabled.2"] == DEBIAN
    assert (tree.directory / "default.disabled.2").stat().st_mode & 0o777 == 0o640
    tree.write("conf.d/default.conf", DEBIAN)
    tree.disable(80)
    assert tree.files()["conf.d/default.conf.disabled"] == DEBIAN and "conf.d/default.conf" not in tree.files()


def test_all_of_them_go_at_once_and_come_back_with_a_revert(tree: Tree) -> None:
    tree.write("sites-enabled/default", DEBIAN)
    tree.write("conf.d/default.conf", DEBIAN)
    tree.main.write_text(SAYING_SO[0].read_text())
    before = tree.files()
    gone = tree.disable(80)
    assert [one.replace(f"{tree.directory}/", "") for one in gone] == [
        "sites-enabled/default",
        "conf.d/default.conf",
        "nginx.conf, lines 38 to 57,",
    ]
    (record,) = tree.changes.journal.history()
    revert(tree.changes, record.id, reload=False)
    assert tree.files() == before


@pytest.mark.parametrize("packaged", SAYING_SO, ids=lambda path: path.parents[2].name)
def test_red_hat_s_block_gets_a_mark_before_each_line_and_nothing_else_changes(tree: Tree, packaged: Path) -> None:
    text = packaged.read_text()
    tree.main.write_text(text)
    assert tree.disable(8080) == [] and tree.disable(443) == [] and tree.main.read_text() == text
    assert len(tree.disable(80)) == 1
    after = tree.main.read_text()
    lines = after.splitlines(keepends=True)
    note = next(line for line in lines if "stood in the way" in line)
    assert "".join(line.removeprefix("#scalarizr#") for line in lines if line != note) == text
    assert sum(line.startswith("#scalarizr#") for line in lines) == 20
    http = next(one for one in parse(after) if one.name == "http")
    assert not http.all("server") and len(http.all("include")) == 2
    assert tree.disable(80) == []


def test_a_person_takes_the_marks_off_and_the_block_stays(tree: Tree) -> None:
    tree.main.write_text(SAYING_SO[1].read_text())
    tree.disable(80)
    lines = tree.main.read_text().splitlines(keepends=True)
    tree.main.write_text("".join(line.removeprefix("#scalarizr#") for line in lines))
    text = tree.main.read_text()
    assert tree.disable(80) == [] and tree.main.read_text() == text


def test_one_that_is_the_default_without_saying_so_goes_for_the_default_proxy_alone(tree: Tree) -> None:
    tree.main.write_text(NOT_SAYING_SO.read_text())
    site = tree.write("conf.d/default.conf", NGINX_ORG)
    assert tree.disable(80, 8080) == [] and site.exists()
    assert len(tree.disable(80, 8080, default=(8080,))) == 0
    assert len(tree.disable(80, default=(80,))) == 2
    assert not site.exists() and "#scalarizr#        listen       [::]:80;" in tree.main.read_text()


INLINE = SAYING_SO[1].read_text()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("server_name  _;", "server_name  www.example.com;"),
        ("server_name  _;", "server_name  _ www.example.com;"),
        ("server_name  _;", "server_name  ~^www;"),
        ("        location / {\n", "        location / {\n            proxy_pass http://10.0.0.1;\n"),
        ("        location / {\n", "        location / {\n            return 301 https://$host$request_uri;\n"),
        ("        location / {\n", "        location /app {\n"),
        ("        location / {\n", "        location / {\n            auth_basic x;\n"),
        ("root         /usr/share/nginx/html;", "root         /srv/www;"),
        ("root         /usr/share/nginx/html;", "root         /usr/share/nginx/html;\n        access_log off;"),
        (
            "listen       80 default_server;",
            "listen       81 default_server;\n        listen 82;\n        ssl_certificate x;",
        ),
        ("    server {\n", "    server { "),
    ],
)
def test_what_a_person_made_of_red_hat_s_block_stays(tree: Tree, before: str, after: str) -> None:
    assert before in INLINE
    text = INLINE.replace(before, after, 1)
    tree.main.write_text(text)
    if after == "    server { ":
        # Still the package's, only written in another way.
        assert len(tree.disable(80)) == 1
        return
    assert tree.disable(80, 81, default=(80, 81)) == [] and tree.main.read_text() == text


def test_files_that_the_block_includes_make_it_somebody_s(tree: Tree) -> None:
    tree.main.write_text(INLINE.replace("/etc/nginx/default.d", "default.d"))
    php = tree.write("default.d/php.conf", "location ~ \\.php$ { fastcgi_pass unix:/run/php-fpm/www.sock; }\n")
    assert tree.disable(80) == []
    php.unlink()
    assert len(tree.disable(80)) == 1


@pytest.mark.parametrize(
    ("site", "goes"),
    [
        ("server { listen 80 default_server; }", True),
        ("server { listen 80 default; server_name localhost; return 404; }", True),
        ("server { listen [::]:80 default_server; listen 81; root /srv/x; }", True),
        ('server { listen 80 default_server; server_name ""; location / { return 200 hello; } }', True),
        ("server { listen 80 default_server; server_name www.example.com; }", False),
        ("server { listen 80 default_server; location / { proxy_pass http://a; } }", False),
        ("server { listen 80 default_server; location ~ .php$ { fastcgi_pass a; } }", False),
        ("server { listen 80 default_server; return 301 https://$host$request_uri; }", False),
        ("server { listen 80 default_server; return https://www.example.com; }", False),
        ("server { listen 80 default_server; listen 443 ssl; ssl_certificate a; }", False),
        ("server { listen 80 default_server; }\nserver { listen 80; server_name www.example.com; }", False),
        ("server { listen 80; root /srv/x; }", False),
        ("server { listen 81 default_server; }", False),
        ("server { listen 80 default_server;", False),
        ("", False),
    ],
)
def test_a_default_file_goes_unless_it_is_put_to_use(tree: Tree, site: str, goes: bool) -> None:
    path = tree.write("sites-enabled/default", site)
    tree.disable(80, default=(80,))
    assert path.exists() != goes


def test_other_files_and_other_servers_are_not_looked_at(tree: Tree) -> None:
    tree.write("conf.d/mine.conf", "server { listen 80 default_server; }\n")
    tree.main.write_text(
        "events {}\nhttp {\n    server {\n        listen 80;\n        server_name www.example.com;\n    }\n"
        "    server { listen 80 default_server; server_name _; } server { listen 81; server_name b.example.com; }\n}\n"
    )
    before = tree.files()
    assert tree.disable(80, default=(80,)) == [] and tree.files() == before


def test_a_main_configuration_that_cannot_be_read_is_told(tree: Tree) -> None:
    tree.main.write_text("http {\n")
    with pytest.raises(OutsideFailure, match="is not closed"):
        tree.disable(80)
