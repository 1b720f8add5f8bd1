"""Ports in rules of nftables and of iptables that are in a real kernel, each proved by a connection from outside.

A host in a network namespace has the rules; the outside is another one, behind a veth pair.
"""

import pytest

from network_namespace import CLIENT, CLOSED, OPEN, OTHER_CLIENT, FirewallThere, Host, needs
from rule_sets import (
    DROPPING,
    IPT_LETTING_THROUGH,
    IPT_STOPPING,
    IPT_USUAL,
    LETTING_THROUGH,
    STOPPING,
    USUAL,
    chain,
    table,
)
from scalarizr.errors import OutsideFailure

pytestmark = pytest.mark.root
LEGACY = pytest.param("legacy", marks=needs("iptables-legacy"))


def expect_opened_and_closed_again(
    host: Host, firewall: FirewallThere, keeper: str, before: tuple[bool, bool] = CLOSED
) -> None:
    """Open port 80 and close it: by connections from outside, and by what is in the kernel."""
    rules = host.rules()
    assert host.open_to(80) == before
    firewall.open("nginx", 80)
    assert host.open_to(80) == OPEN
    assert not all(host.open_to(8443)), "another port stays closed"
    assert firewall.recorded() == {"80": {"owners": ["nginx"], "keepers": [keeper]}}
    opened = host.rules()
    firewall.open("nginx", 80)
    assert host.rules() == opened
    firewall.close_all_but("nginx")
    assert host.rules() == rules and host.open_to(80) == before
    assert firewall.recorded() == {}


def test_without_a_firewall_nothing_is_done(host: Host, firewall: FirewallThere) -> None:
    firewall.open("nginx", 80, 443)
    assert host.rules() == "" and not firewall.record.exists()
    host.nft(table(chain("tcp dport 22 counter\nip saddr 192.0.2.1 drop")))
    rules = host.rules()
    firewall.open("nginx", 80, 443)
    firewall.close_all_but("nginx")
    assert host.rules() == rules and not firewall.record.exists() and host.open_to(80) == OPEN


@pytest.mark.parametrize("rules", STOPPING.values(), ids=STOPPING)
def test_nftables_stops_a_port_until_it_is_opened(host: Host, firewall: FirewallThere, rules: str) -> None:
    host.nft(rules)
    expect_opened_and_closed_again(host, firewall, "nftables")


def test_of_one_protocol_only_that_one_is_touched(host: Host, firewall: FirewallThere) -> None:
    host.nft(table(chain("ct state established accept", "drop"), family="ip"))
    expect_opened_and_closed_again(host, firewall, "nftables", (False, True))
    host.nft("flush ruleset\n" + table(chain("meta l4proto ipv6-icmp accept\ndrop"), family="ip6"))
    expect_opened_and_closed_again(host, firewall, "nftables", (True, False))


@pytest.mark.parametrize("name", ["drop", "my-chain.1", "ip", "policy accept; #", "input", "1st", "a'b\"c$(d)"])
def test_chains_and_tables_may_have_any_name(host: Host, firewall: FirewallThere, name: str) -> None:
    place = {"family": "inet", "table": name}
    icmp = {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": {"set": ["icmp", "ipv6-icmp"]}}}
    base = {"type": "filter", "hook": "input", "prio": 0, "policy": "accept"}
    host.nft_json(
        {"add": {"table": {"family": "inet", "name": name}}},
        {"add": {"chain": {**place, "name": name, **base}}},
        {"add": {"rule": {**place, "chain": name, "expr": [icmp, {"accept": None}]}}},
        {"add": {"rule": {**place, "chain": name, "expr": [{"drop": None}]}}},
    )
    expect_opened_and_closed_again(host, firewall, "nftables")


@pytest.mark.parametrize("rules", LETTING_THROUGH.values(), ids=LETTING_THROUGH)
def test_a_port_that_is_let_through_already_is_left_alone(host: Host, firewall: FirewallThere, rules: str) -> None:
    host.nft(rules)
    before = host.rules()
    assert host.open_to(80) == OPEN
    firewall.open("nginx", 80)
    assert host.rules() == before and not firewall.record.exists()
    firewall.close_all_but("nginx")
    assert host.rules() == before and host.open_to(80) == OPEN


FOR_SOME = {
    "nftables": table(chain(USUAL + f"ip saddr {OTHER_CLIENT} drop\ntcp dport 22 accept", "drop")),
    "nftables, in another chain": table(
        chain(f'ip saddr {OTHER_CLIENT} drop\nlog prefix "rest "\ndrop', name="rest", hook=""),
        chain(USUAL + "tcp dport 22 accept\njump rest"),
    ),
}


@pytest.mark.parametrize("rules", FOR_SOME.values(), ids=FOR_SOME)
def test_what_is_stopped_for_one_address_stays_so(host: Host, firewall: FirewallThere, rules: str) -> None:
    host.nft(rules)
    firewall.open("nginx", 80)
    assert host.lets_through(80, source=CLIENT) and not host.lets_through(80, source=OTHER_CLIENT)


def test_nothing_comes_by_the_chain_of_those_that_are_stopped(host: Host, firewall: FirewallThere) -> None:
    # The chain that logs and drops is one for the blocked, too: an entry in it would let them in.
    host.nft(
        table(
            chain('limit rate 5/minute log prefix "away "\ndrop', name="away", hook=""),
            chain(USUAL + f"ip saddr {OTHER_CLIENT} goto away\ngoto away"),
        )
    )
    firewall.open("nginx", 80)
    assert host.lets_through(80, source=CLIENT) and not host.lets_through(80, source=OTHER_CLIENT)


def test_what_is_let_through_is_not_logged_as_stopped(host: Host, firewall: FirewallThere) -> None:
    host.nft(table(chain(USUAL + 'log prefix "stopped: "\nlimit rate 1/hour log\ndrop')))
    firewall.open("nginx", 80)
    lines = [line.strip() for line in host.rules().splitlines()]
    assert lines.index('tcp dport 80 accept comment "scalarizr"') < lines.index('log prefix "stopped: "')


def test_what_is_stopped_by_an_inner_interface_stays_so(host: Host, firewall: FirewallThere) -> None:
    host.run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
    host.nft(table(chain(USUAL + 'iifname "lan0" drop')))
    firewall.open("nginx", 80)
    assert not firewall.record.exists()


# iptables


@pytest.mark.parametrize("kind", ["nft", LEGACY])
@pytest.mark.parametrize("rules", IPT_STOPPING.values(), ids=IPT_STOPPING)
def test_iptables_stops_a_port_until_it_is_opened(
    host: Host, firewall: FirewallThere, rules: tuple[str, ...], kind: str
) -> None:
    host.iptables(kind, *IPT_USUAL, *rules)
    expect_opened_and_closed_again(host, firewall, "iptables")


@pytest.mark.parametrize("kind", ["nft", LEGACY])
@pytest.mark.parametrize("rules", IPT_LETTING_THROUGH.values(), ids=IPT_LETTING_THROUGH)
def test_a_port_that_iptables_lets_through_is_left_alone(
    host: Host, firewall: FirewallThere, rules: tuple[str, ...], kind: str
) -> None:
    host.iptables(kind, *IPT_USUAL, *(rule for rule in rules if "ADDRESS" not in rule))
    if any("ADDRESS" in rule for rule in rules):
        host.run(f"iptables-{kind}", "-A", "INPUT", "-s", "192.0.2.1", "-j", "DROP")
    before = host.rules()
    assert host.open_to(80) == OPEN
    firewall.open("nginx", 80)
    firewall.close_all_but("nginx")
    assert host.rules() == before and not firewall.record.exists() and host.open_to(80) == OPEN


def test_iptables_and_nftables_side_by_side_are_both_opened(host: Host, firewall: FirewallThere) -> None:
    host.iptables("nft", *IPT_USUAL, "-P INPUT DROP")
    host.nft(table(chain(USUAL + "tcp dport 22 accept\ndrop", priority=20)))
    before = host.rules()
    firewall.open("nginx", 80)
    assert host.open_to(80) == OPEN
    assert firewall.recorded() == {"80": {"owners": ["nginx"], "keepers": ["iptables", "nftables"]}}
    firewall.close_all_but("nginx")
    assert host.rules() == before and host.open_to(80) == CLOSED


def test_without_the_program_of_nftables_iptables_is_asked(host: Host, firewall: FirewallThere) -> None:
    host.iptables("nft", *IPT_USUAL, "-P INPUT DROP")
    host.run("mount", "--bind", "/dev/null", "/usr/sbin/nft")
    rules = host.run("iptables-nft", "-S")
    firewall.open("nginx", 80)
    assert host.open_to(80) == OPEN
    firewall.close_all_but("nginx")
    assert host.open_to(80) == CLOSED and host.run("iptables-nft", "-S") == rules


def test_reading_makes_no_table_where_there_was_none(host: Host, firewall: FirewallThere) -> None:
    firewall.open("nginx", 80)
    assert host.run("nft", "list", "tables") == "" and host.legacy() == []


# Owners, and what a person does meanwhile


def test_a_port_that_two_need_is_closed_when_both_let_go(host: Host, firewall: FirewallThere) -> None:
    host.nft(DROPPING)
    firewall.open("nginx", 80, 443)
    firewall.open("apache", 443, 8080)
    assert [host.lets_through(port) for port in (80, 443, 8080, 8443)] == [True, True, True, False]
    firewall.close_all_but("nginx", 80)
    assert host.open_to(443) == OPEN
    firewall.close_all_but("apache", 8080)
    assert [host.lets_through(port) for port in (80, 443, 8080)] == [True, False, True]
    firewall.close_all_but("apache")
    firewall.close_all_but("nginx")
    assert [host.lets_through(port) for port in (80, 443, 8080)] == [False] * 3
    assert firewall.recorded() == {} and "scalarizr" not in host.rules()


@pytest.mark.parametrize("comment", ["", ' comment "web"'])
def test_a_person_s_own_rule_for_the_port_stays(host: Host, firewall: FirewallThere, comment: str) -> None:
    host.nft(DROPPING)
    firewall.open("nginx", 80)
    host.nft(f"add rule inet own entry tcp dport 80 accept{comment}\n")
    firewall.close_all_but("nginx")
    assert host.open_to(80) == OPEN and host.rules().count("tcp dport 80 accept") == 1


def test_a_person_s_own_rule_of_iptables_stays(host: Host, firewall: FirewallThere) -> None:
    host.iptables("nft", *IPT_USUAL, "-P INPUT DROP")
    firewall.open("nginx", 80)
    host.iptables("nft", "-A INPUT -p tcp --dport 80 -j ACCEPT")
    firewall.close_all_but("nginx")
    assert host.open_to(80) == OPEN and "scalarizr" not in host.rules()


def test_what_a_person_closed_or_flushed_meanwhile_is_no_error(host: Host, firewall: FirewallThere) -> None:
    host.nft(DROPPING)
    firewall.open("nginx", 80)
    host.nft("flush ruleset\n" + DROPPING)
    assert host.open_to(80) == CLOSED
    firewall.close_all_but("nginx")
    assert firewall.recorded() == {}
    firewall.open("nginx", 80)
    host.nft("flush ruleset\n")
    firewall.close_all_but("nginx")
    assert firewall.recorded() == {} and host.rules() == ""


def test_after_a_reboot_what_was_opened_is_opened_again(host: Host, firewall: FirewallThere) -> None:
    host.nft(DROPPING)
    firewall.open("nginx", 80)
    rules = host.rules()
    host.nft("flush ruleset\n" + DROPPING)
    firewall.reopen()
    assert host.rules() == rules and host.open_to(80) == OPEN
    firewall.reopen()
    assert host.rules() == rules
    firewall.close_all_but("nginx")
    assert host.open_to(80) == CLOSED and firewall.recorded() == {}


def test_a_damaged_record_is_put_aside_said_once_and_begun_anew(host: Host, firewall: FirewallThere) -> None:
    host.nft(DROPPING)
    firewall.record.write_text('{"80": ["nginx"')
    with pytest.raises(OutsideFailure, match="was damaged"):
        firewall.close_all_but("nginx")
    assert firewall.record.with_name("firewall.json.damaged").read_text() == '{"80": ["nginx"'
    firewall.open("nginx", 80)
    assert host.open_to(80) == OPEN


def test_where_one_firewall_refuses_the_other_is_closed_again(host: Host, firewall: FirewallThere) -> None:
    host.iptables("nft", *IPT_USUAL, "-P INPUT DROP")
    with host.table_of_another_program():
        rules = host.rules()
        with pytest.raises(OutsideFailure, match=r"could not be changed: nft: [^*]*Operation not permitted"):
            firewall.open("nginx", 80)
        assert host.rules() == rules and firewall.recorded() == {} and host.open_to(80) == CLOSED
