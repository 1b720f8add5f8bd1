"""Whether the conditions of a rule of iptables hold for a packet, from the options that `iptables -S` prints."""

from collections.abc import Callable, Sequence

from scalarizr.host.firewall.chains import Packet

# What an ordinary first packet from outside says to an option and its argument; None: that cannot be told.
_Answer = Callable[[str, Packet], bool | None]


def _never(_argument: str, _packet: Packet) -> bool | None:
    return False


def _always(_argument: str, _packet: Packet) -> bool | None:
    return True


def _protocol(argument: str, _packet: Packet) -> bool | None:
    return argument in ("tcp", "6", "all", "0")


def _interface(argument: str, packet: Packet) -> bool | None:
    if argument == "+":
        return True
    if packet.interface is None:
        return False
    if argument.endswith("+"):
        return packet.interface.startswith(argument[:-1])
    return packet.interface == argument


def _source(argument: str, _packet: Packet) -> bool | None:
    return argument.endswith("/0")


def _destination(argument: str, _packet: Packet) -> bool | None:
    return True if argument.endswith("/0") else None


def _port(argument: str, packet: Packet) -> bool | None:
    return _among(argument, packet.port)


def _source_port(argument: str, _packet: Packet) -> bool | None:
    return _among(argument, 50000)


def _among(argument: str, number: int) -> bool | None:
    for part in argument.split(","):
        low, colon, high = part.partition(":")
        try:
            if int(low or 0) <= number <= int((high or 65535) if colon else low):
                return True
        except ValueError:
            return None
    return False


def _state(argument: str, _packet: Packet) -> bool | None:
    return "NEW" in argument.split(",")


def _destination_type(argument: str, _packet: Packet) -> bool | None:
    return "LOCAL" in argument.split(",")


def _source_type(argument: str, _packet: Packet) -> bool | None:
    return "UNICAST" in argument.split(",")


def _set(argument: str, _packet: Packet) -> bool | None:
    # Of the words behind the set's name: a source that no rule names is in none.
    return False if "src" in argument.split()[-1].split(",") else None


def _packet_kind(argument: str, _packet: Packet) -> bool | None:
    return argument == "unicast"


# How many arguments each option has, and what it means.
_OPTIONS: dict[str, tuple[int, _Answer]] = {
    "-p": (1, _protocol),
    "-i": (1, _interface),
    "-s": (1, _source),
    "-d": (1, _destination),
    "-m": (1, _always),
    "-f": (0, _never),
    "--comment": (1, _always),
    "--dport": (1, _port),
    "--dports": (1, _port),
    "--sport": (1, _source_port),
    "--sports": (1, _source_port),
    "--ports": (1, _port),
    "--syn": (0, _always),
    "--ctstate": (1, _state),
    "--state": (1, _state),
    "--ctstatus": (1, _never),
    "--ctdir": (1, lambda argument, _packet: argument == "ORIGINAL"),
    "--dst-type": (1, _destination_type),
    "--src-type": (1, _source_type),
    "--pkt-type": (1, _packet_kind),
    "--match-set": (2, _set),
    "--mark": (1, _never),
    "--mac-source": (1, _never),
    "--src-range": (1, _never),
    "--icmp-type": (1, _never),
    "--icmpv6-type": (1, _never),
    "--rt-type": (1, _never),
    # Below every limit, and for the first time.
    "--limit": (1, _always),
    "--limit-burst": (1, _always),
    "--hashlimit-upto": (1, _always),
    "--hashlimit-above": (1, _never),
    "--hashlimit-burst": (1, _always),
    "--hashlimit-mode": (1, _always),
    "--hashlimit-name": (1, _always),
    "--hashlimit-srcmask": (1, _always),
    "--hashlimit-dstmask": (1, _always),
    "--hashlimit-htable-size": (1, _always),
    "--hashlimit-htable-max": (1, _always),
    "--hashlimit-htable-expire": (1, _always),
    "--hashlimit-htable-gcinterval": (1, _always),
    "--connlimit-upto": (1, _always),
    "--connlimit-above": (1, _never),
    "--connlimit-mask": (1, _always),
    "--connlimit-saddr": (0, _always),
    "--connlimit-daddr": (0, _always),
    "--set": (0, _always),
    "--rcheck": (0, _never),
    "--update": (0, _never),
    "--remove": (0, _never),
    "--seconds": (1, _always),
    "--hitcount": (1, _always),
    "--name": (1, _always),
    "--mask": (1, _always),
    "--rsource": (0, _always),
    "--rdest": (0, _always),
    "--reap": (0, _always),
    "--rttl": (0, _always),
}


def holds(words: Sequence[str], packet: Packet) -> bool:
    """Tell whether a rule's conditions all hold; what cannot be told does not.

    :param words: the rule without its target.
    """
    rest = list(words)
    while rest:
        negated = rest[0] == "!"
        option = rest[1] if negated and len(rest) > 1 else rest[0]
        del rest[: 2 if negated else 1]
        if option == "--tcp-flags":
            mask, flags = rest[:2]
            answer: bool | None = ("SYN" in _flags(mask)) and _flags(flags) == {"SYN"}
            if "SYN" not in _flags(mask):
                answer = not _flags(flags)
            del rest[:2]
        elif option in _OPTIONS:
            count, meaning = _OPTIONS[option]
            answer = meaning(" ".join(rest[:count]), packet)
            del rest[:count]
        else:
            return False
        if answer is None or answer == negated:
            return False
    return True


def _flags(argument: str) -> set[str]:
    return set(argument.split(",")) - {"NONE"} if argument != "ALL" else {"FIN", "SYN", "RST", "PSH", "ACK", "URG"}
