"""What stands in a port's way, and what a keeper of rules has to offer."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from scalarizr.host.firewall.chains import Chain
from scalarizr.host.firewall.programs import Programs

MARK = "scalarizr"
"""The comment by which the agent knows its own entries."""


class Stop(msgspec.Struct, frozen=True):
    """A place where a port is stopped.

    :param keeper: who keeps the rules there: a name of `keepers.KEEPERS`.
    :param port: the port.
    :param family: that of the table; of iptables that of the program.
    :param table: its table; of iptables the program.
    :param chain: the chain.
    :param number: of the rule before which an entry lets the port through.
    :param interface: by which the packet came in; None: some.
    """

    keeper: str
    port: int
    family: str
    table: str
    chain: Chain
    number: int
    interface: str | None


class Keeper(Protocol):
    """Who keeps rules, and opens ports in its own way."""

    def let_through(self, stops: Sequence[Stop], programs: Programs) -> None:
        """Let ports through for good, where it stops them.

        :raises OutsideFailure: it refused, in its own words.
        """

    def take_back(self, ports: Sequence[int], programs: Programs) -> None:
        """Undo what `let_through` did for ports, and nothing else; what is not there is no error.

        :raises OutsideFailure: it refused, in its own words.
        """
