"""nftables: its rules as they are in the kernel, and entries of the agent's among them."""

import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec

from scalarizr.host.firewall.chains import Chain, Packet, Verdict
from scalarizr.host.firewall.nft_expressions import decides, targets_of, verdict_of
from scalarizr.host.firewall.programs import Programs
from scalarizr.host.firewall.stops import MARK, Stop

_HOOKS = ("input", "prerouting")
_FAMILIES = ("inet", "ip", "ip6")
# A release of nft to come may print a rule in a form that is none yet: such a rule is one that cannot be told.
_UNKNOWN_FORM = (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)


class NftRule:
    """One rule, with the sets of its table."""

    def __init__(self, listed: dict[str, Any], sets: dict[str, list[Any]]) -> None:
        self.handle: int = listed["handle"]
        self.comment: str | None = listed.get("comment")
        parts = listed.get("expr", [])
        self.expression: list[dict[str, Any]] = [
            part if isinstance(part, dict) and len(part) == 1 else {"unknown": part} for part in parts
        ]
        self._sets = sets
        self.decides = decides(self.expression)
        self.logs = not self.decides and any("log" in part for part in self.expression)

    @property
    def targets(self) -> list[str]:
        """The chains that it may lead to."""
        with contextlib.suppress(*_UNKNOWN_FORM):
            return targets_of(self.expression, self._sets)
        return []

    def verdict(self, packet: Packet) -> Verdict | None:
        """Give what becomes of a packet."""
        with contextlib.suppress(*_UNKNOWN_FORM):
            return verdict_of(self.expression, packet, self._sets)
        return None


class NftTable(msgspec.Struct):
    """One table."""

    family: str
    name: str
    active: bool
    sets: dict[str, list[Any]]
    chains: dict[str, Chain]

    def sees(self, packet: Packet) -> bool:
        """Tell whether packets of that protocol come by here."""
        return self.active and self.family in ("inet", packet.family)


def read_tables(programs: Programs) -> list[NftTable]:
    """Read what is in the kernel; nothing where it cannot be read."""
    listed = programs.ask("nft", "--json", "list", "ruleset") if programs.has("nft") else None
    try:
        tables = _tables(msgspec.json.decode(listed or b"{}").get("nftables", []))
    except (msgspec.DecodeError, *_UNKNOWN_FORM):
        return []
    if not all(table.active for table in tables):
        # Which flags a table has nft 1.0.6 tells in its other form only.
        listing = (programs.ask("nft", "--terse", "list", "ruleset") or "").splitlines()
        for table in tables:
            table.active = not _sleeps(table, listing)
    return [table for table in tables if table.family in _FAMILIES]


def _tables(entries: list[dict[str, Any]]) -> list[NftTable]:
    tables: dict[tuple[str, str], NftTable] = {}
    rules = []
    for entry in entries:
        ((kind, body),) = entry.items()
        if kind == "table":
            table = NftTable(body["family"], body["name"], "flags" not in body, {}, {})
            tables[table.family, table.name] = table
        elif kind in ("set", "map"):
            tables[body["family"], body["table"]].sets[body["name"]] = body.get("elem", [])
        elif kind == "chain":
            base = body.get("hook") in _HOOKS and body.get("type") == "filter"
            chain = Chain(body["name"], [], base, body.get("policy") == "drop")
            tables[body["family"], body["table"]].chains[chain.name] = chain
        elif kind == "rule":
            rules.append((tables[body["family"], body["table"]], body))
    for table, body in rules:
        table.chains[body["chain"]].rules.append(NftRule(body, table.sets))
    return list(tables.values())


def let_through(stops: Sequence[Stop], programs: Programs) -> None:
    """Let ports through right before each place that stops them, all at once."""
    _apply([_insertion(stop) for stop in stops], programs)


def take_back(ports: Sequence[int], programs: Programs) -> None:
    """Take the agent's entries for ports away, wherever they are."""
    deletions: list[dict[str, Any]] = []
    for table in read_tables(programs):
        for chain in table.chains.values():
            for rule in chain.rules:
                if isinstance(rule, NftRule) and rule.comment == MARK and _port_let_through(rule) in ports:
                    place = {"family": table.family, "table": table.name, "chain": chain.name, "handle": rule.handle}
                    deletions.append({"delete": {"rule": place}})
    _apply(deletions, programs)


def _sleeps(table: NftTable, listing: list[str]) -> bool:
    head = f"table {table.family} {table.name} {{"
    flags = listing[listing.index(head) + 1] if head in listing else ""
    return flags.strip().startswith("flags ") and "dormant" in flags


def _insertion(stop: Stop) -> dict[str, Any]:
    rules = stop.chain.rules
    entry: dict[str, Any] = {
        "family": stop.family,
        "table": stop.table,
        "chain": stop.chain.name,
        "comment": MARK,
        "expr": _accepting(stop.port),
    }
    if stop.number == len(rules):
        return {"add": {"rule": entry}}
    before = rules[stop.number]
    assert isinstance(before, NftRule)
    return {"insert": {"rule": {**entry, "handle": before.handle}}}


def _accepting(port: int) -> list[dict[str, Any]]:
    left = {"payload": {"protocol": "tcp", "field": "dport"}}
    return [{"match": {"op": "==", "left": left, "right": port}}, {"accept": None}]


def _port_let_through(rule: NftRule) -> int | None:
    for part in rule.expression:
        if "match" in part and isinstance(part["match"]["right"], int):
            port: int = part["match"]["right"]
            return port if rule.expression == _accepting(port) else None
    return None


def _apply(commands: list[dict[str, Any]], programs: Programs) -> None:
    # As JSON: names may be any, and it is one transaction of the kernel's.
    if commands:
        programs.do("nft", "--json", "--file", "-", input=msgspec.json.encode({"nftables": commands}))
