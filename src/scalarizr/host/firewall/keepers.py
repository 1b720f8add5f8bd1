"""Who keeps the rules that are in the kernel, and where these stop a port."""

from collections.abc import Iterator, Sequence

from scalarizr.host.firewall import firewalld, iptables, nftables, ufw
from scalarizr.host.firewall.chains import Packet, ordinary_packets, place_of_stop
from scalarizr.host.firewall.programs import Programs
from scalarizr.host.firewall.stops import Keeper, Stop

KEEPERS: dict[str, Keeper] = {"firewalld": firewalld, "iptables": iptables, "nftables": nftables, "ufw": ufw}


def find_stops(ports: Sequence[int], programs: Programs) -> list[Stop]:
    """Find every place where ports are stopped: none where no firewall is active, or it lets them through."""
    packets = list(ordinary_packets(ports))
    tables = nftables.read_tables(programs)
    filters = iptables.read_filters(tables, programs)
    found: dict[tuple[int, int, int], Stop] = {}
    for stop in (*_stops_of_filters(filters, packets), *_stops_of_tables(tables, filters, packets)):
        found.setdefault((stop.port, id(stop.chain), stop.number), stop)
    return list(found.values())


def _stops_of_tables(
    tables: Sequence[nftables.NftTable], filters: Sequence[iptables.Filter], packets: Sequence[Packet]
) -> Iterator[Stop]:
    read = {one.family for one in filters if not one.legacy}
    for table in tables:
        keeper = "firewalld" if table.name == firewalld.TABLE else "nftables"
        for chain in table.chains.values():
            if not chain.base or iptables.keeps(table.name, chain.name, readable=table.family in read):
                continue
            for packet in packets:
                place = place_of_stop(table.chains, chain, packet) if table.sees(packet) else None
                if place is not None:
                    yield Stop(keeper, packet.port, table.family, table.name, *place, packet.interface)


def _stops_of_filters(filters: Sequence[iptables.Filter], packets: Sequence[Packet]) -> Iterator[Stop]:
    chains = {name for one in filters for name in one.chains}
    keeper = "ufw" if ufw.CHAINS["ip"] in chains else "firewalld" if firewalld.CHAIN in chains else "iptables"
    for one in filters:
        # Where it does not care for IPv6, that is closed on purpose.
        if keeper == "ufw" and ufw.CHAINS[one.family] not in one.chains:
            continue
        for packet in packets:
            if packet.family == one.family:
                place = place_of_stop(one.chains, one.chains[iptables.BASE], packet)
                if place is not None:
                    yield Stop(keeper, packet.port, one.family, one.program, *place, packet.interface)
