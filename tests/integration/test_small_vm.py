"""What only a machine of its own can prove: systemd as the service manager, Debian's own layouts, real power cuts.

The machine is emulated (`small_vm.py`): a call that takes 30 ms elsewhere takes seconds in it.
"""

import hashlib
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from private_servers import make_certificate
from small_vm import Image, image_of_the_product, small_vm
from small_vm_agent import Guest, last_words_printed, wait_for

pytestmark = [pytest.mark.long, pytest.mark.root, pytest.mark.timeout(3600)]
UNITS = {"nginx": "nginx.service", "apache": "apache2.service"}
PORTS = {"nginx": 80, "apache": 8080}
FETCH = """\
exec 3<>/dev/tcp/127.0.0.1/$1
printf 'GET %s HTTP/1.0\\r\\nHost: %s\\r\\n\\r\\n' "$3" "$2" >&3
cat <&3
"""
BROKEN = {"nginx": "/etc/nginx/conf.d/broken.conf", "apache": "/etc/apache2/conf-enabled/broken.conf"}


class WebGuest(Guest):
    """The agent and two web servers in a virtual machine."""

    def fetch(self, port: int, host: str = "localhost", path: str = "/") -> str:
        return self.machine.output("bash", "-ec", FETCH, "fetch", str(port), host, path)

    def workers(self) -> set[str]:
        """Give the pids of nginx's workers that take connections."""
        return set(self.machine.output("pgrep", "-f", "^nginx: worker process$").split())

    def proxy(self, answer: str, **more: object) -> Any:
        """Make the proxy that answers `answer` under /which."""
        return self.call(
            "nginx.make_proxy",
            hostname="www.example.com",
            backends=[{"host": "10.0.0.1"}],
            templates=[{"content": f"return 200 {answer};", "location": "/which"}],
            **more,
        )

    def serves(self) -> str:
        return self.fetch(80, "www.example.com", "/which").splitlines()[-1]

    def status_of(self, change: str) -> str:
        """Read it from the change's record: the agent may be away."""
        record = self.machine.output("cat", f"/var/lib/scalarizr/changes/history/{change}/record.json")
        return str(json.loads(record)["status"])

    def guard_of(self, change: str) -> str:
        return self.machine.output("pgrep", "-f", "--", f" {change} /var/lib/scalarizr/changes/history/")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    with image_of_the_product(tmp_path_factory.mktemp("image")) as made:
        yield made


@pytest.fixture(scope="module")
def shared(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebGuest]:
    """A machine for the tests that leave it as they found it."""
    with small_vm(image, tmp_path_factory.mktemp("shared")) as machine:
        yield WebGuest(machine)


@pytest.fixture
def guest(shared: WebGuest) -> Iterator[WebGuest]:
    with last_words_printed(shared):
        yield shared


@pytest.fixture
def own_guest(image: Image, tmp_path: Path) -> Iterator[WebGuest]:
    """A machine for one test that cuts its power, or wants it as it was installed."""
    with small_vm(image, tmp_path) as machine:
        running = WebGuest(machine)
        with last_words_printed(running):
            yield running


# systemd as the service manager


@pytest.mark.parametrize("name", UNITS)
def test_a_service_is_stopped_started_and_restarted_through_systemd(guest: WebGuest, name: str) -> None:
    unit = UNITS[name]
    assert guest.call(f"{name}.get_service_status") == 0
    first = guest.shows(unit, "MainPID")

    guest.call(f"{name}.stop_service", reason="a test")
    assert guest.shows(unit, "ActiveState") == "inactive"
    assert guest.machine.run("kill", "-0", first).status != 0
    assert guest.call(f"{name}.get_service_status") == 3

    guest.call(f"{name}.start_service")
    assert "200 OK" in guest.fetch(PORTS[name])
    second = guest.shows(unit, "MainPID")
    assert guest.machine.output("systemctl", "is-active", unit) == "active" and second not in ("0", first)
    assert guest.call(f"{name}.get_service_status") == 0

    guest.call(f"{name}.restart_service", reason="a test")
    assert "200 OK" in guest.fetch(PORTS[name])
    third = guest.shows(unit, "MainPID")
    assert guest.machine.output("systemctl", "is-active", unit) == "active" and third not in ("0", second)

    old = set(guest.machine.output("pgrep", "-P", third).split())
    guest.call(f"{name}.reload_service", reason="a test")
    assert "200 OK" in guest.fetch(PORTS[name])
    assert guest.shows(unit, "MainPID") == third
    assert set(guest.machine.output("pgrep", "-P", third).split()) - old, "no worker of a new generation"


@pytest.mark.parametrize("name", UNITS)
def test_a_start_that_fails_gives_the_service_s_own_words(guest: WebGuest, name: str) -> None:
    guest.call(f"{name}.stop_service")
    holder = f"import socket, time; s = socket.create_server(('', {PORTS[name]})); time.sleep(600)"
    guest.machine.output("systemd-run", "--quiet", "--unit=holder", "/usr/bin/python3", "-c", holder)
    guest.shell(f"while ! ss -Hltn | grep -q ':{PORTS[name]} '; do sleep 0.2; done")
    try:
        words = guest.refusal(f"{name}.start_service")
        assert "did not start" in words and "Address already in use" in words and str(PORTS[name]) in words
        assert guest.machine.run("systemctl", "is-active", UNITS[name]).output.strip() == "failed"
        assert guest.call(f"{name}.get_service_status") in (1, 3)
    finally:
        guest.machine.run("systemctl", "stop", "holder")
    guest.machine.output("sh", "-c", f"echo 'NoSuchDirective on;' > {BROKEN[name]}")
    try:
        assert "NoSuchDirective" in guest.refusal(f"{name}.start_service")
    finally:
        guest.machine.output("rm", BROKEN[name])
    guest.call(f"{name}.start_service")
    assert "200 OK" in guest.fetch(PORTS[name])


def test_a_restart_with_a_bad_configuration_leaves_it_running(guest: WebGuest) -> None:
    pid = guest.shows("nginx.service", "MainPID")
    guest.machine.output("sh", "-c", f"echo 'no_such_directive on;' > {BROKEN['nginx']}")
    try:
        assert "no_such_directive" in guest.refusal("nginx.restart_service")
        assert "no_such_directive" in guest.refusal("nginx.reload_service")
    finally:
        guest.machine.output("rm", BROKEN["nginx"])
    assert guest.shows("nginx.service", "MainPID") == pid and "200 OK" in guest.fetch(80)


def test_systemd_s_limit_of_starts_refuses_no_caller(guest: WebGuest) -> None:
    limit = "/run/systemd/system/nginx.service.d/limit.conf"
    guest.shell(
        f"mkdir -p {Path(limit).parent}; printf '[Unit]\\nStartLimitBurst=2\\nStartLimitIntervalSec=1h\\n' > {limit}\n"
        "systemctl daemon-reload"
    )
    try:
        for _time in range(4):
            guest.call("nginx.restart_service")
    finally:
        guest.shell(f"rm {limit}; systemctl daemon-reload; systemctl reset-failed nginx")
    assert guest.machine.output("systemctl", "is-active", "nginx") == "active"


def test_one_that_a_person_started_by_hand_is_stopped_too(guest: WebGuest) -> None:
    guest.call("nginx.stop_service")
    guest.machine.output("systemd-run", "--quiet", "--wait", "--property=KillMode=none", "nginx")
    assert "200 OK" in guest.fetch(80) and guest.call("nginx.get_service_status") == 0
    guest.call("nginx.stop_service")
    assert guest.call("nginx.get_service_status") == 3 and guest.machine.run("pgrep", "nginx").status == 1
    guest.call("nginx.start_service")
    assert guest.machine.output("systemctl", "is-active", "nginx") == "active"


def test_a_service_that_has_only_an_init_script_is_started_again_after_a_crash(guest: WebGuest) -> None:
    unit = "/lib/systemd/system/nginx.service"
    guest.call("nginx.stop_service")
    guest.shell(f"mv {unit} /root/; systemctl daemon-reload")
    try:
        guest.call("nginx.start_service")
        assert guest.shows("nginx.service", "SourcePath") == "/etc/init.d/nginx"
        # Not below the agent: what ends that would take it along.
        assert "/system.slice/nginx.service" in guest.shell("cat /proc/$(cat /run/nginx.pid)/cgroup")
        guest.shell("pkill -KILL -x nginx; while pgrep -x nginx; do sleep 0.1; done")
        assert guest.call("nginx.get_service_status") == 1
        guest.call("nginx.start_service")
        assert "200 OK" in guest.fetch(80)
        guest.call("nginx.stop_service")
        assert guest.call("nginx.get_service_status") == 3
    finally:
        guest.shell(f"systemctl stop nginx; mv /root/nginx.service {unit}; systemctl daemon-reload")
    guest.call("nginx.start_service")
    assert guest.shows("nginx.service", "FragmentPath") == unit and "200 OK" in guest.fetch(80)


# The agent as a service


def test_the_unit_is_started_when_the_agent_answers(guest: WebGuest) -> None:
    pid = guest.shows("scalarizr.service", "MainPID")
    name = guest.machine.output("hostname")
    assert guest.shell("systemctl restart scalarizr; scalarizr call system.get_hostname --json") == f'"{name}"'
    assert guest.shows("scalarizr.service", "MainPID") != pid
    guest.machine.output("systemctl", "reload", "scalarizr")
    guest.shell("until tail -n1 /var/log/scalarizr.log | grep -q 'settings re-read'; do sleep 0.2; done")


def test_an_operation_outlives_a_restart_of_the_agent(guest: WebGuest) -> None:
    template = "<VirtualHost *:8080>\nDocumentRoot /var/www/html\n</VirtualHost>"
    host = {"hostname": "a.example.com", "port": 8080, "template": template, "ssl": False}
    operation = guest.call("apache.reconfigure", vhosts=[host], **{"async": True})
    # Held still, so that the agent is sure to go before its worker ends.
    worker = guest.shell("until pkill -STOP -f scalarizr.worker; do :; done; pgrep -f scalarizr.worker")
    guest.machine.output("systemctl", "restart", "scalarizr")
    assert guest.call("operation.result", operation_id=operation)["status"] in ("new", "in-progress")
    guest.machine.output("kill", "-CONT", worker)
    deadline = time.monotonic() + 300
    while (result := guest.call("operation.result", operation_id=operation))["status"] in ("new", "in-progress"):
        assert time.monotonic() < deadline
    assert result["status"] == "completed" and len(result["result"]) == 1, result
    assert guest.call("apache.list_served_virtual_hosts") == result["result"]
    guest.call("apache.reconfigure", vhosts=[], **{"async": False})


class Waiting:
    """A change to `new` that waits for its confirmation since just now, long enough for what a test does meanwhile."""

    def __init__(self, guest: WebGuest) -> None:
        begin = time.monotonic()
        guest.proxy("old")
        # How long that takes depends on what else the computer under the machine has to do.
        self.patience = math.ceil(max(60, 8 * (time.monotonic() - begin)))
        self.guest = guest
        made = guest.proxy("new", _confirm_within=min(self.patience, 3600))
        # The deadline counts from before the change, and the change took its time.
        self.end = guest.uptime() + made["confirm_by"] - float(guest.machine.output("date", "+%s.%N"))
        self.id: str = made["change_id"]
        self.guard = guest.guard_of(self.id)
        assert guest.status_of(self.id) == "waiting" and guest.serves() == "new"

    def expect_taken_back_in_time(self) -> None:
        # To begin with the work takes the emulated machine many seconds.
        wait_for(lambda: self.guest.status_of(self.id) != "waiting", 3 * self.patience)
        seen = self.guest.uptime()
        assert self.end - 1 < seen < self.end + 1.5 * self.patience
        assert self.guest.status_of(self.id) == "reverted" and self.guest.serves() == "old"


@pytest.mark.parametrize("how", ["restart", "stop", "kill --signal=KILL --kill-whom=main"])
def test_the_guard_of_a_change_outlives_the_agent_s_unit(guest: WebGuest, how: str) -> None:
    restarts = int(guest.shows("scalarizr.service", "NRestarts"))
    waiting = Waiting(guest)
    guest.machine.output("systemctl", *how.split(), "scalarizr.service")
    assert guest.guard_of(waiting.id) == waiting.guard
    if how.startswith("kill"):
        state = [str(restarts + 1), "active"]
        wait_for(lambda: [guest.shows("scalarizr.service", name) for name in ("NRestarts", "ActiveState")] == state)
        assert guest.guard_of(waiting.id) == waiting.guard
    waiting.expect_taken_back_in_time()
    if how == "stop":
        assert guest.shows("scalarizr.service", "ActiveState") == "inactive"
        guest.machine.output("systemctl", "start", "scalarizr")
    assert guest.call("change.list", limit=1)[0]["status"] == "reverted"


def test_agent_and_guard_killed_the_agent_that_systemd_starts_again_ends_the_change(guest: WebGuest) -> None:
    waiting = Waiting(guest)
    guest.machine.output("systemctl", "kill", "--signal=KILL", "scalarizr.service")
    guest.shell(f"while kill -0 {waiting.guard}; do sleep 0.1; done 2> /dev/null")
    waiting.expect_taken_back_in_time()


@pytest.mark.parametrize("shift", ["+1 day", "-1 day"])
@pytest.mark.parametrize("agent", ["agent", "guard alone"])
def test_a_clock_that_is_set_moves_no_deadline(guest: WebGuest, shift: str, agent: str) -> None:
    waiting = Waiting(guest)
    if agent == "guard alone":
        guest.machine.output("systemctl", "stop", "scalarizr")
    guest.machine.output("date", "--set", shift)
    try:
        assert guest.status_of(waiting.id) == "waiting"
        waiting.expect_taken_back_in_time()
    finally:
        guest.machine.output("date", "--set", "-1 day" if shift == "+1 day" else "+1 day")
        guest.machine.output("systemctl", "start", "scalarizr")


# Debian as it is installed


def test_a_proxy_and_a_virtual_host_on_debian_as_it_is_installed(own_guest: WebGuest) -> None:
    guest = own_guest
    mounts = guest.machine.output("cat", "/proc/1/mountinfo")
    # Debian's nginx and Apache share their default page; whose page says that there is none, shows who answers.
    assert "<center>nginx/" in guest.fetch(80, path="/missing")
    template = "<VirtualHost *:8080>\nServerName www.example.com\nDocumentRoot /var/www/example\n</VirtualHost>"
    path = guest.call("apache.create_vhost", hostname="www.example.com", port=8080, template=template, ssl=False)
    guest.machine.output("sh", "-c", "echo 'from the virtual host' > /var/www/example/index.html")
    assert guest.call("apache.list_served_virtual_hosts") == [path]
    assert "from the virtual host" in guest.fetch(8080, "www.example.com")
    assert "Apache2 Debian Default Page" in guest.fetch(8080, "localhost")

    master, workers = guest.shows("nginx.service", "MainPID"), guest.workers()
    guest.call("nginx.make_proxy", hostname="www.example.com", backends=[{"host": "127.0.0.1", "port": 8080}])
    assert guest.shows("nginx.service", "MainPID") == master and not workers & guest.workers()
    assert "from the virtual host" in guest.fetch(80, "www.example.com")
    # The default site is out of the way: what nobody else's name is goes to the proxy.
    assert "Apache/2" in guest.fetch(80, path="/missing")
    assert guest.machine.run("test", "-e", "/etc/nginx/sites-enabled/default").status == 1
    made = guest.call("change.list", limit=1)[0]
    assert "/etc/nginx/sites-enabled/default" in made["files"]

    guest.call("change.revert", id=made["id"])
    assert "<center>nginx/" in guest.fetch(80, path="/missing")
    assert guest.machine.output("readlink", "/etc/nginx/sites-enabled/default") == "/etc/nginx/sites-available/default"
    assert guest.machine.output("cat", "/proc/1/mountinfo") == mounts, "a validation's mounts were left to everybody"


# Power cuts


def test_what_was_confirmed_right_before_a_power_cut_stays(own_guest: WebGuest) -> None:
    guest = own_guest
    made = guest.proxy("confirmed", _confirm_within=600)["change_id"]
    guest.call("change.confirm", id=made)
    guest.cut_power_and_boot()
    assert guest.serves() == "confirmed" and guest.status_of(made) == "applied"
    assert guest.call("change.list")[0]["status"] == "applied"


@pytest.mark.parametrize("end", ["power cut", "reboot"])
def test_a_boot_takes_back_what_waited_before_the_services_start(own_guest: WebGuest, end: str) -> None:
    guest = own_guest
    guest.proxy("old")
    waiting = guest.proxy("new", _confirm_within=600)["change_id"]
    template = "<VirtualHost *:8080>\nServerName b.example.com\nDocumentRoot /var/www/html\n</VirtualHost>"
    host = guest.call(
        "apache.create_vhost", hostname="b.example.com", port=8080, template=template, ssl=False, _confirm_within=600
    )
    assert guest.serves() == "new" and guest.machine.run("test", "-e", host["result"]).status == 0

    if end == "power cut":
        guest.cut_power_and_boot()
    else:
        guest.reboot()

    done = int(guest.shows("scalarizr-guard.service", "ExecMainExitTimestampMonotonic"))
    assert done > 0 and guest.shows("scalarizr-guard.service", "Result") == "success"
    for unit in (*UNITS.values(), "scalarizr.service"):
        assert guest.shows(unit, "ActiveState") == "active"
        assert int(guest.shows(unit, "InactiveExitTimestampMonotonic")) > done, f"{unit} came before the guard's end"
    assert guest.serves() == "old"
    assert guest.machine.run("test", "-e", host["result"]).status == 1
    statuses = {change["id"]: change["status"] for change in guest.call("change.list")}
    assert statuses[waiting] == "reverted" and statuses[host["change_id"]] == "reverted"
    assert guest.proxy("newer") is None and guest.serves() == "newer"


FLIP = """\
import json, sys
from scalarizr.client import Client
key = "/etc/scalr/private.d/keys/default"
with Client("http://127.0.0.1:8010", key_file=key, timeout=120) as api:
    for number in range(int(sys.argv[1]), int(sys.argv[2])):
        sets = json.loads(sys.argv[3])
        api.nginx.recreate_proxying(proxy_list=sets[number % 2])
        print(number)
"""
PENDING = "/var/lib/scalarizr/changes/pending"
LIVE = (
    "cd /; find etc/nginx etc/scalr/private.d/keys ! -type d ! -name default -print0 | sort -z "
    '| xargs -0 sh -c \'for f; do stat -c "%n %a %u %N" "$f"; cat "$f"; done\' show'
)


def test_power_cut_in_the_middle_of_changes_leaves_the_old_set_or_the_new_one(
    own_guest: WebGuest, tmp_path: Path
) -> None:
    guest = own_guest
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    guest.machine.output("mkdir", "-p", "/etc/scalr/environment/certificates")
    for identity in ("1", "2"):
        make_certificate(tmp_path, identity, "www.example.com")
        for suffix in ("crt", "key"):
            place = f"/etc/scalr/environment/certificates/{identity}.{suffix}"
            guest.machine.output("tee", place, text=(tmp_path / f"{identity}.{suffix}").read_text())
    sets = [
        [
            {
                "hostname": "www.example.com",
                "backends": [{"host": f"10.0.0.{identity}"}],
                "ssl": True,
                "ssl_certificate_id": identity,
                "templates": [{"content": f"return 200 {identity};", "location": "/which"}],
            },
            *({"hostname": f"{n}.example.com", "backends": [{"host": "10.0.0.9"}]} for n in range(20 * identity)),
        ]
        for identity in (1, 2)
    ]
    flip = ["/opt/scalarizr/bin/python", "-c", FLIP]
    states = {}
    for number in (1, 2, 3, 4):
        guest.machine.output(*flip, str(number), str(number + 1), json.dumps(sets), timeout=300)
        if number > 2:  # both certificates are there from now on
            states[hashlib.sha256(guest.shell(LIVE).encode()).hexdigest()] = str(number % 2 + 1)
    assert sorted(states.values()) == ["1", "2"]

    met = 0
    for _cut in range(8):
        guest.machine.output("systemd-run", "--quiet", *flip, "1", "1000", json.dumps(sets))
        for _change in range(chance.randint(1, 4)):
            guest.shell(f"until ls {PENDING} | grep -q .; do :; done")
            time.sleep(chance.uniform(0, 0.5))
        guest.cut_power_and_boot()
        assert guest.machine.run("nginx", "-t").status == 0
        live = hashlib.sha256(guest.shell(LIVE).encode()).hexdigest()
        assert live in states, guest.shell(LIVE)
        assert guest.serves() == states[live]
        assert guest.machine.output("find", PENDING, "-mindepth", "1") == ""
        statuses = [change["status"] for change in guest.call("change.list")]
        assert set(statuses) <= {"applied", "failed"}
        met = statuses.count("failed")
        if met == 2:
            break
    print(f"{met} of the cuts were in the middle of a change")
    assert met, "no cut came in the middle of a change"
