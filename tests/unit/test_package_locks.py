"""What the locks, the list of licences and the Debian package say of the libraries, held against each other."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "requirements"
EXTRAS = ("cloudstack", "ec2", "gce", "openstack")
PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)(.*(?:\n    \S.*)*)", re.MULTILINE)
ROW = re.compile(r"^\| (?!library )([a-z0-9][a-z0-9.-]*)( \*)? \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)
# What libraries call their licence where they do not write its SPDX expression.
SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "PSFL": "PSF-2.0",
}
# Two that say no more than that; which it is stands in the text of their licence.
IN_WORDS_ONLY = {
    "cs": ("BSD", "BSD-3-Clause"),
    "pyasn1-modules": ("BSD", "BSD-2-Clause"),
    "python-dateutil": ("Dual License", "Apache-2.0 OR BSD-3-Clause"),
}


def pinned(lock: str) -> dict[str, str]:
    """Give what a lock pins: name to version. Each is pinned by hashes, too."""
    found = {}
    for name, version, rest in PINNED.findall((LOCKS / f"{lock}.lock").read_text()):
        assert "--hash=sha256:" in rest, f"{lock}: {name} has no hash"
        found[name] = version
    assert found
    return found


def left_out() -> set[str]:
    """Give the libraries that the Makefile leaves out of the package."""
    line = re.search(r"^LEFT_OUT := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert line is not None
    return set(line[1].split())


def listed() -> dict[str, tuple[bool, str]]:
    """Give the rows of the page about licences: name to whether it has a star, and the licence."""
    return {name: (bool(star), licence) for name, star, licence in ROW.findall((ROOT / "docs/licences.md").read_text())}


def test_the_package_has_the_versions_of_the_agent_without_what_the_makefile_leaves_out() -> None:
    agent, package = pinned("run"), pinned("package")
    assert {name: agent[name] for name in package} == package
    of_the_build = {"editables", "hatchling", "packaging", "pathspec", "pluggy", "trove-classifiers"}
    assert set(agent) - set(package) == left_out() | of_the_build


def test_an_extra_brings_nothing_that_the_package_has_in_another_version() -> None:
    package, tests = pinned("package"), pinned("test")
    for extra in EXTRAS:
        brought = pinned(f"extra-{extra}")
        assert not set(brought) & set(package), extra
        assert {name: tests[name] for name in brought} == brought, extra


def test_every_library_is_listed_with_its_licence() -> None:
    wanted = set(pinned("run")).union(*(pinned(f"extra-{extra}") for extra in EXTRAS))
    rows = listed()
    assert set(rows) == wanted
    assert {name for name, (star, _licence) in rows.items() if star} == left_out()


def said_by(name: str) -> Iterator[str]:
    """Give what a library's metadata call its licence, the surest first."""
    found = metadata(name)
    for value in (found.get("License-Expression"), found.get("License")):
        if value:
            yield value
    for classifier in found.get_all("Classifier") or []:
        if classifier.startswith("License ::"):
            yield classifier.rpartition(" :: ")[2]


@pytest.mark.parametrize("name", sorted(listed()))
def test_the_licence_is_what_the_library_says(name: str) -> None:
    try:
        said = next(said_by(name))
    except PackageNotFoundError:
        pytest.skip(f"LEFT OUT: {name} is for another system than this one")
    if name in IN_WORDS_ONLY:
        words, licence = IN_WORDS_ONLY[name]
        assert (said, listed()[name][1]) == (words, licence)
    else:
        assert listed()[name][1] == SPDX.get(said, said)


WITHOUT = """\
import runpy, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
runpy.run_path(PROGRAM, run_name="__main__")
"""


def test_nothing_that_the_agent_imports_is_left_out_of_the_package() -> None:
    program = ROOT / "packaging" / "deb" / "imported_modules.py"
    modules = {"dns", "markdown_it", "mdurl", "psycopg_binary", "pycparser", "pygments", "tzdata"}
    assert len(modules) == len(left_out())
    modules |= {"boto3", "botocore", "cs", "google", "keystoneauth1", "openstack", "requests"}
    done = subprocess.run(
        [sys.executable, "-c", f"PROGRAM = {str(program)!r}\nMODULES = {modules!r}\n{WITHOUT}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    loaded = set(done.stdout.split())
    assert {"psycopg/_connection_base.py", "rich/table.py", "pymongo/__init__.py"} <= loaded
    assert not {name.partition("/")[0].removesuffix(".py") for name in loaded} & modules
