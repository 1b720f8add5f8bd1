"""How a host is rebooted, by what is there to do it. Nothing here asks the init of this machine."""

from pathlib import Path

import pytest

from scalarizr.errors import NotSupported
from scalarizr.host.paths import HostPaths
from scalarizr.system.reboot import reboot_command


def host(root: Path, mark: str, *programs: str) -> HostPaths:
    (root / mark).mkdir(parents=True)
    for program in programs:
        path = root / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    return HostPaths(root)


def test_systemd_is_asked_where_it_runs(tmp_path: Path) -> None:
    there = host(tmp_path, "run/systemd/system", "usr/bin/systemctl", "usr/sbin/shutdown")
    assert reboot_command(there) == [f"{tmp_path}/usr/bin/systemctl", "--no-ask-password", "reboot"]


def test_its_program_alone_does_not_make_an_init(tmp_path: Path) -> None:
    with pytest.raises(NotSupported, match="Nothing was changed"):
        reboot_command(host(tmp_path, "run", "usr/bin/systemctl", "usr/sbin/shutdown"))


def test_an_init_without_its_program_does_not_either(tmp_path: Path) -> None:
    there = host(tmp_path, "run/systemd/system", "usr/bin/other")
    (tmp_path / "usr/bin/systemctl").write_text("not executable")
    with pytest.raises(NotSupported):
        reboot_command(there)


@pytest.mark.parametrize("mark", ["run/initctl", "dev/initctl"])
def test_sysv_init_is_asked_by_shutdown(tmp_path: Path, mark: str) -> None:
    assert reboot_command(host(tmp_path, mark, "sbin/shutdown")) == [f"{tmp_path}/sbin/shutdown", "-r", "now"]


def test_openrc_is_asked_by_reboot(tmp_path: Path) -> None:
    assert reboot_command(host(tmp_path, "run/openrc", "sbin/reboot")) == [f"{tmp_path}/sbin/reboot"]
