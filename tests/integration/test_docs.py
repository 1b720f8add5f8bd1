"""The documentation builds, the founding document unchanged."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def build(source: Path, place: Path) -> list[str]:
    command = [sys.executable, "-m", "sphinx", "-q", "-E", "-b", "html", source, place]
    finished = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return [line for line in finished.stderr.splitlines() if "WARNING" in line or "ERROR" in line]


def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    assert build(ROOT / "docs", tmp_path) == []
    page = (tmp_path / "seed-index.html").read_text()
    assert all(name in page for name in ("get_script_logs", "create_vhost", "make_proxy", "Мета параметры"))
    assert "max_body" in (tmp_path / "settings.html").read_text()


def test_the_russian_pages_build_without_a_warning(tmp_path: Path) -> None:
    assert build(ROOT / "docs" / "ru", tmp_path) == []
    assert '<html class="no-js" lang="ru"' in (tmp_path / "wire.html").read_text()


def test_the_tests_that_are_named_are_there() -> None:
    named = set()
    for page in (*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"):
        named |= set(re.findall(r"tests/[\w./-]*\w", page.read_text()))
    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_setting_and_every_method_is_documented() -> None:
    import msgspec

    from scalarizr.api.apache import ApacheAPI
    from scalarizr.api.change import ChangeAPI
    from scalarizr.api.mongodb import MongoDBAPI
    from scalarizr.api.nginx import NginxAPI
    from scalarizr.api.operation import OperationAPI
    from scalarizr.api.postgresql import PostgreSQLAPI
    from scalarizr.api.system import SystemAPI
    from scalarizr.rpc.docstring import read_docstring
    from scalarizr.rpc.method import declaration_of
    from scalarizr.rpc.registry import describe
    from scalarizr.settings.model import Settings

    for section in msgspec.structs.fields(Settings):
        for field in msgspec.structs.fields(section.type):
            assert field.type.__metadata__[0].description, f"{section.name}.{field.name}"
    for kind in (SystemAPI, OperationAPI, ChangeAPI, NginxAPI, ApacheAPI, PostgreSQLAPI, MongoDBAPI):
        for name, function in vars(kind).items():
            declaration = declaration_of(function)
            if declaration:
                method = describe(name, function.__get__(object()), declaration)
                words = read_docstring(method.documentation)
                gives = function.__annotations__["return"] not in (None, "None")
                assert words.summary and (words.result or not gives), name
                assert set(words.parameters) == {parameter.keyword for parameter in method.parameters}, name
