"""Ports in firewalld, which runs on a bus of its own, each proved by a connection from outside."""

import pytest

from network_namespace import CLOSED, OPEN, OTHER_CLIENT, FirewallThere, Host, needs
from scalarizr.errors import OutsideFailure

pytestmark = [pytest.mark.root, needs("firewalld"), needs("dbus-daemon")]


@pytest.fixture
def firewalld(host: Host) -> Host:
    host.start_firewalld()
    return host


RICH = 'rule priority="8010" port port="80" protocol="tcp" accept'


def test_firewalld_is_told_for_now_and_for_good(firewalld: Host, firewall: FirewallThere) -> None:
    rules = firewalld.rules()
    assert firewalld.open_to(80) == CLOSED
    firewall.open("nginx", 80)
    assert firewalld.open_to(80) == OPEN and firewalld.open_to(443) == CLOSED
    assert firewall.recorded() == {"80": {"owners": ["nginx"], "keepers": ["firewalld"]}}
    for lasting in ([], ["--permanent"]):
        assert RICH in firewalld.run("firewall-cmd", *lasting, "--list-rich-rules")
    firewalld.run("firewall-cmd", "--reload")
    assert firewalld.open_to(80) == OPEN
    firewall.close_all_but("nginx")
    assert firewalld.open_to(80) == CLOSED and firewall.recorded() == {} and firewalld.rules() == rules
    firewalld.run("firewall-cmd", "--reload")
    assert firewalld.open_to(80) == CLOSED


def test_what_firewalld_lets_through_is_left_alone(firewalld: Host, firewall: FirewallThere) -> None:
    for entry in ("port=80/tcp", "port=70-90/tcp", "service=http", "rich-rule=rule port port=80 protocol=tcp accept"):
        firewalld.run("firewall-cmd", f"--add-{entry}")
        rules = firewalld.rules()
        assert firewalld.open_to(80) == OPEN, entry
        firewall.open("nginx", 80)
        firewall.close_all_but("nginx")
        assert firewalld.rules() == rules and not firewall.record.exists(), entry
        firewalld.run("firewall-cmd", f"--remove-{entry}")
    firewalld.run("firewall-cmd", "--zone=trusted", "--change-interface=eth0")
    firewall.open("nginx", 80)
    assert not firewall.record.exists() and firewalld.open_to(80) == OPEN


def test_a_person_s_own_port_in_firewalld_stays(firewalld: Host, firewall: FirewallThere) -> None:
    firewall.open("nginx", 80)
    firewalld.run("firewall-cmd", "--add-port=80/tcp")
    firewall.close_all_but("nginx")
    assert firewalld.open_to(80) == OPEN and "80/tcp" in firewalld.run("firewall-cmd", "--list-ports")
    assert RICH not in firewalld.run("firewall-cmd", "--list-rich-rules")


def test_the_port_is_opened_in_the_zone_of_the_outer_interface(firewalld: Host, firewall: FirewallThere) -> None:
    firewalld.run("firewall-cmd", "--zone=dmz", "--change-interface=eth0")
    firewalld.run("firewall-cmd", "--zone=public", "--add-port=80/tcp")
    firewalld.run("firewall-cmd", "--zone=dmz", f"--add-rich-rule=rule family=ipv4 source address={OTHER_CLIENT} drop")
    assert firewalld.open_to(80) == CLOSED
    firewall.open("nginx", 80, 443)
    assert firewalld.open_to(80) == OPEN == firewalld.open_to(443)
    assert not firewalld.lets_through(80, source=OTHER_CLIENT)
    assert RICH in firewalld.run("firewall-cmd", "--zone=dmz", "--list-rich-rules")
    assert firewalld.run("firewall-cmd", "--zone=public", "--list-rich-rules").strip() == ""
    firewall.close_all_but("nginx", 443)
    assert firewalld.open_to(80) == CLOSED and firewalld.open_to(443) == OPEN


def test_firewalld_that_keeps_its_rules_in_iptables_is_told_too(host: Host, firewall: FirewallThere) -> None:
    host.run("sed", "-i", "s/^FirewallBackend=.*/FirewallBackend=iptables/", "/etc/firewalld/firewalld.conf")
    host.start_firewalld()
    assert "INPUT_ZONES" in host.run("iptables", "-S") and host.open_to(80) == CLOSED
    firewall.open("nginx", 80)
    assert host.open_to(80) == OPEN and RICH in host.run("firewall-cmd", "--permanent", "--list-rich-rules")
    firewall.close_all_but("nginx")
    assert host.open_to(80) == CLOSED and firewall.recorded() == {}


def test_what_was_opened_in_firewalld_is_closed_though_it_is_off_by_then(
    firewalld: Host, firewall: FirewallThere
) -> None:
    firewall.open("nginx", 80)
    firewalld.stop_firewalld()
    firewall.close_all_but("nginx")
    assert firewall.recorded() == {}
    assert RICH not in firewalld.run("firewall-offline-cmd", "--list-all-zones")


def test_in_panic_firewalld_is_not_opened(firewalld: Host, firewall: FirewallThere) -> None:
    firewalld.run("firewall-cmd", "--panic-on")
    with pytest.raises(OutsideFailure, match="PANIC_MODE"):
        firewall.open("nginx", 80)
    firewalld.run("firewall-cmd", "--panic-off")
    assert firewalld.open_to(80) == CLOSED and firewall.recorded() == {}
    assert RICH not in firewalld.run("firewall-cmd", "--permanent", "--list-rich-rules")
