"""A small virtual machine (`small_vm.py`) on which the product is not installed, with its Debian packages at hand.

What does there what a test tells it runs on a copy of the product of its own, which the packages do not know of.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import small_vm
from small_vm import Image

# What the package depends on beyond what is there.
DEPENDENCIES = ("libpq5",)
_CLIENT = "/opt/test-client"


@contextlib.contextmanager
def image_with_packages(directory: Path, packages: Mapping[str, Path]) -> Iterator[Image]:
    """Give an image that has the packages as /root/NAME.deb.

    :param packages: name to file.
    """
    reason = small_vm.why_not()
    if reason:
        pytest.skip(f"LEFT OUT: {reason}")
    debian = small_vm._debian(DEPENDENCIES)
    tree = directory / "tree"
    disk = directory / "base.img"
    try:
        subprocess.run(["cp", "-a", "--reflink=auto", debian / "root", tree], check=True)
        small_vm._install(tree)
        _take_the_product_away(tree)
        for name, package in packages.items():
            shutil.copy(package, tree / "root" / f"{name}.deb")
        with open(disk, "wb") as file:
            os.truncate(file.fileno(), 2 << 30)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, disk], check=True)
        shutil.rmtree(tree)
        yield Image(disk, debian / "vmlinuz", debian / "initrd.img")
    finally:
        shutil.rmtree(tree, ignore_errors=True)
        disk.unlink(missing_ok=True)


def _take_the_product_away(tree: Path) -> None:
    """Leave of the product only what answers the test, under another name."""
    (tree / "opt" / "scalarizr").rename(tree / _CLIENT[1:])
    (tree / "usr" / "bin" / "scalarizr").unlink()
    units = tree / "etc" / "systemd" / "system"
    for unit in [*units.glob("scalarizr*"), *units.glob("*.wants/scalarizr*")]:
        unit.unlink()
    commands = units / "test-commands.service"
    commands.write_text(commands.read_text().replace("/opt/scalarizr/", f"{_CLIENT}/"))
    for directory in ("etc/scalr", "var/lib/scalarizr", "var/log/scalarizr"):
        shutil.rmtree(tree / directory, ignore_errors=True)
    for log in (tree / "var" / "log").glob("scalarizr*"):
        log.unlink()
