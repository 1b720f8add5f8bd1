"""Ports in ufw, which runs with settings of its own, each proved by a connection from outside."""

import pytest

from network_namespace import CLOSED, OPEN, OTHER_CLIENT, FirewallThere, Host, needs
from rule_sets import DROPPING
from scalarizr.errors import OutsideFailure

pytestmark = [pytest.mark.root, needs("ufw")]


@pytest.fixture
def ufw(host: Host) -> Host:
    host.enable_ufw()
    return host


def test_ufw_is_told_and_keeps_it(ufw: Host, firewall: FirewallThere) -> None:
    ufw.run("ufw", "allow", "8080/tcp")
    rules = ufw.rules()
    assert ufw.open_to(80) == CLOSED and ufw.open_to(8080) == OPEN
    firewall.open("nginx", 80)
    assert ufw.open_to(80) == OPEN and ufw.open_to(443) == CLOSED
    assert "ufw allow 80/tcp comment 'scalarizr'" in ufw.run("ufw", "show", "added")
    assert firewall.recorded() == {"80": {"owners": ["nginx"], "keepers": ["ufw"]}}
    ufw.run("ufw", "reload")
    assert ufw.open_to(80) == OPEN
    firewall.close_all_but("nginx")
    assert ufw.open_to(80) == CLOSED and ufw.open_to(8080) == OPEN
    assert firewall.recorded() == {} and ufw.rules() == rules
    assert added(ufw) == ["ufw allow 8080/tcp"]


def added(ufw: Host) -> list[str]:
    return ufw.run("ufw", "show", "added").splitlines()[1:]


LETTING_THROUGH = {
    "the same": ["allow", "80/tcp"],
    "for both protocols": ["allow", "80"],
    "as often as allowed": ["limit", "80/tcp"],
    "a range": ["allow", "70:90/tcp"],
    "a list": ["allow", "80,443/tcp"],
    "an application": ["allow", "WWW"],
    "by interface": ["allow", "in", "on", "eth0", "to", "any", "port", "80", "proto", "tcp"],
}


def test_what_ufw_lets_through_is_left_alone(ufw: Host, firewall: FirewallThere) -> None:
    for how, rule in LETTING_THROUGH.items():
        ufw.run("ufw", *rule)
        # Some releases load a limit for IPv6 at a reload only.
        ufw.run("ufw", "reload")
        rules, kept = ufw.rules(), added(ufw)
        assert ufw.open_to(80) == OPEN, how
        firewall.open("nginx", 80)
        firewall.close_all_but("nginx")
        assert ufw.rules() == rules and added(ufw) == kept and not firewall.record.exists(), how
        ufw.run("ufw", "delete", *rule)
    ufw.run("ufw", "default", "allow", "incoming")
    firewall.open("nginx", 80)
    assert added(ufw) == ["(None)"] and not firewall.record.exists() and ufw.open_to(80) == OPEN


def test_ufw_rules_that_only_look_alike_do_not_count(ufw: Host, firewall: FirewallThere) -> None:
    ufw.run("ufw", "allow", "8080/tcp")
    ufw.run("ufw", "allow", "from", "192.0.2.0/24", "to", "any", "port", "80", "proto", "tcp")
    ufw.run("ufw", "deny", "from", OTHER_CLIENT)
    kept = added(ufw)
    firewall.open("nginx", 80)
    assert ufw.lets_through(80) and not ufw.lets_through(80, source=OTHER_CLIENT)
    firewall.close_all_but("nginx")
    assert added(ufw) == kept and ufw.open_to(80) == CLOSED


def test_a_person_s_ban_in_ufw_is_neither_replaced_nor_evaded(ufw: Host, firewall: FirewallThere) -> None:
    for rule in (["deny", "80/tcp"], ["reject", "80/tcp"], ["deny", "80"], ["deny", "1:1023/tcp"]):
        ufw.run("ufw", *rule)
        rules, kept = ufw.rules(), added(ufw)
        with pytest.raises(OutsideFailure, match="stops port 80"):
            firewall.open("nginx", 80)
        assert ufw.rules() == rules and added(ufw) == kept and firewall.recorded() == {}, rule
        ufw.run("ufw", "delete", *rule)


def test_a_rule_that_a_person_repeated_in_ufw_is_the_person_s(ufw: Host, firewall: FirewallThere) -> None:
    firewall.open("nginx", 80)
    ufw.run("ufw", "allow", "80/tcp")
    firewall.close_all_but("nginx")
    assert added(ufw) == ["ufw allow 80/tcp"] and ufw.open_to(80) == OPEN


def test_what_was_opened_in_ufw_is_closed_though_it_is_off_by_then(ufw: Host, firewall: FirewallThere) -> None:
    firewall.open("nginx", 80)
    ufw.run("ufw", "disable")
    firewall.close_all_but("nginx")
    ufw.run("ufw", "--force", "enable")
    assert ufw.open_to(80) == CLOSED and firewall.recorded() == {}


def test_ufw_that_leaves_ipv6_alone_is_told_all_the_same(host: Host, firewall: FirewallThere) -> None:
    host.run("sed", "-i", "s/^IPV6=yes/IPV6=no/", "/etc/default/ufw")
    host.run("ufw", "--force", "enable")
    before = host.open_to(80)
    firewall.open("nginx", 80)
    assert host.open_to(80) == (True, before[1])
    firewall.close_all_but("nginx")
    assert host.open_to(80) == before


def test_ufw_beside_a_table_of_a_person_s(ufw: Host, firewall: FirewallThere) -> None:
    ufw.nft(DROPPING)
    firewall.open("nginx", 80)
    assert ufw.open_to(80) == OPEN
    assert firewall.recorded() == {"80": {"owners": ["nginx"], "keepers": ["nftables", "ufw"]}}
    firewall.close_all_but("nginx")
    assert ufw.open_to(80) == CLOSED and "scalarizr" not in ufw.rules() and added(ufw) == ["(None)"]


def test_ufw_that_is_off_is_left_off(host: Host, firewall: FirewallThere) -> None:
    firewall.open("nginx", 80)
    assert added(host) == ["(None)"]
    host.nft(DROPPING)
    firewall.open("nginx", 80)
    assert host.open_to(80) == OPEN and added(host) == ["(None)"]
