"""The cache of the small virtual machine: what is in use stays, and what is not its own is not touched."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from small_vm import forget_unused


def test_only_a_debian_that_nobody_used_for_days_is_deleted(tmp_path: Path) -> None:
    long_ago = time.time() - 30 * 86400
    unused, used = tmp_path / "bookworm-0123456789ab", tmp_path / "bookworm-ba9876543210"
    others = [tmp_path / name for name in ("bookworm-mine", "bookworm-0123456789abc", "photos")]
    for place in (unused, used, *others):
        (place / "root" / "etc").mkdir(parents=True)
        (place / "root" / "etc" / "hostname").write_text("small\n")
    (unused / "root" / "elsewhere").symlink_to(others[-1])
    program = tmp_path / "ferretdb-1.24.0"
    program.write_text("")
    link = tmp_path / "bookworm-aaaaaaaaaaaa"
    link.symlink_to(others[-1])
    for place in (unused, *others, program):
        os.utime(place, (long_ago, long_ago))
    os.utime(link, (long_ago, long_ago), follow_symlinks=False)

    forget_unused(tmp_path)

    assert not unused.exists() and not (tmp_path / "forming").exists()
    assert link.is_symlink() and program.exists()
    assert all((place / "root" / "etc" / "hostname").exists() for place in (used, *others))


@pytest.mark.root
def test_what_a_killed_fetch_left_mounted_is_unmounted_before_it_is_deleted(tmp_path: Path) -> None:
    unused = tmp_path / "bookworm-0123456789ab"
    left = unused / "root" / "proc"
    left.mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious\n")
    if subprocess.run(["mount", "--bind", outside, left], capture_output=True).returncode != 0:
        pytest.skip("LEFT OUT: nothing can be mounted here")
    try:
        os.utime(unused, (0, 0))
        forget_unused(tmp_path)
        assert not unused.exists() and (outside / "precious").read_text() == "precious\n"
    finally:
        subprocess.run(["umount", left], capture_output=True)
