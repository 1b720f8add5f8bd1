"""The units of systemd (`docs/units.md`) in a machine of its own: what they promise, and what they must not break."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from small_vm import WEB_SERVERS, image_of_the_product, small_vm
from small_vm_agent import Guest, last_words_printed, wait_for

pytestmark = [pytest.mark.long, pytest.mark.root, pytest.mark.timeout(3600)]
SERVICE = "scalarizr.service"
KEY = "/etc/scalr/private.d/keys/default"
PYTHON = "/opt/scalarizr/bin/python"
# Sends a message, the same one each time; prints what the agent answers.
SEND = """\
import sys, time
from pathlib import Path
from http.client import HTTPConnection
from scalarizr.envelope import sealed
from scalarizr.envelope.key import ServerKey
kept = Path("/root/message")
if not kept.exists():
    question = b'{"jsonrpc": "2.0", "method": "get_hostname", "params": {}, "id": 1}'
    header = {"aud": "/system", "iat": int(time.time()), "jti": sealed.new_id()}
    kept.write_bytes(sealed.seal(ServerKey.from_file(Path(sys.argv[1])), question, header))
connection = HTTPConnection("127.0.0.1", 8010, timeout=600)
connection.request("POST", "/system", kept.read_bytes(), {"Content-Type": "application/jose"})
answer = connection.getresponse()
print(answer.status, answer.read().decode() if answer.status != 200 else "")
"""
CALLERS = Path(__file__).parents[1] / "unbroken_calls.py"


class UnitGuest(Guest):
    """The agent in a virtual machine, behind the socket of its unit."""

    def agent(self) -> str:
        """Give the agent's pid; 0 where there is none."""
        return self.shows(SERVICE, "MainPID")

    def state(self) -> tuple[str, str]:
        return self.shows(SERVICE, "ActiveState"), self.shows("scalarizr.socket", "SubState")

    def set(self, name: str, value: str) -> None:
        """Uncomment a setting of `scalarizr.toml`, and have it in force from the next start on."""
        self.shell(f"sed -i 's|^# {name} =.*|{name} = {value}|' /etc/scalr/scalarizr.toml")

    def unset(self, name: str) -> None:
        self.shell(f"sed -i 's|^{name} =.*|# {name} =|' /etc/scalr/scalarizr.toml")

    def restart(self) -> None:
        self.machine.output("systemctl", "restart", SERVICE)

    def send(self) -> str:
        return self.machine.output(PYTHON, "-c", SEND, KEY)

    def journal(self) -> str:
        return self.machine.output("journalctl", "--no-pager", "--output=cat", "--unit=scalarizr.service")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnitGuest]:
    with (
        image_of_the_product(tmp_path_factory.mktemp("image")) as image,
        small_vm(image, tmp_path_factory.mktemp("machine"), without=WEB_SERVERS[1:]) as machine,
    ):
        yield UnitGuest(machine)


@pytest.fixture
def guest(shared: UnitGuest) -> Iterator[UnitGuest]:
    with last_words_printed(shared):
        yield shared


def test_systemd_knows_what_the_units_say(guest: UnitGuest) -> None:
    said = guest.machine.output("journalctl", "--no-pager", "--output=cat", "--boot", "--identifier=systemd")
    ignored = [line for line in said.splitlines() if "scalarizr" in line and "ignoring" in line]
    # Debian 12's systemd is older than these two.
    assert all("RestartSteps" in line or "RestartMaxDelaySec" in line for line in ignored), ignored
    assert guest.state() == ("active", "running")
    assert guest.shows(SERVICE, "KillMode") == "process" and guest.shows(SERVICE, "WatchdogUSec") == "3min"
    status = guest.shell(f"cat /proc/{guest.agent()}/status")
    assert "Seccomp:\t2" in status and "NoNewPrivs:\t0" in status
    environment = guest.shell(f"tr '\\0' '\\n' < /proc/{guest.agent()}/environ; echo $INVOCATION_ID")
    assert "LISTEN_FDS=1" in environment and "WATCHDOG_USEC=180000000" in environment
    # It shares the file systems' view with everybody else: what it mounts is there for all.
    assert guest.shell(f"readlink /proc/1/ns/mnt /proc/{guest.agent()}/ns/mnt | uniq | wc -l") == "1"


def test_an_idle_agent_leaves_and_the_next_connection_brings_it_back(guest: UnitGuest) -> None:
    guest.set("idle_exit", '"3 s"')
    guest.restart()
    try:
        assert guest.send() == "200"
        wait_for(lambda: guest.state() == ("inactive", "listening"))
        assert guest.shell("pgrep --full --count 'scalarizr serve' || true") == "0"
        # What was accepted before is not accepted again by the one that comes back.
        assert guest.send() == "400 This request was seen before\n".strip()
        assert guest.state() == ("active", "running")
        assert guest.call("system.get_hostname") == guest.machine.output("hostname")
        assert "there is nothing to do" in guest.shell("cat /var/log/scalarizr.log")
        assert guest.shows(SERVICE, "NRestarts") == "0" and guest.shows(SERVICE, "Result") == "success"
    finally:
        guest.unset("idle_exit")
        guest.restart()


def test_a_change_that_nobody_confirms_is_taken_back_while_the_agent_is_away(guest: UnitGuest) -> None:
    template = [{"content": "return 200 old;", "location": "/which"}]
    proxy = {"hostname": "www.example.com", "backends": [{"host": "10.0.0.1"}]}
    guest.call("nginx.make_proxy", **proxy, templates=template)
    template[0]["content"] = "return 200 new;"
    made = guest.call("nginx.make_proxy", **proxy, templates=template, _confirm_within=60)
    record = f"/var/lib/scalarizr/changes/history/{made['change_id']}/record.json"
    guest.machine.output("systemctl", "stop", SERVICE)

    def status() -> str:
        return str(json.loads(guest.machine.output("cat", record))["status"])

    wait_for(lambda: status() == "reverted", 600)
    assert guest.state() == ("inactive", "listening"), "the guard did it alone"
    assert guest.call("change.list", limit=1)[0]["status"] == "reverted"
    guest.call("nginx.remove_proxy", hostname="www.example.com")


def test_an_agent_that_waits_for_a_confirmation_does_not_leave(guest: UnitGuest) -> None:
    guest.set("idle_exit", '"2 s"')
    guest.restart()
    pid = guest.agent()
    try:
        proxy = {"hostname": "www.example.com", "backends": [{"host": "10.0.0.1"}]}
        made = guest.call("nginx.make_proxy", **proxy, _confirm_within=3600)
        guest.shell("sleep 10")  # five times as long as it stays where nothing waits
        assert guest.agent() == pid
        guest.call("change.confirm", id=made["change_id"])
        wait_for(lambda: guest.state() == ("inactive", "listening"))
        guest.call("nginx.remove_proxy", hostname="www.example.com")
    finally:
        guest.unset("idle_exit")
        guest.restart()


def test_an_agent_that_hangs_is_started_again(guest: UnitGuest) -> None:
    guest.shell(
        f"mkdir -p /run/systemd/system/{SERVICE}.d\n"
        f"printf '[Service]\\nWatchdogSec=20\\n' > /run/systemd/system/{SERVICE}.d/watchdog.conf\n"
        "systemctl daemon-reload"
    )
    try:
        guest.restart()
        pid, restarts = guest.agent(), int(guest.shows(SERVICE, "NRestarts"))
        # Signs of life come: twice as long as it may be silent it is let be.
        guest.shell("sleep 40")
        assert guest.agent() == pid
        guest.shell(f"kill -STOP {pid}")
        wait_for(lambda: guest.shows(SERVICE, "NRestarts") == str(restarts + 1) and guest.agent() not in ("0", pid))
        assert guest.call("system.get_hostname") == guest.machine.output("hostname")
        journal = guest.journal()
        assert "Watchdog timeout" in journal and "run_forever" in journal, journal
        assert guest.shell("find / -xdev -name 'core*' -newer /run/systemd/system/scalarizr.service.d -type f") == ""
    finally:
        guest.shell(f"rm -r /run/systemd/system/{SERVICE}.d; systemctl daemon-reload")
        guest.restart()


def test_an_upgrade_under_load_refuses_nobody(guest: UnitGuest) -> None:
    guest.set("head_timeout", '"5 min"')
    guest.restart()
    guest.machine.output("sh", "-c", "cat > /root/unbroken_calls.py", text=CALLERS.read_text())
    script = f"{PYTHON} /root/unbroken_calls.py 8010 {KEY} 4 /root/enough > /root/said 2>&1"
    guest.machine.output("systemd-run", "--quiet", "--unit=callers", "sh", "-c", script)
    try:
        wait_for(lambda: guest.machine.run("grep", "calling", "/root/said").status == 0)
        for _ in range(3):
            pid = guest.agent()
            guest.restart()
            assert guest.agent() not in ("0", pid)
        guest.shell("touch /root/enough; while systemctl --quiet is-active callers; do sleep 0.2; done")
        said = json.loads(guest.shell("tail -n 1 /root/said"))
        assert said["broken"] == [] and said["calls"] > 10, said
    finally:
        guest.machine.run("systemctl", "stop", "callers")
        guest.unset("head_timeout")
        guest.restart()


@pytest.mark.parametrize("how", ["stop", "restart"])
def test_an_operation_goes_on_without_the_agent_and_ends_well(guest: UnitGuest, how: str) -> None:
    guest.shell("rm -f /root/go /root/began")
    script = "#!/bin/sh\ntouch /root/began\nwhile [ ! -e /root/go ]; do sleep 0.2; done\necho done\n"
    operation = guest.call(
        "system.execute_scripts",
        scripts=[{"name": "slow", "body": script, "timeout": 1200}],
        **{"async": True},
    )
    guest.shell("while [ ! -e /root/began ]; do sleep 0.2; done")
    guest.machine.output("systemctl", how, SERVICE)
    assert guest.state()[0] == ("inactive" if how == "stop" else "active")
    worker = guest.shell("pgrep --full '[s]calarizr.worker'")
    if how == "restart":
        assert guest.call("operation.result", operation_id=operation)["status"] == "in-progress"
    guest.shell(f"touch /root/go; while kill -0 {worker}; do sleep 0.2; done 2> /dev/null")
    assert how == "restart" or guest.state() == ("inactive", "listening")
    wait_for(lambda: guest.call("operation.result", operation_id=operation)["status"] == "completed")
    result = guest.call("operation.result", operation_id=operation)["result"]
    assert [one["return_code"] for one in result] == [0], result


def test_a_volume_that_is_mounted_is_mounted_for_all(guest: UnitGuest) -> None:
    volume = guest.call(
        "storage.create",
        storage_config={"type": "loop", "file": "/root/volume.img", "size": 0.05, "mpoint": "/mnt/volume"},
        mkfs=True,
        mount=True,
        fstab=True,
    )
    assert " /mnt/volume " in guest.shell("cat /proc/1/mountinfo")
    guest.shell("echo something > /mnt/volume/file")
    guest.restart()
    assert guest.shell("cat /mnt/volume/file") == "something"
    guest.call("storage.destroy", volume=volume)
    assert " /mnt/volume " not in guest.shell("cat /proc/1/mountinfo")


def test_scripts_may_do_what_an_administrator_does(guest: UnitGuest) -> None:
    script = """#!/bin/sh
set -eu
mkdir -p /mnt/script
mount -t tmpfs none /mnt/script
modprobe dummy
ip link add trial type dummy
ip link delete trial
unshare --net --mount true
date --set "$(date)"
swap=/root/swap
dd if=/dev/zero of=$swap bs=1M count=4 status=none
chmod 600 $swap
mkswap $swap > /dev/null
swapon $swap
swapoff $swap
rm $swap
touch /root/special
chmod 4755 /root/special
test -u /root/special
chattr +i /root/special
chattr -i /root/special
mknod /root/device b 7 99
rm /root/device /root/special
runuser -u nobody -- id > /dev/null
nice -n -5 true
dmesg > /dev/null
sysctl -q -w kernel.printk="$(sysctl -n kernel.printk)"
"""
    (result,) = guest.call("system.execute_scripts", scripts=[{"name": "all", "body": script, "timeout": 600}])
    said = guest.call("system.get_script_logs", exec_script_id=result["execution_id"])
    assert result["return_code"] == 0, (result, said)
    assert " /mnt/script " in guest.shell("cat /proc/1/mountinfo")
    guest.shell("umount /mnt/script")


def test_a_start_that_fails_is_not_tried_again_at_once_though_somebody_waits(guest: UnitGuest) -> None:
    guest.shell("cp /etc/scalr/scalarizr.toml /root/kept.toml; systemctl stop scalarizr.service")
    guest.shell("printf '[api]\\nqueue = 0\\n' > /etc/scalr/scalarizr.toml")
    starts = "journalctl --no-pager --output=cat --unit=scalarizr.service | grep --count 'queue' || true"
    before, began = int(guest.shell(starts)), time.monotonic()
    guest.machine.output("systemd-run", "--quiet", "--unit=waiting", PYTHON, "-c", SEND, KEY)
    try:
        wait_for(lambda: int(guest.shell(starts)) >= before + 4)
        # Two seconds between them at least, however fast the machine is.
        assert int(guest.shell(starts)) - before <= (time.monotonic() - began) / 2 + 2
    finally:
        guest.shell("cp /root/kept.toml /etc/scalr/scalarizr.toml")
    # Who waited is answered in the end, by the agent that is started then without anybody's doing.
    guest.shell("while systemctl --quiet is-active waiting; do sleep 0.2; done")
    assert guest.shows("waiting.service", "Result") == "success"
    wait_for(lambda: guest.state() == ("active", "running"))


def test_the_addresses_of_the_settings_count_where_the_unit_has_others(guest: UnitGuest) -> None:
    guest.shell("sed -i '0,/^# listen =.*/s//listen = \"127.0.0.1:8010\"/' /etc/scalr/scalarizr.toml")
    reach = "exec 3<>/dev/tcp/{}/8010 2> /dev/null && echo reached || echo refused"
    try:
        guest.restart()
        assert guest.call("system.get_hostname") == guest.machine.output("hostname")
        assert guest.machine.output("bash", "-c", reach.format("127.0.0.1")) == "reached"
        assert guest.machine.output("bash", "-c", reach.format("127.0.0.2")) == "refused"
        assert "closed 0.0.0.0:8010 of scalarizr.socket" in guest.shell("cat /var/log/scalarizr.log")
        guest.machine.output("systemctl", "stop", SERVICE)
        wait_for(lambda: guest.state() == ("inactive", "failed"))
        # Without the unit's socket it listens by itself.
        guest.machine.output("systemctl", "start", SERVICE)
        assert guest.call("system.get_hostname") == guest.machine.output("hostname")
        assert guest.state() == ("active", "failed")
    finally:
        guest.shell(
            "sed -i 's/^listen = /# listen = /' /etc/scalr/scalarizr.toml\n"
            f"systemctl stop {SERVICE}; systemctl start scalarizr.socket; systemctl start {SERVICE}"
        )
    assert guest.state() == ("active", "running")
