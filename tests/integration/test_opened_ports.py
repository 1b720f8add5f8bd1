"""The ports of proxies and virtual hosts in an active firewall, through a real agent, nginx and Apache.

They run on a host in a network namespace, whose rules drop what nobody let through; the outside connects to it.
"""

import contextlib
import math
import os
import random
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from network_namespace import ADDRESSES, CLOSED, OPEN, Host, needs
from private_servers import PrivateApache, PrivateNginx, fetch, make_certificate
from rule_sets import DROPPING
from running_agent import RunningAgent
from scalarizr.client import AgentError, Client, ClientError

pytestmark = pytest.mark.root


class Setup:
    """An agent with a web server of its own, on a host behind a firewall."""

    def __init__(self, directory: Path, host: Host, kind: str) -> None:
        for parent in (directory, *directory.parents[:3]):
            if parent.stat().st_uid == os.geteuid():
                parent.chmod(parent.stat().st_mode | 0o011)
        self.host = host
        self.directory = directory
        host.nft(DROPPING)
        self.rules = host.rules()
        self.server = PrivateNginx(directory) if kind == "nginx" else PrivateApache(directory)
        self.agent = RunningAgent(directory, self.server.settings)
        certificates = self.agent.etc / "environment" / "certificates"
        make_certificate(certificates, "1", "www.example.com")
        self.agent.start()
        self.api: Client = self.agent.client(timeout=60)

    def close(self) -> None:
        self.api.close()
        self.server.stop()
        self.agent.stop()

    def opened(self) -> set[int]:
        """The ports that the agent's entries in the firewall let through."""
        lines = [line.split() for line in self.host.rules().splitlines() if 'comment "scalarizr"' in line]
        assert all(words[:2] == ["tcp", "dport"] for words in lines)
        ports = [int(words[2]) for words in lines]
        assert len(ports) == len(set(ports))
        return set(ports)

    def listened_on(self) -> set[int]:
        """The ports that the agent's proxies listen on."""
        proxies = self.server.directory / "proxies.include"
        text = proxies.read_text() if proxies.exists() else ""
        return {int(port) for port in re.findall(r"listen (?:\[::\]:)?(\d+)", text)}

    def seen(self, port: int, name: str = "www.example.com", *, tls: bool = False) -> int:
        """Give the status of a page that the outside gets."""
        with self.host.outside():
            return fetch(port, name, tls=tls, address=ADDRESSES["ip"])[0]

    def proxy(self, name: str = "www.example.com", **more: object) -> dict[str, object]:
        answer = [{"content": "return 204;", "location": "/"}]
        return {"hostname": name, "backends": [{"host": "10.0.0.1"}], "templates": answer, **more}

    def tls_proxy(self, name: str = "www.example.com", **more: object) -> dict[str, object]:
        return self.proxy(name, ssl=True, ssl_certificate_id=1, **more)

    def vhost(self, port: int = 8080, name: str = "www.example.com", **more: object) -> dict[str, object]:
        root = f"{self.directory}/sites/{name}"
        text = (
            f"<VirtualHost *:1>\nServerName {name}\nDocumentRoot {root}\n"
            f"<Directory {root}>\nRequire all granted\n</Directory>\n</VirtualHost>\n"
        )
        return {"hostname": name, "port": port, "template": text, "ssl": False, **more}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    with made.inside():
        yield made
    made.close()


@pytest.fixture
def nginx(tmp_path: Path, host: Host) -> Iterator[Setup]:
    made = Setup(tmp_path, host, "nginx")
    yield made
    made.close()


@pytest.fixture
def apache(tmp_path: Path, host: Host) -> Iterator[Setup]:
    made = Setup(tmp_path, host, "apache")
    made.api.apache.start_service()
    yield made
    made.close()


# Proxies of nginx


@pytest.mark.nginx
def test_a_proxy_s_ports_are_opened_and_closed_with_it(nginx: Setup) -> None:
    nginx.api.nginx.make_proxy(**nginx.tls_proxy())
    assert nginx.opened() == {80, 443}
    assert nginx.seen(80) == 204 and nginx.seen(443, tls=True) == 204
    assert nginx.host.open_to(80) == OPEN
    nginx.api.nginx.remove_proxy(hostname="www.example.com")
    assert nginx.opened() == set() and nginx.host.rules() == nginx.rules


@pytest.mark.nginx
def test_a_port_stays_open_while_another_proxy_uses_it(nginx: Setup) -> None:
    nginx.api.nginx.make_proxy(**nginx.tls_proxy())
    nginx.api.nginx.make_proxy(**nginx.proxy("plain.example.com"))
    nginx.api.nginx.make_proxy(**nginx.proxy("other.example.com", port=8080))
    assert nginx.opened() == {80, 443, 8080}
    nginx.api.nginx.remove_proxy(hostname="www.example.com")
    assert nginx.opened() == {80, 8080} and nginx.seen(80, "plain.example.com") == 204
    nginx.api.nginx.remove_proxy(hostname="plain.example.com")
    assert nginx.opened() == {8080}
    nginx.api.nginx.recreate_proxying(proxy_list=[nginx.proxy("new.example.com", port=8081)])
    assert nginx.opened() == {8081}


@pytest.mark.nginx
def test_what_turns_tls_on_and_off_opens_and_closes_its_port(nginx: Setup) -> None:
    nginx.api.nginx.make_proxy(**nginx.proxy())
    assert nginx.opened() == {80}
    nginx.api.nginx.enable_ssl(hostname="www.example.com", ssl_certificate_id=1)
    assert nginx.opened() == {80, 443} and nginx.seen(443, tls=True) == 204
    nginx.api.nginx.enable_ssl(hostname="www.example.com", ssl_port=8443)
    assert nginx.opened() == {80, 8443}
    nginx.api.nginx.disable_ssl(hostname="www.example.com")
    assert nginx.opened() == {80}


@pytest.mark.nginx
def test_a_port_that_was_open_before_is_open_afterwards(nginx: Setup) -> None:
    nginx.host.nft("insert rule inet own entry tcp dport { 80, 443 } accept\n")
    rules = nginx.host.rules()
    nginx.api.nginx.make_proxy(**nginx.tls_proxy())
    assert nginx.host.rules() == rules and nginx.seen(80) == 204
    nginx.api.nginx.remove_proxy(hostname="www.example.com")
    assert nginx.host.rules() == rules and not (nginx.agent.state / "firewall.json").exists()


@pytest.mark.nginx
def test_a_dry_run_and_what_is_refused_open_nothing(nginx: Setup) -> None:
    assert nginx.api.nginx.make_proxy(**nginx.tls_proxy(), _dry_run=True)["valid"]
    with pytest.raises(AgentError, match="Nothing was changed"):
        nginx.api.nginx.make_proxy(**nginx.proxy(templates=[{"content": "no_such_thing on;", "location": "/"}]))
    assert nginx.host.rules() == nginx.rules and not (nginx.agent.state / "firewall.json").exists()
    nginx.api.nginx.make_proxy(**nginx.proxy())
    assert nginx.api.nginx.remove_proxy(hostname="www.example.com", _dry_run=True)["valid"]
    assert nginx.opened() == {80}


@pytest.mark.nginx
@pytest.mark.parametrize("first", [True, False])
def test_a_change_that_fails_closes_what_it_opened(nginx: Setup, first: bool) -> None:
    assert isinstance(nginx.server, PrivateNginx)
    if not first:
        nginx.api.nginx.make_proxy(**nginx.proxy("first.example.com"))
        nginx.api.nginx.stop_service()
    nginx.server.start_confined()
    # nginx's test opens this log and says yes; the running master cannot.
    elsewhere = nginx.server.make_closed_directory("closed")
    templates = [{"content": f"access_log {elsewhere}/a.log;", "server": True}]
    with pytest.raises(AgentError, match="Everything was put back"):
        nginx.api.nginx.make_proxy(**nginx.tls_proxy(port=8080, templates=templates))
    assert nginx.opened() == (set() if first else {80})


@pytest.mark.nginx
def test_what_is_taken_back_takes_its_ports_with_it_and_brings_them_again(nginx: Setup) -> None:
    nginx.api.nginx.make_proxy(**nginx.tls_proxy())
    made = nginx.api.change.list()[0]["id"]
    nginx.api.nginx.remove_proxy(hostname="www.example.com")
    removed = nginx.api.change.list()[0]["id"]
    assert nginx.opened() == set()
    nginx.api.change.revert(id=removed)
    assert nginx.opened() == {80, 443} and nginx.seen(80) == 204
    nginx.api.change.revert(id=made)
    assert nginx.opened() == set() and nginx.host.rules() == nginx.rules


@pytest.mark.nginx
def test_a_proxy_that_nobody_confirmed_is_closed_and_a_removed_one_is_open(nginx: Setup) -> None:
    nginx.api.nginx.make_proxy(**nginx.proxy())
    within = time_to_look(nginx)
    nginx.api.nginx.make_proxy(**nginx.proxy("new.example.com", port=8080), _confirm_within=within)
    assert nginx.opened() == {80, 8080}
    wait_until_it_is_over(nginx)
    assert nginx.opened() == {80}
    nginx.api.nginx.remove_proxy(hostname="www.example.com", _confirm_within=5)
    wait_until_it_is_over(nginx)
    assert nginx.opened() == {80} and nginx.seen(80) == 204
    nginx.api.nginx.remove_proxy(hostname="www.example.com", _confirm_within=60)
    nginx.api.change.confirm(id=nginx.api.change.list()[0]["id"])
    assert nginx.opened() == set()


@pytest.mark.nginx
def test_while_a_removal_waits_a_start_of_the_agent_closes_nothing(nginx: Setup) -> None:
    nginx.api.nginx.make_proxy(**nginx.proxy())
    nginx.api.nginx.remove_proxy(hostname="www.example.com", _confirm_within=5)
    nginx.agent.kill()
    nginx.agent.start()
    wait_until_it_is_over(nginx)
    assert nginx.opened() == {80} and nginx.seen(80) == 204


def time_to_look(nginx: Setup) -> int:
    """Give a time for a confirmation in which the call and a look at the firewall are over, however slow this is."""
    began = time.monotonic()
    nginx.api.nginx.make_proxy(**nginx.proxy("trial.example.com", port=8090))
    nginx.api.nginx.remove_proxy(hostname="trial.example.com")
    assert nginx.opened() == {80}
    return max(5, math.ceil(5 * (time.monotonic() - began)))


def wait_until_it_is_over(setup: Setup, seconds: float = 100) -> None:
    deadline = time.monotonic() + seconds
    while any(change["status"] == "waiting" for change in setup.api.change.list()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.nginx
def test_after_a_reboot_the_ports_are_open_again(nginx: Setup) -> None:
    nginx.api.nginx.make_proxy(**nginx.tls_proxy())
    nginx.agent.stop()
    nginx.host.nft("flush ruleset\n" + DROPPING)
    assert nginx.host.open_to(80) == CLOSED
    nginx.agent.start()
    deadline = time.monotonic() + 60
    while nginx.opened() != {80, 443} and time.monotonic() < deadline:
        time.sleep(0.05)
    assert nginx.opened() == {80, 443} and nginx.host.open_to(80) == OPEN


@pytest.mark.nginx
def test_where_the_firewall_refuses_the_proxy_is_not_made(nginx: Setup) -> None:
    nginx.api.nginx.make_proxy(**nginx.proxy("other.example.com", port=8080))
    files, rules = nginx.server.files(), nginx.host.rules()
    with nginx.host.table_of_another_program():
        with pytest.raises(AgentError, match=r"firewall could not be changed: nft: [^$]* Everything was put back"):
            nginx.api.nginx.make_proxy(**nginx.proxy())
        assert nginx.opened() == {8080}
    assert nginx.host.rules() == rules and nginx.server.files() == files


@pytest.mark.nginx
def test_an_agent_killed_at_any_instant_leaves_the_ports_to_its_next_start(nginx: Setup) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for turn in range(10):
        port = 8000 + turn
        call = threading.Thread(target=make_and_remove, args=(nginx, port))
        call.start()
        time.sleep(chance.uniform(0, 0.6))
        nginx.agent.kill()
        call.join()
        nginx.agent.start()
        deadline = time.monotonic() + 60
        while nginx.opened() != nginx.listened_on():
            assert time.monotonic() < deadline, f"turn {turn}: {nginx.opened()} {nginx.listened_on()}"
            time.sleep(0.05)


def make_and_remove(setup: Setup, port: int) -> None:
    with contextlib.suppress(ClientError), setup.agent.client(timeout=60) as api:
        api.nginx.make_proxy(**setup.tls_proxy(f"{port}.example.com", port=port, ssl_port=port + 1000))
        api.nginx.remove_proxy(hostname=f"{port}.example.com")


@pytest.mark.nginx
@needs("strace")
def test_where_no_port_is_new_the_firewall_is_not_asked(nginx: Setup) -> None:
    def programs(**call: object) -> list[str]:
        with programs_of(nginx, nginx.directory / "strace.log") as run:
            nginx.api.nginx.make_proxy(**call)
        return run

    asked = programs(**nginx.proxy())
    assert "nft" in asked and nginx.opened() == {80}
    asked = programs(**nginx.proxy("other.example.com"))
    assert "nginx" in asked and not {"nft", "iptables", "iptables-nft", "ufw", "firewall-cmd"}.intersection(asked)


@contextlib.contextmanager
def programs_of(setup: Setup, log: Path) -> Iterator[list[str]]:
    """Tell which programs the agent runs meanwhile: their names are there afterwards."""
    names: list[str] = []
    command = ["strace", "-f", "-qq", "-e", "trace=execve", "-e", "status=successful", "-o", str(log)]
    with subprocess.Popen([*command, "-p", str(setup.agent.pid())]) as strace:
        wait_until_it_is_traced(setup.agent.pid())
        yield names
        strace.terminate()
    names += [Path(found).name for found in re.findall(r'execve\("([^"]+)"', log.read_text())]


def wait_until_it_is_traced(pid: int) -> None:
    deadline = time.monotonic() + 60
    tasks = Path(f"/proc/{pid}/task")
    while any("TracerPid:\t0" in (task / "status").read_text() for task in tasks.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


# Virtual hosts of Apache


@pytest.mark.apache2
def test_a_virtual_host_s_port_is_opened_where_it_is_asked_for(apache: Setup) -> None:
    apache.api.apache.create_vhost(**apache.vhost(8080), allow_port=True)
    apache.api.apache.create_vhost(**apache.vhost(8081, "other.example.com"))
    assert apache.opened() == {8080} and apache.seen(8080) == 200
    apache.api.apache.delete_vhosts(vhosts=[["www.example.com", 8080]])
    assert apache.host.rules() == apache.rules


@pytest.mark.apache2
def test_the_same_virtual_host_may_ask_for_its_port_later(apache: Setup) -> None:
    apache.api.apache.create_vhost(**apache.vhost(8080))
    assert apache.opened() == set()
    apache.api.apache.create_vhost(**apache.vhost(8080), allow_port=True)
    assert apache.opened() == {8080} and apache.seen(8080) == 200


@pytest.mark.apache2
def test_a_port_stays_open_while_a_virtual_host_is_on_it(apache: Setup) -> None:
    apache.api.apache.create_vhost(**apache.vhost(8080), allow_port=True)
    apache.api.apache.create_vhost(**apache.vhost(8080, "other.example.com"), allow_port=True)
    apache.api.apache.create_vhost(**apache.vhost(8080, "third.example.com"))
    for name in ("www.example.com", "other.example.com"):
        apache.api.apache.delete_vhosts(vhosts=[[name, 8080]])
        assert apache.opened() == {8080}
    apache.api.apache.delete_vhosts(vhosts=[["third.example.com", 8080]])
    assert apache.opened() == set()


@pytest.mark.apache2
def test_a_virtual_host_that_moves_takes_its_opened_port_with_it(apache: Setup) -> None:
    apache.api.apache.create_vhost(**apache.vhost(8080), allow_port=True)
    apache.api.apache.update_vhost(signature=["www.example.com", 8080], port=8081)
    assert apache.opened() == {8081} and apache.seen(8081) == 200
    apache.api.apache.update_vhost(signature=["www.example.com", 8081], hostname="new.example.com")
    assert apache.opened() == {8081}
    apache.api.apache.create_vhost(**apache.vhost(8082, "closed.example.com"))
    apache.api.apache.update_vhost(signature=["closed.example.com", 8082], port=8083)
    assert apache.opened() == {8081}


@pytest.mark.apache2
def test_a_reconfiguration_leaves_open_what_its_hosts_ask_for(apache: Setup) -> None:
    apache.api.apache.create_vhost(**apache.vhost(8080), allow_port=True)
    apache.api.apache.reconfigure(
        vhosts=[{**apache.vhost(8081), "allow_port": True}, apache.vhost(8082, "other.example.com")], async_=False
    )
    assert apache.opened() == {8081}


@pytest.mark.apache2
def test_what_apache_refuses_and_a_dry_run_open_nothing(apache: Setup) -> None:
    assert apache.api.apache.create_vhost(**apache.vhost(), allow_port=True, _dry_run=True)["valid"]
    broken = {
        **apache.vhost(),
        "template": "<VirtualHost *:1>\nServerName www.example.com\nNoSuchThing\n</VirtualHost>",
    }
    with pytest.raises(AgentError, match="Nothing was changed"):
        apache.api.apache.create_vhost(**broken, allow_port=True)
    assert apache.host.rules() == apache.rules and not (apache.agent.state / "firewall.json").exists()


@pytest.mark.apache2
def test_a_virtual_host_that_is_taken_back_takes_its_port_with_it(apache: Setup) -> None:
    apache.api.apache.create_vhost(**apache.vhost(), allow_port=True)
    made = apache.api.change.list()[0]["id"]
    apache.api.change.revert(id=made)
    assert apache.host.rules() == apache.rules
    apache.api.apache.create_vhost(**apache.vhost(), allow_port=True)
    apache.api.apache.delete_vhosts(vhosts=[["www.example.com", 8080]], _confirm_within=5)
    wait_until_it_is_over(apache)
    assert apache.opened() == {8080} and apache.seen(8080) == 200


@pytest.mark.apache2
def test_a_virtual_host_that_comes_back_gets_its_port_back(apache: Setup) -> None:
    apache.api.apache.create_vhost(**apache.vhost(8080), allow_port=True)
    apache.api.apache.create_vhost(**apache.vhost(8081, "closed.example.com"))
    apache.api.apache.delete_vhosts(vhosts=[["www.example.com", 8080], ["closed.example.com", 8081]])
    assert apache.opened() == set() and apache.host.rules() == apache.rules
    apache.api.change.revert(id=apache.api.change.list()[0]["id"])
    assert apache.opened() == {8080} and apache.seen(8080) == 200
