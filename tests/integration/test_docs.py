"""The documentation builds, the founding document unchanged."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LATER = ("ApacheAPI", "NginxAPI", "PostgreSQLAPI", "MongoDBAPI", "StorageAPI")


def build(source: Path, place: Path) -> list[str]:
    command = [sys.executable, "-m", "sphinx", "-q", "-E", "-b", "html", source, place]
    finished = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return [line for line in finished.stderr.splitlines() if "WARNING" in line or "ERROR" in line]


def test_the_only_warnings_are_of_methods_that_come_later(tmp_path: Path) -> None:
    warnings = build(ROOT / "docs", tmp_path)
    for line in warnings:
        assert re.search(rf"missing attribute \w+ in object scalarizr\.api\.\w+\.({'|'.join(LATER)})", line), line
    assert len(warnings) == 40
    page = (tmp_path / "seed-index.html").read_text()
    assert "get_script_logs" in page and "Мета параметры" in page
    assert "max_body" in (tmp_path / "settings.html").read_text()


def test_the_russian_pages_build_without_a_warning(tmp_path: Path) -> None:
    assert build(ROOT / "docs" / "ru", tmp_path) == []
    assert '<html class="no-js" lang="ru"' in (tmp_path / "wire.html").read_text()


def test_every_setting_and_every_method_is_documented() -> None:
    import msgspec

    from scalarizr.api.operation import OperationAPI
    from scalarizr.api.system import SystemAPI
    from scalarizr.rpc.docstring import read_docstring
    from scalarizr.rpc.method import declaration_of
    from scalarizr.rpc.registry import describe
    from scalarizr.settings.model import Settings

    for section in msgspec.structs.fields(Settings):
        for field in msgspec.structs.fields(section.type):
            assert field.type.__metadata__[0].description, f"{section.name}.{field.name}"
    for kind in (SystemAPI, OperationAPI):
        for name, function in vars(kind).items():
            declaration = declaration_of(function)
            if declaration:
                method = describe(name, function.__get__(object()), declaration)
                words = read_docstring(method.documentation)
                assert words.summary and words.result, name
                assert set(words.parameters) == {parameter.keyword for parameter in method.parameters}, name
