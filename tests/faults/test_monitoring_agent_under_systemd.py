"""The monitoring agent where systemd runs: a unit that comes back, over boots too, until it is disabled."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitoring_package import package_content
from small_vm import WEB_SERVERS, image_of_the_product, small_vm
from small_vm_agent import Guest, wait_for

pytestmark = [pytest.mark.long, pytest.mark.root, pytest.mark.timeout(3600)]
UNIT = "scalarizr-mongodb-monitoring.service"
OK = {"status": "Ok", "error": None}


class MonitoredGuest(Guest):
    """The agent in a virtual machine, and the monitoring agent that it keeps running."""

    def enable(self, key: str) -> Any:
        return self.call("mongodb.enable_mms", api_key=key, secret_key=f"{key}-secret")

    def unit(self, name: str) -> str:
        return self.shows(UNIT, name)

    def starts(self) -> list[dict[str, Any]]:
        """Give what each start of the monitoring agent has noted of itself."""
        return [json.loads(line) for line in self.machine.output("cat", "/opt/report").splitlines()]

    def boot_again(self) -> None:
        self.machine.output("sync")
        self.cut_power_and_boot()


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[MonitoredGuest]:
    with image_of_the_product(tmp_path) as image, small_vm(image, tmp_path, without=WEB_SERVERS) as machine:
        yield MonitoredGuest(machine)


def test_a_unit_keeps_it_running_over_boots_until_it_is_disabled(guest: MonitoredGuest) -> None:
    content = package_content(Path("/opt/report"), "classic", "gz")
    guest.shell("touch /opt/report && chmod 666 /opt/report")
    guest.machine.output("sh", "-c", "base64 -d > /opt/package", text=base64.b64encode(content).decode())
    guest.shell(
        "sum=$(sha256sum /opt/package | cut -d' ' -f1)\n"
        'line="monitoring_agent = { package = \\"/opt/package\\", sha256 = \\"$sum\\" }"\n'
        'sed -i "/^\\[mongodb\\]/a $line" /etc/scalr/scalarizr.toml\n'
        "grep -q '^monitoring_agent' /etc/scalr/scalarizr.toml\n"
        "systemctl restart scalarizr.service\n"
    )
    assert guest.enable("planted-one") == OK
    wait_for(lambda: guest.starts())
    first = guest.starts()[-1]
    assert str(first["pid"]) == guest.unit("MainPID") and first["api_key"] == "planted-one"
    assert str(first["uid"]) == guest.machine.output("id", "-u", "daemon")
    assert "planted" not in guest.machine.output("cat", f"/etc/systemd/system/{UNIT}")

    guest.machine.output("kill", "-KILL", str(first["pid"]))
    wait_for(lambda: len(guest.starts()) == 2)
    guest.machine.output("systemctl", "restart", "scalarizr.service")
    assert guest.enable("planted-one") == OK
    assert guest.unit("MainPID") == str(guest.starts()[-1]["pid"]) and len(guest.starts()) == 2

    guest.boot_again()
    wait_for(lambda: len(guest.starts()) == 3)
    assert guest.enable("planted-two") == OK
    wait_for(lambda: len(guest.starts()) == 4)
    assert guest.starts()[-1]["api_key"] == "planted-two"

    assert guest.call("mongodb.disable_mms") == OK
    assert guest.unit("ActiveState") == "inactive" and guest.unit("UnitFileState") == "disabled"
    guest.boot_again()
    assert guest.unit("ActiveState") == "inactive" and len(guest.starts()) == 4
    assert guest.enable("planted-three") == OK
    wait_for(lambda: len(guest.starts()) == 5)
    assert guest.unit("UnitFileState") == "enabled"
    journal = guest.machine.output("journalctl", "--no-pager", "--output=cat", "--boot")
    logs = guest.machine.output("sh", "-c", "cat /var/log/scalarizr*.log")
    assert "planted" not in journal + logs
