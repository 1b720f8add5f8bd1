"""PostgreSQL as Debian's package and systemd run it, in a machine of its own (`small_vm.py`)."""

from collections.abc import Iterator

import pytest

from small_vm import WEB_SERVERS, image_of_the_product, small_vm
from small_vm_agent import Guest, last_words_printed

pytestmark = [pytest.mark.long, pytest.mark.root, pytest.mark.timeout(3600)]
UNIT = "postgresql@15-main.service"


class DatabaseGuest(Guest):
    """The agent and PostgreSQL in a virtual machine."""

    def psql(self, sql: str) -> str:
        return self.machine.output("runuser", "-u", "postgres", "--", "psql", "-XAtq", text=sql)


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabaseGuest]:
    with (
        image_of_the_product(tmp_path_factory.mktemp("image"), ["postgresql-15"]) as image,
        small_vm(image, tmp_path_factory.mktemp("machine"), without=WEB_SERVERS) as machine,
    ):
        running = DatabaseGuest(machine)
        with last_words_printed(running):
            yield running


def test_it_is_stopped_started_and_restarted_through_systemd(guest: DatabaseGuest) -> None:
    assert guest.call("postgresql.get_service_status") == 0 and guest.shows(UNIT, "ActiveState") == "active"
    guest.call("postgresql.stop_service", reason="a test")
    assert guest.shows(UNIT, "ActiveState") == "inactive" and guest.call("postgresql.get_service_status") == 3
    assert "does not run" in guest.call("postgresql.replication_status")["master"]["error"]
    guest.call("postgresql.start_service")
    assert guest.shows(UNIT, "ActiveState") == "active" and guest.psql("SELECT 1") == "1"
    before = guest.shows(UNIT, "MainPID")
    guest.call("postgresql.restart_service")
    assert guest.shows(UNIT, "MainPID") not in ("0", before) and guest.psql("SELECT 1") == "1"
    # The server is systemd's, not the agent's.
    assert guest.shows(UNIT, "ControlGroup").endswith(UNIT)


def test_a_reload_and_a_password(guest: DatabaseGuest) -> None:
    guest.shell("echo 'work_mem = 7MB' >> /etc/postgresql/15/main/postgresql.conf")
    guest.call("postgresql.reload_service")
    assert guest.psql("SHOW work_mem") == "7MB"
    password = guest.call("postgresql.reset_password")
    said = guest.machine.output(
        "psql", f"host=127.0.0.1 user=scalr_master dbname=postgres password={password}", "-XAtqc", "SELECT session_user"
    )
    assert said == "scalr_master"


def test_one_that_was_killed_starts_again(guest: DatabaseGuest) -> None:
    guest.shell("kill -9 $(head -n 1 /var/lib/postgresql/15/main/postmaster.pid)")
    guest.call("postgresql.start_service")
    assert guest.call("postgresql.get_service_status") == 0 and guest.psql("SELECT 1") == "1"


def test_one_that_cannot_start_says_why_though_its_unit_does_not(guest: DatabaseGuest) -> None:
    guest.shell("echo \"work_mem = 'much'\" >> /etc/postgresql/15/main/postgresql.conf")
    assert (
        "work_mem" in guest.refusal("postgresql.restart_service") and guest.call("postgresql.get_service_status") == 0
    )
    guest.call("postgresql.stop_service")
    said = guest.refusal("postgresql.start_service")
    assert "did not start" in said and "work_mem" in said
    guest.shell("sed -i '/much/d' /etc/postgresql/15/main/postgresql.conf")
    guest.call("postgresql.start_service")
    assert guest.psql("SELECT 1") == "1"
