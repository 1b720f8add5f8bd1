"""Rules that no release of nft or iptables prints today: they are such as cannot be told, never an error."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from scalarizr.host.firewall.chains import Chain, Packet, place_of_stop
from scalarizr.host.firewall.iptables import IptRule
from scalarizr.host.firewall.nftables import NftRule

PACKET = Packet(80, "ip", "eth0")
WORDS = some.sampled_from(
    ["==", "!=", "in", "<", "*", "@web", "tcp", "dport", "saddr", "state", "new", "iifname", "eth0", "ip", "", "accept"]
)
KEYS = some.sampled_from(
    ["match", "vmap", "jump", "goto", "accept", "drop", "limit", "set", "xt", "op", "left", "right", "payload", "meta",
     "ct", "fib", "concat", "&", "|", "protocol", "field", "key", "data", "target", "range", "prefix", "elem", "val",
     "stmt", "inv", "len", "new thing"]
)  # fmt: skip
VALUES = some.recursive(
    some.none() | some.booleans() | some.integers(-1, 70000) | WORDS,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(KEYS, inner, max_size=3),
    max_leaves=20,
)


@given(some.lists(some.dictionaries(KEYS, VALUES, max_size=2) | VALUES, max_size=4), some.lists(VALUES, max_size=3))
def test_a_rule_of_nftables_in_an_unknown_form_stops_the_walk_nowhere(expression: list[Any], web: list[Any]) -> None:
    rule = NftRule({"handle": 1, "expr": expression}, {"web": web})
    chain = Chain("entry", [rule], base=True, drops=True)
    place = place_of_stop({"entry": chain, "": chain}, chain, PACKET)
    assert place is None or place.number in (0, 1)


OPTIONS = some.sampled_from(
    ["!", "-p", "tcp", "-s", "-i", "eth0", "--dport", "80", "80:", "x:y", "--tcp-flags", "SYN", "-m", "--match-set",
     "web", "--new-option", "-j", "-g", "ACCEPT", "DROP", "REST", ""]
)  # fmt: skip


@given(some.lists(OPTIONS, max_size=8))
def test_nor_does_one_of_iptables(words: list[str]) -> None:
    chain = Chain("INPUT", [IptRule(words, frozenset({"REST"}))], base=True, drops=True)
    place = place_of_stop({"INPUT": chain, "REST": Chain("REST", [])}, chain, PACKET)
    assert place is None or place.number in (0, 1)
