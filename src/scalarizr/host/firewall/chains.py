"""Chains of rules as the kernel walks them, whoever keeps them, and where a packet comes to its end in them.

The packet is the first one of an ordinary connection from outside: from an address that no rule names, below every
limit. What a rule stops only for some is thus no stop, and an entry that lets a port through goes behind it, right
before the stop for all.
"""

import socket
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import msgspec

Family = Literal["ip", "ip6"]
_DEPTH = 16  # the kernel's limit (nf_tables.h, NFT_JUMP_STACK_SIZE)


class Packet(msgspec.Struct, frozen=True):
    """The first packet of a connection.

    :param port: where it wants to.
    :param family: its protocol.
    :param interface: by which it comes in; None: some that no rule names.
    """

    port: int
    family: Family
    interface: str | None


class Verdict(NamedTuple):
    """What a rule does with a packet.

    :param kind: let it through, or not, in this base chain; or walk on elsewhere.
    :param target: the chain, of `jump` and `goto`.
    """

    kind: Literal["accept", "stop", "return", "jump", "goto"]
    target: str = ""


class Rule(Protocol):
    """One rule."""

    @property
    def targets(self) -> list[str]:
        """The chains that it may lead to."""

    @property
    def decides(self) -> bool:
        """Whether it gives a verdict on anything."""

    @property
    def logs(self) -> bool:
        """Whether it does nothing but write down what comes by."""

    def verdict(self, packet: Packet) -> Verdict | None:
        """Give what becomes of a packet; None where the next rule has its turn, or it cannot be told."""


class Chain(msgspec.Struct):
    """A chain.

    :param name: unique in its table.
    :param base: the kernel walks it by itself.
    :param drops: a base chain that stops what comes to its end.
    """

    name: str
    rules: list[Rule]
    base: bool = False
    drops: bool = False


class Place(NamedTuple):
    """Before which rule of a chain; behind the last one where there is none of that number."""

    chain: Chain
    number: int


def ordinary_packets(ports: Sequence[int]) -> Iterator[Packet]:
    """Give the packets that have to come through for ports to be open."""
    families: tuple[Family, ...] = ("ip", "ip6")
    for port, family, interface in product(ports, families, _outside_interfaces()):
        yield Packet(port, family, interface)


def place_of_stop(chains: Mapping[str, Chain], base: Chain, packet: Packet) -> Place | None:
    """Find where an entry has to stand for a packet to come through a base chain; None where it does already."""
    kind, path = _walk(chains, base, packet, ())
    if kind == "accept" or (kind == "return" and not base.drops):
        return None
    chosen = path[0]
    for place in path[1:]:
        # What only passes on what is stopped already, from several places, is none to let through in.
        exceptions = any(rule.decides for rule in place.chain.rules[: place.number])
        if _references(chains, place.chain.name) > 1 or not exceptions:
            break
        chosen = place
    number = chosen.number
    while number and chosen.chain.rules[number - 1].logs:
        number -= 1
    return Place(chosen.chain, number)


def _walk(
    chains: Mapping[str, Chain], chain: Chain, packet: Packet, above: tuple[Place, ...]
) -> tuple[str, tuple[Place, ...]]:
    for number, rule in enumerate(chain.rules):
        verdict = rule.verdict(packet)
        if verdict is None:
            continue
        here = (*above, Place(chain, number))
        if verdict.kind not in ("jump", "goto"):
            return verdict.kind, here
        if verdict.target in chains and len(above) < _DEPTH:
            kind, there = _walk(chains, chains[verdict.target], packet, here)
            if kind != "return" or verdict.kind == "goto":
                return kind, there
    return "return", (*above, Place(chain, len(chain.rules)))


def _references(chains: Mapping[str, Chain], name: str) -> int:
    return sum(rule.targets.count(name) for chain in chains.values() for rule in chain.rules)


def _outside_interfaces() -> list[str | None]:
    """Give the interfaces by which the world comes in: those with a default route, else all but the loopback."""
    net = Path("/proc/thread-self/net")
    found: set[str | None] = set()
    for columns in _table(net / "route"):
        if columns[1] == columns[7] == "00000000":
            found.add(columns[0])
    for columns in _table(net / "ipv6_route"):
        if columns[0] == "0" * 32 and columns[1] == "00" and columns[9] != "lo":
            found.add(columns[9])
    if not found:
        found = {name for _index, name in socket.if_nameindex() if name != "lo"}
    return sorted(found, key=str) or [None]


def _table(path: Path) -> list[list[str]]:
    try:
        return [columns for line in path.read_text().splitlines() if len(columns := line.split()) >= 10]
    except OSError:
        return []
