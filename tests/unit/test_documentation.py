"""What the documentation says is so: its links lead somewhere, its blocks are such as the program takes and gives, and
the Russian pages show the same as the English ones. `tests/integration/test_guide.py` runs its sessions."""

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pytest

from documentation import DOCS, ROOT, Block, blocks, is_as_shown, name_of, pages, session, without_comment
from guide_scenes import NOT_RUN, NOT_TRIED, SCENES
from guide_sessions import FOREGROUND
from scalarizr.api.namespaces import ALIASES, NAMESPACES
from scalarizr.cli.parameters import read_parameters
from scalarizr.environment.local import LocalFiles
from scalarizr.errors import InvalidParameter
from scalarizr.rpc.method import declaration_of
from scalarizr.rpc.registry import Method, describe
from scalarizr.settings.keys import load_key_rules
from scalarizr.settings.load import load_settings
from scalarizr.settings.model import Settings
from scalarizr.storage.model import parse
from scalarizr.storage.registry import find_type

PAGES = pages()
WRITTEN = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"]
RUSSIAN = {path.name for path in pages(DOCS / "ru")} - {"index.md"}
_COMMENTED = ("console", "python", "toml", "sh")
# What is called so and is no figure: the logs, and the file of the package.
_LOGS = {"scalarizr_audit", "scalarizr_debug", "scalarizr_update", "scalarizr_connection"}
_META = {"_platform_access_data", "_dry_run", "_confirm_within"}
# What a block of JSON is: parameters of a method, its result, the dict of a volume, or a line of the audit log.
JSON_BLOCKS = {
    "docs/audit.md": ["audit line"],
    "docs/eph.md": ["snapshot"],
    "docs/local-volumes.md": ["volume", "volume"],
    "docs/replication.md": [
        "result of postgresql.replication_status",
        "result of postgresql.replication_status",
        "result of postgresql.create_databundle",
    ],
    "docs/reverse-proxy.md": ["parameters of nginx.make_proxy"],
}


def all_blocks(*languages: str) -> list[Block]:
    return [block for page in WRITTEN for block in blocks(page) if block.language in languages]


def named(name: str) -> Method:
    """Give a method by the name that the wire knows."""
    namespace, _dot, method = name.partition(".")
    module, _colon, kind = NAMESPACES[ALIASES.get(namespace, namespace)].partition(":")
    function = vars(getattr(import_module(module), kind))[method]
    declaration = declaration_of(function)
    assert declaration is not None, name
    return describe(method, function.__get__(object()), declaration)


def check_parameters(name: str, given: dict[str, Any], where: str) -> None:
    """Check parameters whose values are known as the agent would."""
    method = named(name)
    known = {parameter.name: parameter for parameter in method.parameters}
    for parameter, value in given.items():
        if parameter in _META:
            continue
        assert parameter in known, f"{where}: {name} has no {parameter}"
        if value is not ...:
            try:
                known[parameter].check(value, parameter)
                if parameter in ("storage_config", "volume") and isinstance(value, dict):
                    check_volume(value, parameter)
            except InvalidParameter as mistake:
                raise AssertionError(f"{where}: {mistake}") from None


def check_volume(described: dict[str, Any], path: str) -> None:
    described = {key: value for key, value in described.items() if value is not ... and "…" not in str(value)}
    parse(find_type(described["type"], path).config, described, path)


# --- how outputs are compared


@pytest.mark.parametrize(
    ("shown", "seen", "same"),
    [
        ("done\n", "done\n", True),
        ("done\n", "There is no such upstream.\n", False),
        ("done\n", "done\nand more\n", False),
        ("[0.31, 0.22]", "[8.7, 15.66]", True),
        ("[0.31, 0.22]", "[8.7, 15.66, 3]", False),
        ("at 10:58:58 (30 s)", "at 02:38:07 (5 s)", True),
        ("/dev/loop0 39.9 GiB", "/dev/loop12 812.0 MiB", True),
        ("change 001a2125b621b97686de7", "change 001a2252aa7456b77a7c3", True),
        ("id 792a7e6f1845", "id 123456789012", True),
        ("error -32017", "error -32010", False),
        ("127.0.0.1:8001", "127.0.0.1:8002", False),
        ("a long line that\nthe page breaks", "a long line that the page breaks", True),
        ("ok    settings  x\n…", "ok settings x\nok key\n", True),
        ("ok    settings  x\n…", "fail settings x\nok key\n", False),
        ("Nov 25 10:58  applied", "Dec 01 23:01  applied", True),
        ("Nov 25 10:58  applied", "Dec 01 23:01  waiting", False),
    ],
)
def test_an_output_is_as_shown_where_only_figures_differ(shown: str, seen: str, same: bool) -> None:
    assert is_as_shown(shown, seen) is same


# --- links


def headings(page: Path) -> set[str]:
    """Give the anchors of a page's headings as GitHub and MyST make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    found = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.M):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-"))
    return found


def links(page: Path) -> Iterator[str]:
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(), flags=re.M | re.S)
    yield from re.findall(r"\]\(([^)\s]+)\)", text)


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_links_and_anchors_lead_somewhere(page: Path) -> None:
    wrong = []
    for link in links(page):
        if re.match(r"https?://|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in headings(target)):
            wrong.append(link)
    assert wrong == []


def test_every_page_is_in_the_table_of_contents() -> None:
    for place in (DOCS, DOCS / "ru"):
        listed = re.findall(r"^[\w-]+$", (place / "index.md").read_text(), re.M)
        there = {path.stem for path in (*place.glob("*.md"), *place.glob("*.rst"))} - {"index"}
        assert there == set(listed) - {"scalarizr"}, place
        assert len(listed) == len(set(listed))


# --- blocks


def test_every_page_with_sessions_is_tried_or_is_said_why_not() -> None:
    with_sessions = {block.page for block in all_blocks("console", "sh")} - {f"docs/ru/{name}" for name in RUSSIAN}
    assert with_sessions - set(SCENES) == set(NOT_TRIED)
    assert set(SCENES) - with_sessions <= {block.page for block in all_blocks("python")}
    assert {page for page, _words in NOT_RUN} <= set(SCENES)


def test_what_stands_in_for_make_run_is_what_it_does() -> None:
    recipe = re.search(r"^run:.*\n\t@(.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert recipe is not None and recipe[1].replace("$(BIN)", ".venv/bin") == FOREGROUND["make run"]


@pytest.mark.parametrize("block", all_blocks("console"), ids=lambda block: block.place)
def test_calls_of_sessions_are_such_as_the_agent_takes(block: Block) -> None:
    for command in session(block):
        words, _newline, rest = without_comment(command.words).partition("\n")
        lines = words if "<<" in words else without_comment(command.words).replace("\\\n", " ")
        typed = shlex.split(
            lines.partition(" < ")[0].partition(" <<")[0].partition(" | ")[0].replace(" &", ""), comments=True
        )
        if "call" not in typed or not typed[0].endswith("scalarizr"):
            continue
        name, *further = typed[typed.index("call") + 1 :]
        if not re.fullmatch(r"\w+\.\w+", name):
            continue
        given = read_parameters([word for word in further if re.match(r"\w+=(?!@)", word)], None, [])
        given |= {word.partition("=")[0]: ... for word in further if re.match(r"\w+=@", word)}
        if "<<" in words:
            given |= json.loads(rest.rpartition("\n")[0].replace(', "…": "…"', ""))
        given |= {further[place + 1]: ... for place, word in enumerate(further) if word == "--ask"}
        check_parameters(name, given, f"{block.page}:{command.line}")


@pytest.mark.parametrize("block", all_blocks("python"), ids=lambda block: block.place)
def test_programs_call_what_there_is(block: Block) -> None:
    text = block.text if not block.text.startswith("    ") else f"class Namespace:\n{block.text}"
    if "…\n" in text:
        return  # a piece of a table, shown with what stands around it
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and re.fullmatch(r"api\.\w+\.\w+", ast.unparse(node.func)):
            name = ast.unparse(node.func).removeprefix("api.")
            given = {
                word.arg.removesuffix("_") if word.arg == "async_" else word.arg: known(word.value)
                for word in node.keywords
                if word.arg
            }
            check_parameters(name, given, block.place)


def known(value: ast.expr) -> Any:
    """Give a value that stands in a program; of what is only known when it runs, an ellipsis."""
    try:
        return ast.literal_eval(value)
    except ValueError:
        if isinstance(value, ast.Dict):
            return {
                key.value: known(item)
                for key, item in zip(value.keys, value.values, strict=True)
                if isinstance(key, ast.Constant)
            }
        return ...


@pytest.mark.parametrize("block", all_blocks("json"), ids=lambda block: block.place)
def test_json_is_what_is_sent_or_answered(block: Block) -> None:
    page = block.page.replace("docs/ru/", "docs/")
    number = [one.line for one in blocks(ROOT / block.page) if one.language == "json"].index(block.line)
    kind, _of, name = JSON_BLOCKS[page][number].partition(" of ")
    text = block.text if block.text.lstrip().startswith("{") else f"{{{block.text}}}"
    value = json.loads(text)
    if kind == "parameters":
        check_parameters(name, value, block.place)
    elif kind == "volume":
        check_volume(value, "volume")
    elif kind == "snapshot":
        assert value["type"] in ("eph",) and value["id"]
    elif kind == "result":
        msgspec.convert(value, named(name).result)
    else:
        told = (ROOT / block.page).read_text().partition(text)[2]
        assert [key for key in value if f"`{key}`" not in told] == []


def test_no_block_of_json_is_forgotten() -> None:
    counted = {
        name_of(page): sum(block.language == "json" for block in blocks(page))
        for page in WRITTEN
        if "ru" not in page.parts
    }
    assert {page: len(kinds) for page, kinds in JSON_BLOCKS.items()} == {page: n for page, n in counted.items() if n}


@pytest.mark.parametrize("block", all_blocks("toml"), ids=lambda block: block.place)
def test_toml_is_read_by_who_it_is_for(block: Block, tmp_path: Path) -> None:
    data = tomllib.loads(block.text)
    sections = {field.name for field in msgspec.structs.fields(Settings)}
    if "project" in data:
        assert "tests/integration/test_volume_types_of_others.py" in (ROOT / block.page).read_text()
    elif "roles" in data:
        (tmp_path / "roles.toml").write_text(block.text)
        assert LocalFiles(tmp_path).roles()
    elif "virtual_hosts" in data:
        (tmp_path / "virtual_hosts.toml").write_text(block.text)
        (tmp_path / "www.conf").write_text("<VirtualHost *:80>\n</VirtualHost>\n")
        assert LocalFiles(tmp_path).virtual_hosts()
    elif data.keys() <= sections:
        (tmp_path / "scalarizr.toml").write_text(block.text.replace('"…"', f'"{"0" * 64}"'))
        load_settings(tmp_path)
    else:
        (tmp_path / "keys.toml").write_text(block.text)
        (tmp_path / "keys.toml").chmod(0o600)
        assert data.keys() <= load_key_rules(tmp_path, NAMESPACES, ALIASES).keys()


def test_figures_that_are_named_are_such_as_there_are() -> None:
    source = "".join(path.read_text() for path in (ROOT / "src" / "scalarizr" / "metrics").glob("*.py"))
    there = set(re.findall(r'"(scalarizr_\w+)"', source))
    named_ones = {name for page in WRITTEN for name in re.findall(r"\bscalarizr_[a-z_]+[a-z]\b", page.read_text())}
    figures = {re.sub("_(total|info|count|bucket)$", "", name) for name in named_ones} - _LOGS
    assert there and figures == there


# --- two languages


def without_words(block: Block) -> str:
    """Give what of a block is the same in every language: all but comments."""
    text = re.sub(r"^# ", "$ ", block.text, flags=re.M) if block.language == "console" else block.text
    return re.sub(r"(^|\s+)# .*$", "", text, flags=re.M) if block.language in _COMMENTED else text


@pytest.mark.parametrize("name", sorted(RUSSIAN))
def test_the_russian_page_shows_what_the_english_one_shows(name: str) -> None:
    shown = [
        [
            (block.language, without_words(block))
            for block in blocks(place / name)
            if block.language not in ("text", "") and not block.language.startswith("{")
        ]
        for place in (DOCS, DOCS / "ru")
    ]
    assert shown[0] == shown[1]


def test_the_guide_is_there_in_russian() -> None:
    guide = re.search(r":caption: Guide\n(.*?)```", (DOCS / "index.md").read_text(), re.S)
    assert guide is not None
    missing = {f"{name}.md" for name in guide[1].split()} - RUSSIAN
    assert missing == set()


# --- the house


def test_the_page_about_the_house_names_every_room() -> None:
    house = ROOT / "src" / "scalarizr"
    text = (DOCS / "design.md").read_text()
    rooms = {path.parent.name for path in house.glob("*/__init__.py")} | {path.stem for path in house.glob("*.py")}
    missing = [
        room
        for room in sorted(rooms - {"__init__", "__main__"})
        if f"`{room}`" not in text and f"`{room}.py`" not in text
    ]
    assert missing == []
    of_rooms = {name for name in re.findall(r"`([a-z_]+\.[a-z_0-9]+)`", text) if name.partition(".")[0] in rooms}
    gone = [
        name
        for name in sorted(of_rooms)
        if not list(house.glob(f"{name.replace('.', '/')}*")) and not name.endswith((".py", ".db"))
    ]
    assert gone == []
