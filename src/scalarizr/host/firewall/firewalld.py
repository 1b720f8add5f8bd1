"""firewalld: a port is a rich rule in the zone by which the world comes in, at present and in its settings.

A port of a zone bears no mark: whether a person or the agent opened it could not be told. A rich rule has a priority,
and this one's is what nobody else would think of; it comes behind everything that the zone denies.
"""

from collections.abc import Iterator, Sequence

from scalarizr.host.firewall.programs import Programs
from scalarizr.host.firewall.stops import Stop

TABLE = "firewalld"
"""Its table of nftables."""
CHAIN = "INPUT_ZONES"
"""A chain of its where it uses iptables."""
_PRIORITY = 8010
_COMMAND = "firewall-cmd"
_WITHOUT_DAEMON = "firewall-offline-cmd"


def let_through(stops: Sequence[Stop], programs: Programs) -> None:
    """Let ports through in the zones of the interfaces that stop them."""
    default = (programs.ask(_COMMAND, "--get-default-zone") or "").strip()
    for interface in {stop.interface for stop in stops}:
        zone = programs.ask(_COMMAND, f"--get-zone-of-interface={interface}") if interface else None
        rules = sorted({f"--add-rich-rule={_rule(stop.port)}" for stop in stops if stop.interface == interface})
        place = f"--zone={(zone or default).strip()}"
        programs.do(_COMMAND, "--permanent", place, *rules)
        programs.do(_COMMAND, place, *rules)


def take_back(ports: Sequence[int], programs: Programs) -> None:
    """Remove those rich rules, of all zones."""
    if not programs.has(_COMMAND):
        return
    commands = [[_COMMAND], [_COMMAND, "--permanent"]]
    if programs.ask(_COMMAND, "--state") is None:
        commands = [[_WITHOUT_DAEMON]]
    for command in commands:
        for zone, rules in _found(programs.ask(*command, "--list-all-zones") or "", {_rule(port) for port in ports}):
            programs.do(*command, f"--zone={zone}", *(f"--remove-rich-rule={rule}" for rule in rules))


def _rule(port: int) -> str:
    # As it is listed.
    return f'rule priority="{_PRIORITY}" port port="{port}" protocol="tcp" accept'


def _found(listing: str, wanted: set[str]) -> Iterator[tuple[str, list[str]]]:
    """Give the zones of a listing that have one of the rules: a name in the first column, indented what it has."""
    zone, found = "", list[str]()
    for line in (*listing.splitlines(), "end"):
        if line and not line[0].isspace():
            if found:
                yield zone, found
            zone, found = line.split()[0], []
        elif line.strip() in wanted:
            found.append(line.strip())
