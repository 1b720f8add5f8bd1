"""`system.reboot` in a machine of its own: it answers, and then everything ends in order and starts again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from small_vm import Image, image_of_the_product, small_vm
from small_vm_agent import Guest

pytestmark = [pytest.mark.long, pytest.mark.root, pytest.mark.timeout(1800)]
# What ends with the system's other services might end before it has heard the answer. Nobody but a system that ends in
# order writes to the disk what it has heard.
LATE = ("systemd-run", "--quiet", "--no-block", "--property=DefaultDependencies=no", "sh", "-c")
ASK = "scalarizr call system.reboot --json {} > /root/answer 2> /root/words; echo $? > /root/status"
ENDED = "reboot: Restarting system"
HOST = {
    "hostname": "a.example.com",
    "port": 8080,
    "template": "<VirtualHost *:8080>\nDocumentRoot /var/www/html\n</VirtualHost>",
    "ssl": False,
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    with image_of_the_product(tmp_path_factory.mktemp("image")) as made:
        yield made


@pytest.fixture
def guest(image: Image, tmp_path: Path) -> Iterator[Guest]:
    with small_vm(image, tmp_path) as machine:
        yield Guest(machine)
        print(machine.last_words())


def boot_id(guest: Guest) -> str:
    return guest.machine.output("cat", "/proc/sys/kernel/random/boot_id")


def have_it_reboot(guest: Guest, parameters: str = "") -> None:
    """Call it, and wait until the machine is there again."""
    said = guest.machine.console_size()
    guest.machine.tell(*LATE, ASK.format(parameters))
    guest.machine.wait_for_end(600)
    assert ENDED in guest.machine.last_words(said), "it did not end in order"
    guest.cut_power_and_boot()
    assert guest.machine.output("cat", "/root/status") == "0", guest.machine.output("cat", "/root/words")


def test_it_answers_and_then_the_server_boots_again(guest: Guest) -> None:
    before = boot_id(guest)
    have_it_reboot(guest)
    assert boot_id(guest) != before
    assert guest.machine.output("cat", "/root/answer") == "null"
    assert guest.call("system.get_hostname") == guest.machine.output("hostname")


def test_while_an_operation_runs_it_is_refused_unless_it_is_forced(guest: Guest) -> None:
    before = boot_id(guest)
    operation = guest.call("apache.reconfigure", vhosts=[HOST], **{"async": True})
    # Held still, so that it runs as long as the test wants.
    guest.shell("until pkill -STOP -f '[s]calarizr.worker'; do :; done")
    words = guest.refusal("system.reboot")
    assert operation in words and "apache.reconfigure" in words and "force" in words
    assert boot_id(guest) == before and guest.shows("scalarizr.service", "ActiveState") == "active"
    assert guest.call("operation.result", operation_id=operation)["status"] in ("new", "in-progress")

    have_it_reboot(guest, "force=true")
    assert boot_id(guest) != before
    ended = guest.call("operation.result", operation_id=operation)
    assert ended["status"] in ("failed", "canceled"), ended
    assert guest.call("apache.configtest") is None
