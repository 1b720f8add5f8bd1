"""What all connections share: how many there may be, how much they may hold in memory, who makes room for whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalarizr.settings.model import Api

if TYPE_CHECKING:
    from scalarizr.server.connection import Connection

READ_AT_ONCE = 64 * 1024


class Limits:
    """The connections of one server and their common bounds.

    One address holds at most half of the connections, so that no single stranger can keep everybody else out.
    """

    def __init__(self, settings: Api) -> None:
        self.settings = settings
        # One buffer for all: a connection is done with what it read before the next one reads.
        self.buffer = memoryview(bytearray(READ_AT_ONCE))
        self.connections: dict[Connection, None] = {}  # in the order of their coming
        self._of_address: dict[str, int] = {}
        self._body_bytes = 0

    def admit(self, connection: Connection) -> Connection | None:
        """Count a new connection in.

        :return: None where there is room; else the connection that has to be closed for it, which is the new one itself
            where all the others have proved who they are.
        """
        crowded_address = self._of_address.get(connection.address, 0) >= max(1, self.settings.connections // 2)
        full = len(self.connections) >= self.settings.connections
        victim = None
        if crowded_address or full:
            only_of = connection.address if crowded_address else None
            victim = next(
                (other for other in self.connections if not other.authenticated and only_of in (None, other.address)),
                connection,
            )
        if victim is not connection:
            if victim is not None:
                self.leave(victim)
            self.connections[connection] = None
            self._of_address[connection.address] = self._of_address.get(connection.address, 0) + 1
        return victim

    def leave(self, connection: Connection) -> None:
        """Count a connection out; a second time does nothing."""
        if connection not in self.connections:
            return
        del self.connections[connection]
        left = self._of_address[connection.address] - 1
        if left:
            self._of_address[connection.address] = left
        else:
            del self._of_address[connection.address]

    def take_memory(self, size: int) -> bool:
        """Count bytes of a body in; False, and nothing counted, where they would be too many."""
        if self._body_bytes + size > self.settings.bodies_in_memory:
            return False
        self._body_bytes += size
        return True

    def give_back_memory(self, size: int) -> None:
        """Count bytes of a body out."""
        self._body_bytes -= size
