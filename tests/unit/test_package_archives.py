"""The wheel and the source archive: what is in them, and that two builds give the same bytes."""

import hashlib
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(directory: Path) -> dict[str, Path]:
    """Build both of this checkout; gives them by their ending."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", directory],
        cwd=ROOT,
        env=os.environ | {"SOURCE_DATE_EPOCH": "1790000000"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return {"".join(path.suffixes[-1:]): path for path in directory.iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build(tmp_path_factory.mktemp("built"))


def test_two_builds_give_the_same_bytes(built: dict[str, Path], tmp_path: Path) -> None:
    again = build(tmp_path)
    assert set(built) == {".whl", ".gz"}
    for ending, path in built.items():
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(again[ending].read_bytes()).digest(), ending


def test_the_wheel_has_every_source_and_nothing_else(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built[".whl"]) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        entry = next(name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        assert archive.read(entry).decode().split() == [
            "[console_scripts]",
            "scalarizr",
            "=",
            "scalarizr.cli.main:main",
        ]
        assert any(name.endswith(".dist-info/licenses/LICENSE") for name in archive.namelist())
    source = ROOT / "src"
    assert names == {
        str(path.relative_to(source)) for path in source.rglob("*") if path.is_file() and path.suffix != ".pyc"
    }
    assert "scalarizr/py.typed" in names


def test_the_source_archive_has_what_builds_and_tests_it_and_nothing_that_a_build_or_a_run_left(
    built: dict[str, Path],
) -> None:
    with tarfile.open(built[".gz"]) as archive:
        members = archive.getmembers()
    assert all(member.isfile() and (member.uid, member.gid, member.uname) == (0, 0, "") for member in members)
    names = {member.name.partition("/")[2] for member in members}
    for needed in (
        "pyproject.toml",
        "LICENSE",
        "README.md",
        "SECURITY.md",
        "Makefile",
        "src/scalarizr/py.typed",
        "packaging/deb/build.sh",
        "packaging/systemd/scalarizr.service",
        "requirements/package.lock",
        "docs/licences.md",
        "tests/conftest.py",
    ):
        assert needed in names
    tops = {name.partition("/")[0] for name in names}
    assert not tops & {".venv", "var", "build", "dist", ".git", ".ci"}
    assert not [name for name in names if name.endswith(".pyc") or name.startswith("docs/_build")]
    # The archive builds the wheel alone: nothing of the source is missing in it.
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("*.py")}
    assert sources <= names
