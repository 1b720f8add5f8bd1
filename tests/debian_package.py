"""The Debian package of this checkout, built for tests as `make deb` builds it, under any version number.

It needs what packaging/deb/build.sh needs, and the registry of Python packages.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
PROGRAMS = ("dpkg-deb", "strip", "/usr/bin/python3")
_OF_THE_BUILD = ("src", "packaging", "requirements", "docs", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE")
_BUILT_AT = 1_790_000_000
_LIMIT = 900.0


def needs_what_builds_it() -> None:
    """Leave out, loudly, what asks for a package where none can be built."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"LEFT OUT: there is no {', '.join(missing)}")


def build_package(directory: Path, version: str) -> Path:
    """Build the package of what stands in this checkout now.

    :param directory: where a copy of the checkout is made, and the package with it.
    :param version: the number that it gets.
    """
    needs_what_builds_it()
    tree = directory / "checkout"
    tree.mkdir(parents=True)
    for name in _OF_THE_BUILD:
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__", "_build"))
        else:
            shutil.copy(source, tree / name)
    (tree / ".venv").symlink_to(sys.prefix)
    source = tree / "src" / "scalarizr" / "__init__.py"
    source.write_text(re.sub(r'(?m)^__version__ = ".*"$', f'__version__ = "{version}"', source.read_text()))
    done = subprocess.run(
        ["sh", tree / "packaging" / "deb" / "build.sh"],
        env=os.environ | {"MAINTAINER": "Test <test@example.com>", "SOURCE_DATE_EPOCH": str(_BUILT_AT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_LIMIT,
    )
    assert done.returncode == 0, f"the package was not built: {done.stdout[-3000:]}"
    return tree / done.stdout.splitlines()[-1]
