"""PostgreSQL as Debian's package and systemd run it, in a machine of its own (`small_vm.py`)."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

import small_vm

pytestmark = [pytest.mark.long, pytest.mark.root, pytest.mark.timeout(2400)]
UNIT = "postgresql@15-main.service"


class Guest:
    """The agent and PostgreSQL in a virtual machine."""

    def __init__(self, machine: small_vm.SmallVm) -> None:
        self.machine = machine
        machine.output("systemctl", "is-system-running", "--wait", timeout=600)

    def call(self, method: str, **parameters: object) -> Any:
        done = self._try(method, parameters)
        assert done.status == 0, f"{method}: {done}"
        return json.loads(done.output)

    def refusal(self, method: str, **parameters: object) -> str:
        done = self._try(method, parameters)
        assert done.status == 1, f"{method}: {done}"
        return done.errors

    def _try(self, method: str, parameters: dict[str, object]) -> small_vm.Done:
        command = ("scalarizr", "call", f"postgresql.{method}", "--json", "--params", "-")
        return self.machine.run(*command, text=json.dumps(parameters), timeout=300)

    def shows(self, name: str) -> str:
        return self.machine.output("systemctl", "show", f"--property={name}", "--value", UNIT)

    def psql(self, sql: str) -> str:
        return self.machine.output("runuser", "-u", "postgres", "--", "psql", "-XAtq", text=sql)


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    reason = small_vm.why_not()
    if reason:
        pytest.skip(f"LEFT OUT: {reason}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small_vm, "PACKAGES", f"{small_vm.PACKAGES},postgresql-15")
        image = small_vm.make_image(tmp_path_factory.mktemp("image"))
    try:
        with small_vm.small_vm(image, tmp_path_factory.mktemp("machine")) as machine:
            yield Guest(machine)
            print(machine.last_words())
    finally:
        image.disk.unlink()


def test_it_is_stopped_started_and_restarted_through_systemd(guest: Guest) -> None:
    assert guest.call("get_service_status") == 0 and guest.shows("ActiveState") == "active"
    guest.call("stop_service", reason="a test")
    assert guest.shows("ActiveState") == "inactive" and guest.call("get_service_status") == 3
    assert "does not run" in guest.call("replication_status")["master"]["error"]
    guest.call("start_service")
    assert guest.shows("ActiveState") == "active" and guest.psql("SELECT 1") == "1"
    before = guest.shows("MainPID")
    guest.call("restart_service")
    assert guest.shows("MainPID") not in ("0", before) and guest.psql("SELECT 1") == "1"
    # The server is systemd's, not the agent's.
    assert guest.shows("ControlGroup").endswith(UNIT)


def test_a_reload_and_a_password(guest: Guest) -> None:
    guest.machine.shell("echo 'work_mem = 7MB' >> /etc/postgresql/15/main/postgresql.conf")
    guest.call("reload_service")
    assert guest.psql("SHOW work_mem") == "7MB"
    password = guest.call("reset_password")
    said = guest.machine.output(
        "psql", f"host=127.0.0.1 user=scalr_master dbname=postgres password={password}", "-XAtqc", "SELECT session_user"
    )
    assert said == "scalr_master"


def test_one_that_was_killed_starts_again(guest: Guest) -> None:
    guest.machine.shell("kill -9 $(head -n 1 /var/lib/postgresql/15/main/postmaster.pid)")
    guest.call("start_service")
    assert guest.call("get_service_status") == 0 and guest.psql("SELECT 1") == "1"


def test_one_that_cannot_start_says_why_though_its_unit_does_not(guest: Guest) -> None:
    guest.machine.shell("echo \"work_mem = 'much'\" >> /etc/postgresql/15/main/postgresql.conf")
    assert "work_mem" in guest.refusal("restart_service") and guest.call("get_service_status") == 0
    guest.call("stop_service")
    said = guest.refusal("start_service")
    assert "did not start" in said and "work_mem" in said
    guest.machine.shell("sed -i '/much/d' /etc/postgresql/15/main/postgresql.conf")
    guest.call("start_service")
    assert guest.psql("SELECT 1") == "1"
