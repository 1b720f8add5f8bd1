"""What a rule of nftables does with a packet, from its JSON form (libnftables-json(5))."""

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from scalarizr.host.firewall.chains import Packet, Verdict


class _Special(Enum):
    ORDINARY = "some value that no rule names"
    UNKNOWN = "a value that cannot be told"
    ABSENT = "the packet has no such header: nothing that asks for it holds"


_ORDINARY, _UNKNOWN, _ABSENT = _Special.ORDINARY, _Special.UNKNOWN, _Special.ABSENT

_FIELDS: dict[tuple[str, str], Any] = {
    ("tcp", "sport"): 50000,
    ("th", "sport"): 50000,
    ("tcp", "flags"): frozenset({"syn"}),
    ("ip", "saddr"): _ORDINARY,
    ("ip", "protocol"): "tcp",
    ("ip6", "saddr"): _ORDINARY,
    ("ip6", "nexthdr"): "tcp",
    ("ether", "saddr"): _ORDINARY,
}
_META: dict[str, Any] = {"l4proto": "tcp", "pkttype": "host", "mark": 0}
_CONNECTION: dict[str, Any] = {
    "state": frozenset({"new"}),
    "status": frozenset(),
    "direction": "original",
    "mark": 0,
}
_OTHER_PROTOCOLS = ("udp", "udplite", "icmp", "icmpv6", "igmp", "sctp", "dccp", "ah", "esp", "comp", "arp", "vlan")
_NUMBERS = {"tcp": 6, "ipv4": 2, "ipv6": 10}
_VERDICTS = {"accept": "accept", "queue": "accept", "drop": "stop", "reject": "stop", "return": "return"}
_LIMITS = ("limit", "ct count", "quota")
_WITHOUT_VERDICT = frozenset(
    {"counter", "log", "comment", "notrack", "mangle", "last", "secmark", "flow", "ct helper", "ct timeout"}
)


def verdict_of(expression: list[dict[str, Any]], packet: Packet, sets: Mapping[str, list[Any]]) -> Verdict | None:
    """Give what becomes of a packet; None where the next rule has its turn, or it cannot be told.

    :param expression: the rule's parts.
    :param sets: the elements of the table's sets and maps, by name.
    """
    for part in expression:
        ((kind, body),) = part.items()
        if kind == "match":
            if _holds(body, packet, sets) is not True:
                return None
        elif kind == "vmap":
            return _mapped(body, packet, sets)
        elif kind in _VERDICTS or kind in ("jump", "goto"):
            return _verdict(part)
        elif not _passes(kind, body):
            return None
    return None


def targets_of(expression: list[dict[str, Any]], sets: Mapping[str, list[Any]]) -> list[str]:
    """Give the chains that a rule may lead to."""
    targets = []
    for part in expression:
        choices = [verdict for _key, verdict in _pairs(part["vmap"]["data"], sets)] if "vmap" in part else [part]
        targets += [choice[kind]["target"] for choice in choices for kind in ("jump", "goto") if kind in choice]
    return targets


def decides(expression: list[dict[str, Any]]) -> bool:
    """Tell whether a rule gives a verdict on anything."""
    return any(kind in _VERDICTS or kind in ("jump", "goto", "vmap", "xt") for part in expression for kind in part)


def _verdict(part: dict[str, Any]) -> Verdict | None:
    ((kind, body),) = part.items()
    if kind == "jump":
        return Verdict("jump", body["target"])
    if kind == "goto":
        return Verdict("goto", body["target"])
    return Verdict(_VERDICTS[kind]) if kind in _VERDICTS else None  # type: ignore[arg-type]


def _mapped(body: dict[str, Any], packet: Packet, sets: Mapping[str, list[Any]]) -> Verdict | None:
    value = _value(body["key"], packet)
    pairs = _pairs(body["data"], sets)
    # What is there for all the rest comes last.
    for key, verdict in sorted(pairs, key=lambda pair: pair[0] == "*"):
        if _contains(value, key, sets):
            return _verdict(verdict)
    return None


def _passes(kind: str, body: Any) -> bool:
    """Tell whether an ordinary packet passes on to the next part of the rule."""
    if kind in _LIMITS:
        # Below every limit: "over 10/second" does not hold, "10/second" does.
        return not (isinstance(body, dict) and body.get("inv"))
    if kind in ("set", "meter"):
        nested = body.get("stmt", [])
        parts = nested if isinstance(nested, list) else [nested]
        return all(_passes(*next(iter(part.items()))) for part in parts)
    if kind == "xt":
        return isinstance(body, dict) and body.get("name") in ("comment", "LOG", "NFLOG")
    return kind in _WITHOUT_VERDICT


def _holds(match: dict[str, Any], packet: Packet, sets: Mapping[str, list[Any]]) -> bool | None:
    value, right, operator = _value(match["left"], packet), match["right"], match["op"]
    if value is _ABSENT:
        return False
    if isinstance(value, frozenset) and operator in ("in", "!"):
        return bool(value & _flags(right)) is (operator == "in")
    if operator in ("==", "in"):
        return _contains(value, right, sets)
    if operator == "!=":
        contained = _contains(value, right, sets)
        return None if contained is None else not contained
    if isinstance(value, int) and isinstance(right, int):
        ordered = {"<": value < right, ">": value > right, "<=": value <= right, ">=": value >= right}
        return ordered.get(str(operator))
    return None


def _value(left: Any, packet: Packet) -> Any:
    """Give what the packet has where a match looks."""
    if not isinstance(left, dict) or len(left) != 1:
        return _UNKNOWN
    ((kind, body),) = left.items()
    if kind == "payload":
        return _field(body, packet)
    if kind == "meta":
        return _meta(body.get("key"), packet)
    if kind == "ct":
        return _CONNECTION.get(body.get("key"), _UNKNOWN)
    if kind == "fib":
        if body.get("result") == "type":
            return "local" if "daddr" in body.get("flags", ()) else "unicast"
        return True  # there is a way back
    if kind == "concat":
        return tuple(_value(one, packet) for one in body)
    if kind == "&":
        value, mask = _value(body[0], packet), body[1]
        if isinstance(value, frozenset):
            return value & _flags(mask)
        if isinstance(value, int) and isinstance(mask, int):
            return value & mask
    return _UNKNOWN


def _field(body: dict[str, Any], packet: Packet) -> Any:
    protocol, field = body.get("protocol", ""), body.get("field", "")
    if protocol in ("tcp", "th") and field == "dport":
        return packet.port
    if protocol in _OTHER_PROTOCOLS or (protocol in ("ip", "ip6") and protocol != packet.family):
        return _ABSENT
    return _FIELDS.get((protocol, field), _UNKNOWN)


def _meta(key: Any, packet: Packet) -> Any:
    if key in ("iifname", "iif"):
        return _ORDINARY if packet.interface is None else packet.interface
    if key == "nfproto":
        return "ipv4" if packet.family == "ip" else "ipv6"
    if key == "protocol":
        return packet.family
    return _META.get(key, _UNKNOWN)


def _contains(value: Any, right: Any, sets: Mapping[str, list[Any]]) -> bool | None:
    """Tell whether a value is what a match has on its right, or among it."""
    if right == "*":
        return True
    if value is _UNKNOWN or (isinstance(right, str) and right.startswith("@") and right[1:] not in sets):
        return None
    if value is _ABSENT:
        return False
    if isinstance(right, dict) and "elem" in right:
        return _contains(value, right["elem"]["val"], sets)
    if (isinstance(right, dict) and "set" in right) or (isinstance(right, str) and right.startswith("@")):
        if value is _ORDINARY:
            return False
        return _any(_contains(value, one, sets) for one in _elements(right, sets))
    if isinstance(value, tuple):
        parts = right.get("concat") if isinstance(right, dict) else None
        if not isinstance(parts, list) or len(parts) != len(value):
            return None
        missed = _any(_negated(_contains(one, part, sets)) for one, part in zip(value, parts, strict=True))
        return _negated(missed)
    if isinstance(right, dict) and "range" in right:
        low, high = right["range"]
        if isinstance(value, int) and isinstance(low, int) and isinstance(high, int):
            return low <= value <= high
        return _unless_ordinary(value)
    if isinstance(right, dict) and "prefix" in right:
        return True if right["prefix"]["len"] == 0 else _unless_ordinary(value)
    if isinstance(right, dict):
        return _unless_ordinary(value)
    return _equals(value, right)


def _equals(value: Any, right: Any) -> bool | None:
    if isinstance(value, frozenset):
        return value == _flags(right)
    if isinstance(value, str) and isinstance(right, str):
        if right == "unicast" and value == "host":
            return True
        return value.startswith(right[:-1]) if right.endswith("*") else value == right
    if isinstance(value, str) and isinstance(right, int):
        return _NUMBERS[value] == right if value in _NUMBERS else None
    if isinstance(value, int) and isinstance(right, int):
        return value == right
    return _unless_ordinary(value)


def _unless_ordinary(value: Any) -> bool | None:
    return False if value is _ORDINARY else None


def _flags(right: Any) -> frozenset[str]:
    if isinstance(right, str):
        return frozenset({right})
    if isinstance(right, dict):
        return _flags(right.get("|", right.get("set", [])))
    if isinstance(right, list):
        return frozenset[str]().union(*map(_flags, right))
    return frozenset()


def _elements(body: Any, sets: Mapping[str, list[Any]]) -> list[Any]:
    if isinstance(body, str):
        return sets.get(body.removeprefix("@"), [])
    elements = body.get("set", [])
    return elements if isinstance(elements, list) else [elements]


def _pairs(body: Any, sets: Mapping[str, list[Any]]) -> list[list[Any]]:
    return [pair for pair in _elements(body, sets) if isinstance(pair, list) and len(pair) == 2]


def _any(answers: Iterator[bool | None]) -> bool | None:
    seen = set(answers)
    return True if True in seen else None if None in seen else False


def _negated(answer: bool | None) -> bool | None:
    return None if answer is None else not answer
