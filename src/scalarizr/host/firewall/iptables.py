"""iptables and ip6tables, in their form for nftables and in the legacy one, and entries of the agent's in them."""

import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scalarizr.host.firewall.chains import Chain, Family, Packet, Verdict
from scalarizr.host.firewall.ipt_options import holds
from scalarizr.host.firewall.programs import Programs
from scalarizr.host.firewall.stops import MARK, Stop

if TYPE_CHECKING:
    from scalarizr.host.firewall.nftables import NftTable

BASE = "INPUT"
_WAITING = ("-w", "5")
_VERDICTS = {
    "ACCEPT": Verdict("accept"),
    "NFQUEUE": Verdict("accept"),
    "QUEUE": Verdict("accept"),
    "DROP": Verdict("stop"),
    "REJECT": Verdict("stop"),
    "TARPIT": Verdict("stop"),
    "RETURN": Verdict("return"),
}
_LOGGING = ("LOG", "NFLOG", "ULOG")


class IptRule:
    """One rule, as `iptables -S` prints it.

    :param words: what follows the chain's name.
    :param chains: the names of all chains of its table.
    """

    def __init__(self, words: Sequence[str], chains: frozenset[str]) -> None:
        at = next((number for number, word in enumerate(words) if word in ("-j", "-g")), len(words))
        target = words[at + 1] if at + 1 < len(words) else ""
        self.words = list(words)
        self._conditions = list(words[:at])
        self._verdict = _VERDICTS.get(target)
        if target in chains:
            self._verdict = Verdict("goto" if words[at] == "-g" else "jump", target)
        self.targets = [target] if target in chains else []
        self.decides = self._verdict is not None
        self.logs = target in _LOGGING

    def verdict(self, packet: Packet) -> Verdict | None:
        """Give what becomes of a packet."""
        return self._verdict if self._verdict and holds(self._conditions, packet) else None


class Filter(msgspec.Struct):
    """The table `filter` of one protocol.

    :param program: that changes it.
    :param legacy: in the kernel it is no table of nftables.
    """

    program: str
    family: Family
    legacy: bool
    chains: dict[str, Chain]


def read_filters(tables: Sequence["NftTable"], programs: Programs) -> list[Filter]:
    """Read the tables that are in the kernel, without having any made.

    :param tables: what nftables lists.
    """
    return [
        Filter(program, family, legacy, chains)
        for program, family, legacy in _in_use({(table.family, table.name) for table in tables})
        if (chains := _read(programs.ask(program, *_WAITING, "-S"))) is not None
    ]


def keeps(table: str, chain: str, *, readable: bool) -> bool:
    """Tell whether a base chain of nftables is iptables' to change.

    :param readable: it could read the table `filter`; where somebody else made that, it cannot.
    """
    if table == "filter":
        return readable and chain == BASE
    # What is stopped in these is stopped on purpose, packet by packet.
    return table in ("mangle", "raw", "security") and chain.isupper()


def let_through(stops: Sequence[Stop], programs: Programs) -> None:
    """Let ports through right before each place that stops them."""
    # From the last one on: an entry moves those behind it.
    for stop in sorted(stops, key=lambda stop: -stop.number):
        place = (stop.chain.name, str(stop.number + 1))
        programs.do(stop.table, *_WAITING, "-I", *place, *_accepting(stop.port))


def take_back(ports: Sequence[int], programs: Programs) -> None:
    """Take the agent's entries for ports away, wherever they are."""
    entries = [_accepting(port) for port in ports]
    for program, _family, _legacy in _in_use({("ip", "filter"), ("ip6", "filter")}):
        for chain in (_read(programs.ask(program, *_WAITING, "-S")) or {}).values():
            for rule in chain.rules:
                if isinstance(rule, IptRule) and rule.words in entries:
                    programs.do(program, *_WAITING, "-D", chain.name, *rule.words)


def _accepting(port: int) -> list[str]:
    # As `-S` prints it.
    return ["-p", "tcp", "-m", "tcp", "--dport", str(port), "-m", "comment", "--comment", MARK, "-j", "ACCEPT"]


def _in_use(listed: set[tuple[str, str]]) -> Iterator[tuple[str, Family, bool]]:
    """Give program, protocol, and whether it is the legacy one, of the tables in use.

    :param listed: tables of nftables that there are; without its program nobody knows.
    """
    family: Family
    for family, name, kernel in (("ip", "iptables", "ip_tables_names"), ("ip6", "ip6tables", "ip6_tables_names")):
        own = f"{name}-nft"
        if shutil.which(own) and ((family, "filter") in listed or not shutil.which("nft")):
            yield own, family, False
        try:
            in_kernel = (Path("/proc/thread-self/net") / kernel).read_text().split()
        except OSError:
            in_kernel = []
        if "filter" in in_kernel:
            yield f"{name}-legacy" if shutil.which(f"{name}-legacy") else name, family, True


def _read(printed: str | None) -> dict[str, Chain] | None:
    lines = [words for line in (printed or "").splitlines() if len(words := _words(line)) >= 2]
    chains = {
        name: Chain(name, [], base=name == BASE, drops=option == "-P" and rest[:1] == ["DROP"])
        for option, name, *rest in lines
        if option in ("-P", "-N")
    }
    names = frozenset(chains)
    for option, name, *rest in lines:
        if option == "-A" and name in chains:
            chains[name].rules.append(IptRule(rest, names))
    return chains if BASE in chains else None


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()
