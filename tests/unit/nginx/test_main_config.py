"""The main configuration: the managed files are included, once, and nothing else is touched."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from scalarizr.changes.changes import Changes
from scalarizr.changes.transaction import Transaction
from scalarizr.errors import OutsideFailure
from scalarizr.nginx.main_config import http_block, include_managed_files, is_included, listening_port
from scalarizr.nginx.syntax import parse

RELEASES = Path(__file__).parents[2] / "fixtures" / "nginx"
PACKAGED = sorted(RELEASES.rglob("etc/nginx/nginx.conf"))


class Editor:
    """Changes of files below a directory, for real."""

    def __init__(self, directory: Path) -> None:
        self.main = directory / "nginx" / "nginx.conf"
        self.main.parent.mkdir()
        self.changes = Changes(directory / "state", logging.getLogger("test"))

    def change(self, edit: Callable[[Transaction], object]) -> str:
        """Gives the change's id, empty where nothing changed."""
        with self.changes.transaction("nginx", "test") as transaction:
            edit(transaction)
            record = transaction.apply()
        return record.id if record else ""

    def include(self, *names: str) -> str:
        paths = [self.main.parent / name for name in names]
        return self.change(lambda transaction: include_managed_files(transaction, self.main, paths))


@pytest.fixture
def editor(tmp_path: Path) -> Editor:
    return Editor(tmp_path)


@pytest.mark.parametrize("packaged", PACKAGED, ids=lambda path: path.parents[2].name)
def test_every_package_s_file_gets_three_lines_and_a_note_at_the_end_of_http(editor: Editor, packaged: Path) -> None:
    editor.main.write_bytes(packaged.read_bytes())
    editor.include("a.include", "b.include")
    before, after = packaged.read_text().splitlines(), editor.main.read_text().splitlines()
    added = [line for line in after if line not in before]
    assert [line for line in after if line not in added] == before and len(added) == 3
    http = http_block(editor.main.read_text(), editor.main)
    assert [one.words[1] for one in http.children[-2:]] == [
        str(editor.main.parent / f"{name}.include") for name in "ab"
    ]
    assert editor.include("a.include", "b.include") == ""
    editor.include("a.include", "c.include")
    assert editor.main.read_text().count("a.include") == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"events {}\nhttp {\n}\n", b"events {}\nhttp {\n    NOTE\n    include FILE;\n}\n"),
        (b"http {\n\ttcp_nodelay on;\n}", b"http {\n\ttcp_nodelay on;\n\tNOTE\n\tinclude FILE;\n}"),
        (b"http { gzip on; }", b"http { gzip on; \n    NOTE\n    include FILE;\n}"),
        (b"http{}", b"http{\n    NOTE\n    include FILE;\n}"),
        (b"http {\r\n  gzip on;\r\n}\r\n", b"http {\r\n  gzip on;\r\n  NOTE\n  include FILE;\n}\r\n"),
        (b"# caf\xe9 }\nhttp {\n}\n", b"# caf\xe9 }\nhttp {\n    NOTE\n    include FILE;\n}\n"),
    ],
)
def test_any_way_of_writing_it_can_be_edited(editor: Editor, text: bytes, expected: bytes) -> None:
    editor.main.write_bytes(text)
    editor.include("a.include")
    path = str(editor.main.parent / "a.include").encode()
    note = b"# The next lines are scalarizr's: its reverse proxies."
    assert editor.main.read_bytes() == expected.replace(b"NOTE", note).replace(b"FILE", path)


@pytest.mark.parametrize(
    "text", ["http { include *.include; }", "http { include /etc/nginx/a.include; }".replace("/etc/nginx/", "")]
)
def test_what_a_person_included_is_not_included_again(editor: Editor, text: str) -> None:
    editor.main.write_text(text)
    assert editor.include("a.include") == "" and editor.main.read_text() == text


def test_a_pattern_means_what_it_means_to_nginx() -> None:
    main = Path("/etc/nginx/nginx.conf")
    http = parse("http { include sites-enabled/*; include /etc/nginx/conf.d/*.conf; include x/../y.conf; }")[0]
    included = ["sites-enabled/a", "sites-enabled/default.disabled", "conf.d/a.conf", "y.conf"]
    not_included = ["a", "sites-enabled/sub/a", "sites-enabled/.a", "conf.d/a.conf.disabled", "sites-available/a"]
    assert all(is_included(main.parent / name, http, main) for name in included)
    assert not any(is_included(main.parent / name, http, main) for name in not_included)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "does not exist"),
        ("events {}\n", "no block http {}"),
        ("events {}\nhttp {\n", "line 2: the { of http is not closed"),
        ("http;\n", "no block http {}"),
    ],
)
def test_a_file_that_cannot_be_edited_is_left_alone(editor: Editor, text: str | None, words: str) -> None:
    if text is not None:
        editor.main.write_text(text)
    with pytest.raises(OutsideFailure) as caught:
        editor.include("a.include")
    assert words in caught.value.message and "Nothing was changed" in caught.value.message
    assert text is None or editor.main.read_text() == text


@pytest.mark.parametrize(
    ("listen", "port"),
    [
        ("80", 80),
        ("8080 default_server", 8080),
        ("127.0.0.1", 80),
        ("127.0.0.1:81", 81),
        ("localhost:82 ssl", 82),
        ("*:83", 83),
        ("[::]:84 ipv6only=on", 84),
        ("[::1]", 80),
        ("unix:/run/nginx:85", 0),
        ("example.com", 80),
    ],
)
def test_a_listen_has_its_port(listen: str, port: int) -> None:
    assert listening_port(parse(f"listen {listen};")[0]) == port


def test_a_main_configuration_with_lua_in_it_is_read_over_it(editor: Editor) -> None:
    lua = (
        "    init_by_lua_block {\n        -- don't } be } fooled\n"
        '        config = { open = "{", text = [[ } ]] }\n    }\n'
        "    server {\n        listen 81;\n        location / { content_by_lua_block { ngx.say('}') } }\n    }\n"
    )
    editor.main.write_text(f"events {{ }}\nhttp {{\n{lua}}}\n")
    editor.include("a.include")
    assert f"http {{\n{lua}    # The next lines" in editor.main.read_text()
    assert editor.main.read_text().endswith("/a.include;\n}\n") and editor.include("a.include") == ""
