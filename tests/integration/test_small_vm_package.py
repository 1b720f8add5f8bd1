"""The Debian package in a machine of its own, whose first process is systemd: installed, upgraded, removed, purged."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from debian_package import build_package
from small_vm import Done, Image, small_vm
from small_vm_agent import Guest, last_words_printed, wait_for
from small_vm_package import image_with_packages

pytestmark = [pytest.mark.long, pytest.mark.root, pytest.mark.timeout(3600)]
CHECKOUT = Path(__file__).parents[2]
UNITS = sorted(
    path.name for kind in ("service", "socket") for path in (CHECKOUT / "packaging/systemd").glob(f"*.{kind}")
)
RUNNING = ("new", "in-progress")
VERSIONS = {"older": "0.0.8", "newer": "0.0.9"}
HOST = {
    "hostname": "a.example.com",
    "port": 8080,
    "template": "<VirtualHost *:8080>\nDocumentRoot /var/www/html\n</VirtualHost>",
    "ssl": False,
}
# Connects over and over, until it is told to stop, and notes how often, and how often it was refused.
CONNECTING = """\
import json, os, socket, time
made = refused = 0
while not os.path.exists("/root/stop"):
    made += 1
    try:
        socket.create_connection(("127.0.0.1", 8010), 60).close()
    except OSError:
        refused += 1
    time.sleep(0.2)
with open("/root/told.new", "w") as file:
    json.dump({"made": made, "refused": refused}, file)
os.rename("/root/told.new", "/root/told")
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    directory = tmp_path_factory.mktemp("image")
    packages = {name: build_package(directory / name, version) for name, version in VERSIONS.items()}
    with image_with_packages(directory, packages) as made:
        yield made


@pytest.fixture
def guest(image: Image, tmp_path: Path) -> Iterator[Guest]:
    with small_vm(image, tmp_path) as machine:
        guest = Guest(machine)
        with last_words_printed(guest):
            yield guest


def dpkg(guest: Guest, *words: str) -> Done:
    return guest.machine.run("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", *words, timeout=900)


def dpkg_done(guest: Guest, *words: str) -> str:
    """Run dpkg, which succeeds; gives what it said."""
    done = dpkg(guest, *words)
    assert done.status == 0, done
    return done.output + done.errors


def runs_from(guest: Guest, process: str) -> str:
    """Give the directory that a process of the agent's runs from."""
    interpreter = guest.machine.output("sh", "-c", f"tr '\\0' '\\n' < /proc/{process}/cmdline | head -n 1")
    assert interpreter.startswith("/opt/scalarizr/running/"), interpreter
    return interpreter.rpartition("/bin/")[0]


def there(guest: Guest, path: str) -> bool:
    return guest.machine.run("test", "-e", path).status == 0


def key(guest: Guest) -> str:
    return guest.machine.output("cat", "/etc/scalr/private.d/keys/default")


def frozen_operation(guest: Guest) -> tuple[str, str]:
    """Start an operation and hold its worker still; gives its id and the worker's process."""
    operation = guest.call("apache.reconfigure", vhosts=[HOST], **{"async": True})
    guest.shell("until pkill -STOP -f '[s]calarizr.worker'; do :; done")
    worker = guest.machine.output("pgrep", "-f", "[s]calarizr.worker")
    assert worker.isdigit(), worker
    return operation, worker


def let_go_on(guest: Guest, operation: str, worker: str) -> None:
    """Have the worker of an operation that has not ended go on to its end, which is a good one."""

    def status() -> str:
        result: str = guest.call("operation.result", operation_id=operation)["status"]
        return result

    assert status() in RUNNING
    guest.machine.output("kill", "-CONT", worker)
    wait_for(lambda: status() not in RUNNING, 900)
    assert status() == "completed", guest.call("operation.result", operation_id=operation)
    wait_for(lambda: not there(guest, f"/proc/{worker}"))


def test_it_is_installed_and_upgraded_while_an_operation_runs(guest: Guest) -> None:
    dpkg_done(guest, "-i", "/root/older.deb")
    assert guest.shows("scalarizr.service", "ActiveState") == "active"
    for unit in UNITS:
        assert guest.shows(unit, "UnitFileState") == "enabled", unit
    assert guest.machine.output("scalarizr", "call", "system.get_hostname") == json.dumps("small")
    assert guest.machine.output("scalarizr", "version") == f"scalarizr {VERSIONS['older']}"
    checked = json.loads(guest.machine.run("scalarizr", "doctor", "--json").output)
    assert {one["check"]: one["words"] for one in checked if one["verdict"] == "fail"} == {}
    library = "import psycopg; print(psycopg.pq.__impl__)"
    assert guest.machine.output("/opt/scalarizr/current/bin/python", "-c", library) == "python"
    print("KiB in /opt/scalarizr:", guest.machine.output("du", "-sk", "/opt/scalarizr"))
    print("Installed-Size:", guest.machine.output("dpkg-query", "-W", "-f", "${Installed-Size}", "scalarizr"))

    operation, worker = frozen_operation(guest)
    older = runs_from(guest, worker)
    agent = guest.shows("scalarizr.service", "MainPID")
    before = key(guest)
    guest.machine.output("systemd-run", "--quiet", "python3", "-c", CONNECTING)
    dpkg_done(guest, "-i", "/root/newer.deb")
    guest.shell("touch /root/stop")
    wait_for(lambda: there(guest, "/root/told"))
    told = json.loads(guest.machine.output("cat", "/root/told"))
    print("connections while it was upgraded:", told)
    assert told["made"] > 0
    assert "scalarizr.socket" not in UNITS or told["refused"] == 0, told

    assert guest.shows("scalarizr.service", "MainPID") not in (agent, "0")
    newer = runs_from(guest, guest.shows("scalarizr.service", "MainPID"))
    assert f"/{VERSIONS['newer']}-" in newer and f"/{VERSIONS['older']}-" in older
    assert guest.machine.output("scalarizr", "version") == f"scalarizr {VERSIONS['newer']}"
    assert key(guest) == before
    # The worker has not loaded what the operation needs yet, and finds it where it began.
    assert runs_from(guest, worker) == older
    let_go_on(guest, operation, worker)
    assert guest.call("apache.list_served_virtual_hosts")

    # Once nothing runs there any more, the next installation deletes it.
    assert there(guest, older)
    dpkg_done(guest, "-i", "/root/newer.deb")
    assert not there(guest, older) and not there(guest, newer)
    assert guest.call("system.get_hostname") == "small"


def test_removed_it_leaves_keys_and_data_and_purged_only_data(guest: Guest) -> None:
    # What was made by hand is not overwritten.
    guest.shell("mkdir /opt/scalarizr; touch /opt/scalarizr/pyvenv.cfg")
    refused = dpkg(guest, "-i", "/root/newer.deb")
    assert refused.status != 0 and "made by hand" in refused.output + refused.errors, refused
    guest.shell("rm -r /opt/scalarizr; dpkg --purge scalarizr")

    dpkg_done(guest, "-i", "/root/newer.deb")
    before = key(guest)
    operation, worker = frozen_operation(guest)
    code = runs_from(guest, worker)
    guest.shell(
        "mkdir -p /var/lib/scalarizr/backups /var/lib/scalarizr/volumes /opt/scalarizr/extras/boto3\n"
        "echo precious > /var/lib/scalarizr/backups/one; echo precious > /var/lib/scalarizr/volumes/one.img"
    )

    said = dpkg_done(guest, "--remove", "scalarizr")
    assert code in said, said
    assert guest.machine.run("systemctl", "is-active", *UNITS).output.split() == ["inactive"] * len(UNITS)
    assert guest.machine.run("scalarizr", "version").status == 127
    assert there(guest, "/etc/scalr/scalarizr.toml") and key(guest) == before

    # Purged it is not as long as what runs needs its code and its state.
    purged = dpkg(guest, "--purge", "scalarizr")
    assert purged.status != 0 and "still runs" in purged.output + purged.errors, purged
    assert there(guest, f"{code}/bin/python") and key(guest) == before

    dpkg_done(guest, "-i", "/root/newer.deb")
    assert key(guest) == before
    let_go_on(guest, operation, worker)

    # Apache serves the virtual host from the agent's directory, and goes on with it.
    vhosts = guest.machine.output("sh", "-c", "ls /etc/scalr/private.d/vhosts")
    assert vhosts
    said = dpkg_done(guest, "--purge", "scalarizr")
    assert "kept" in said, said
    assert guest.machine.output("sh", "-c", "ls /etc/scalr/private.d/vhosts") == vhosts
    assert guest.machine.run("apache2ctl", "configtest").status == 0
    left = guest.machine.output("find", "/etc/scalr", "/var/lib/scalarizr", "-type", "f").splitlines()
    assert sorted(path for path in left if "/vhosts/" not in path) == [
        "/var/lib/scalarizr/backups/one",
        "/var/lib/scalarizr/volumes/one.img",
    ]
    for path in ("/opt/scalarizr", "/usr/bin/scalarizr", "/usr/share/doc/scalarizr", "/var/log/scalarizr.log"):
        assert not there(guest, path), path
    for unit in UNITS:
        assert guest.shows(unit, "LoadState") == "not-found", unit
    assert guest.machine.output("sh", "-c", "find /etc/systemd /lib/systemd -name 'scalarizr*'") == ""
    assert "scalarizr" not in guest.machine.output("dpkg-query", "-W", "-f", "${Package}\\n")
