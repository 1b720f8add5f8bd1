"""The Debian package: built twice it is the same, lintian has nothing against it, it has what was locked."""

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from debian_package import build_package, needs_what_builds_it

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
VERSION = "0.0.9"
LIMIT_OF_MB = 40


class Built:
    """A package, its control data and its files below `root`."""

    def __init__(self, path: Path, directory: Path) -> None:
        self.path = path
        self.root = directory / "root"
        subprocess.run(["dpkg-deb", "--raw-extract", path, self.root], check=True, timeout=100)
        self.release = self.root / "opt/scalarizr/releases" / VERSION

    def field(self, name: str) -> str:
        return subprocess.check_output(["dpkg-deb", "-f", self.path, name], text=True, timeout=100).strip()

    def distributions(self) -> dict[str, str]:
        """Give what is installed in it, name to version, as its metadata say."""
        found = {}
        for place in self.release.glob("lib/python3.*/site-packages/*.dist-info/METADATA"):
            head = place.read_text().partition("\n\n")[0]
            name, version = (re.search(rf"^{field}: (.+)$", head, re.MULTILINE) for field in ("Name", "Version"))
            assert name and version, place
            found[canonical(name[1])] = version[1]
        return found


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[str, str]:
    return dict(re.findall(r"(?m)^([A-Za-z0-9._-]+)==(\S+)", (ROOT / "requirements/package.lock").read_text()))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    needs_what_builds_it()
    directory = tmp_path_factory.mktemp("package")
    yield Built(build_package(directory, VERSION), directory)


def test_built_again_elsewhere_it_is_the_same(built: Built, tmp_path: Path) -> None:
    again = build_package(tmp_path / "another" / "place", VERSION)
    assert hashlib.sha256(built.path.read_bytes()).digest() == hashlib.sha256(again.read_bytes()).digest()


def test_lintian_finds_neither_errors_nor_warnings(built: Built) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("LEFT OUT: there is no lintian")
    command = ["lintian", "--fail-on", "error,warning", "--allow-root", built.path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout


def test_installed_it_takes_less_than_it_may(built: Built) -> None:
    counted = sum(path.stat().st_size for path in built.root.rglob("*") if path.is_file() and not path.is_symlink())
    print(f"{counted / 1e6:.1f} MB in files, Installed-Size {built.field('Installed-Size')} KiB")
    assert int(built.field("Installed-Size")) * 1024 < LIMIT_OF_MB * 1e6
    assert counted <= int(built.field("Installed-Size")) * 1024


def test_it_has_what_was_locked_and_its_bill_of_materials_says_so(built: Built) -> None:
    assert built.distributions() == {**locked(), "scalarizr": VERSION}
    bill = json.loads((built.root / "usr/share/doc/scalarizr/sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["metadata"]["component"]["version"]) == ("CycloneDX", VERSION)
    assert "serialNumber" not in bill
    assert {canonical(part["name"]): part["version"] for part in bill["components"]} == locked()
    assert [part["name"] for part in bill["components"] if not part.get("licenses")] == []
    assert {reference["ref"] for reference in bill["dependencies"]} >= {part["bom-ref"] for part in bill["components"]}


def test_the_bill_of_materials_is_valid(built: Built) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = (built.root / "usr/share/doc/scalarizr/sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_nothing_in_it_names_the_place_where_it_was_built(built: Built) -> None:
    place = str(built.path.parents[1]).encode()
    naming = [
        path
        for path in built.root.rglob("*")
        if path.is_file() and not path.is_symlink() and (place in path.read_bytes() or b"/.venv/" in path.read_bytes())
    ]
    assert naming == []


def test_its_own_interpreter_runs_it(built: Built) -> None:
    command = [built.release / "bin/python", "-I", "-m", "scalarizr", "version"]
    assert subprocess.check_output(command, text=True, timeout=100).split() == ["scalarizr", VERSION]
    names = (built.release / "imported-modules").read_text().splitlines()
    assert "scalarizr/agent.py" in names and "psycopg/_connection_base.py" in names
    assert all((built.release / "lib").glob(f"python3.*/site-packages/{name}") for name in names)
