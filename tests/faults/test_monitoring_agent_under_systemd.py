"""The monitoring agent where systemd runs: a unit that comes back, over boots too, until it is disabled."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from monitoring_package import package_content
from small_vm import SmallVm, make_image, small_vm, why_not

pytestmark = [pytest.mark.long, pytest.mark.root, pytest.mark.timeout(1500)]
UNIT = "scalarizr-mongodb-monitoring.service"
OK = {"status": "Ok", "error": None}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[SmallVm]:
    reason = why_not()
    if reason:
        pytest.skip(f"LEFT OUT: {reason}")
    image = make_image(tmp_path)
    try:
        with small_vm(image, tmp_path) as running:
            yield running
    finally:
        image.disk.unlink()


def settle(machine: SmallVm) -> None:
    assert machine.output("systemctl", "is-system-running", "--wait", timeout=300) == "running"


def call(machine: SmallVm, method: str, **parameters: object) -> Any:
    return json.loads(
        machine.output("scalarizr", "call", method, "--json", "--params", "-", text=json.dumps(parameters))
    )


def enable(machine: SmallVm, key: str) -> Any:
    return call(machine, "mongodb.enable_mms", api_key=key, secret_key=f"{key}-secret")


def shows(machine: SmallVm, name: str) -> str:
    return machine.output("systemctl", "show", f"--property={name}", "--value", UNIT)


def starts(machine: SmallVm) -> list[dict[str, Any]]:
    return [json.loads(line) for line in machine.output("cat", "/opt/report").splitlines()]


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(1)


def boot_again(machine: SmallVm) -> None:
    machine.output("sync")
    machine.cut_power()
    machine.boot()
    settle(machine)


def test_a_unit_keeps_it_running_over_boots_until_it_is_disabled(machine: SmallVm) -> None:
    content = package_content(Path("/opt/report"), "classic", "gz")
    settle(machine)
    machine.shell("touch /opt/report && chmod 666 /opt/report")
    machine.output("sh", "-c", "base64 -d > /opt/package", text=base64.b64encode(content).decode())
    machine.shell(
        "sum=$(sha256sum /opt/package | cut -d' ' -f1)\n"
        'line="monitoring_agent = { package = \\"/opt/package\\", sha256 = \\"$sum\\" }"\n'
        'sed -i "/^\\[mongodb\\]/a $line" /etc/scalr/scalarizr.toml\n'
        "grep -q '^monitoring_agent' /etc/scalr/scalarizr.toml\n"
        "systemctl restart scalarizr.service\n"
    )
    assert enable(machine, "planted-one") == OK
    wait_for(lambda: starts(machine))
    first = starts(machine)[-1]
    assert str(first["pid"]) == shows(machine, "MainPID") and first["api_key"] == "planted-one"
    assert str(first["uid"]) == machine.output("id", "-u", "daemon")
    assert "planted" not in machine.output("cat", f"/etc/systemd/system/{UNIT}")

    machine.output("kill", "-KILL", str(first["pid"]))
    wait_for(lambda: len(starts(machine)) == 2)
    machine.output("systemctl", "restart", "scalarizr.service")
    assert enable(machine, "planted-one") == OK
    assert shows(machine, "MainPID") == str(starts(machine)[-1]["pid"]) and len(starts(machine)) == 2

    boot_again(machine)
    wait_for(lambda: len(starts(machine)) == 3)
    assert enable(machine, "planted-two") == OK
    wait_for(lambda: len(starts(machine)) == 4)
    assert starts(machine)[-1]["api_key"] == "planted-two"

    assert call(machine, "mongodb.disable_mms") == OK
    assert shows(machine, "ActiveState") == "inactive" and shows(machine, "UnitFileState") == "disabled"
    boot_again(machine)
    assert shows(machine, "ActiveState") == "inactive" and len(starts(machine)) == 4
    assert enable(machine, "planted-three") == OK
    wait_for(lambda: len(starts(machine)) == 5)
    assert shows(machine, "UnitFileState") == "enabled"
    journal = machine.output("journalctl", "--no-pager", "--output=cat", "--boot")
    logs = machine.output("sh", "-c", "cat /var/log/scalarizr*.log")
    assert "planted" not in journal + logs
