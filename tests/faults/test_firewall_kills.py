"""Opening a port in a real firewall, killed at every instant: no port stays open that nobody closes any more."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from network_namespace import CLOSED, OPEN, FirewallThere, Host, needs
from rule_sets import DROPPING, IPT_USUAL, USUAL, chain, table

pytestmark = [pytest.mark.root, needs("strace")]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    made.listen(80)
    yield made
    made.close()


OPENING, CLOSING = ["open", "nginx", [80]], ["close_all_but", "nginx", []]
INSTANTS = ("rename", "fsync", "vfork", "fork", "clone", "clone3", "pidfd_open")


def traced(firewall: FirewallThere, call: list[object], *options: str) -> int:
    """Make a call under strace in a process of its own; gives its exit status."""
    command = ["strace", "-qq", *options, *firewall.command[len(firewall.host.prefix) :]]
    text = json.dumps(call) + "\n"
    done = subprocess.run([*firewall.host.prefix, *command], input=text, capture_output=True, text=True, timeout=60)
    return done.returncode


def instants(firewall: FirewallThere, call: list[object], log: Path) -> list[tuple[str, int]]:
    """Make a call, and give the system calls that it made: each is an instant to be killed at."""
    assert traced(firewall, call, "-o", str(log), "-e", f"trace={','.join(INSTANTS)}") == 0
    names = [line.partition("(")[0] for line in log.read_text().splitlines()]
    names = [name for name in names if name in INSTANTS]
    return [(name, names[: number + 1].count(name)) for number, name in enumerate(names)]


def kill_at(firewall: FirewallThere, call: list[object], instant: tuple[str, int]) -> None:
    name, count = instant
    status = traced(firewall, call, "-o", "/dev/null", "-e", f"inject={name}:signal=SIGKILL:when={count}")
    assert status in (-signal.SIGKILL, 128 + signal.SIGKILL), instant


@pytest.fixture(params=["nftables", "iptables", pytest.param("ufw", marks=needs("ufw"))])
def active(request: pytest.FixtureRequest, host: Host) -> Host:
    """The host with a firewall that stops the port."""
    if request.param == "nftables":
        host.nft(DROPPING)
    elif request.param == "iptables":
        host.iptables("nft", *IPT_USUAL, "-P INPUT DROP")
    else:
        host.enable_ufw()
    return host


def test_opening_killed_at_any_instant_leaves_no_port_that_nobody_closes(
    active: Host, firewall: FirewallThere, tmp_path: Path
) -> None:
    rules = active.rules()
    found = instants(firewall, OPENING, tmp_path / "strace.log")
    assert active.open_to(80) == OPEN
    firewall.close_all_but("nginx")
    recorded = [name for name, _count in found].index("rename")
    for number, instant in enumerate(found[recorded - 2 :]):
        kill_at(firewall, OPENING, instant)
        assert ("80" in firewall.recorded()) is (number > 2) or number == 2, instant
        # At once, though a program that was started may still be at it.
        firewall.close_all_but("nginx")
        assert active.rules() == rules and firewall.recorded() == {}, instant
    assert active.open_to(80) == CLOSED


def test_closing_killed_at_any_instant_is_done_the_next_time(
    active: Host, firewall: FirewallThere, tmp_path: Path
) -> None:
    rules = active.rules()
    firewall.open("nginx", 80)
    for instant in instants(firewall, CLOSING, tmp_path / "strace.log"):
        firewall.open("nginx", 80)
        kill_at(firewall, CLOSING, instant)
        firewall.close_all_but("nginx")
        assert active.rules() == rules and firewall.recorded() == {}, instant
    assert active.open_to(80) == CLOSED


def test_what_was_recorded_and_never_opened_is_closed_without_harm(host: Host, firewall: FirewallThere) -> None:
    host.nft(table(chain(USUAL + "tcp dport 80 accept", "drop")))
    rules = host.rules()
    firewall.record.write_text('{"80":{"owners":["nginx"],"keepers":["iptables","nftables"]}}')
    firewall.close_all_but("nginx")
    assert firewall.recorded() == {} and host.rules() == rules


def test_where_no_port_is_new_no_program_is_run(host: Host, firewall: FirewallThere, tmp_path: Path) -> None:
    host.nft(DROPPING)

    def programs(*ports: int) -> int:
        log = tmp_path / "strace.log"
        assert traced(firewall, ["open", "nginx", ports], "-f", "-o", str(log), "-e", "trace=execve") == 0
        return log.read_text().count("execve(") - 1

    assert programs() == 0
    assert programs(80) > 0
    assert programs(80) == 0 and host.open_to(80) == OPEN
