"""The ports that the agent opened, for whom, and in which firewall: written down before it is done."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scalarizr.errors import OutsideFailure, ScalarizrError
from scalarizr.host.files import write_file
from scalarizr.host.locks import locked

if TYPE_CHECKING:
    from scalarizr.host.firewall.programs import Programs
    from scalarizr.host.firewall.stops import Stop


class OpenedPort(msgspec.Struct):
    """One port.

    :param owners: who needs it.
    :param keepers: the firewalls in which it was opened, or was about to be.
    """

    owners: list[str]
    keepers: list[str]


_Record = dict[int, OpenedPort]


class Firewall:
    """The host's firewall, as far as it is this agent's business.

    A port that is let through already is left alone, then and later. A firewall that cannot be read is left alone, too.

    :param record: file in which the opened ports are kept.
    """

    def __init__(self, record: Path) -> None:
        self._record = record

    def open(self, owner: str, ports: Iterable[int]) -> None:
        """Let ports through for everybody, where a firewall is active and stops them.

        What it stops for some (an address, a state of the connection) stays in force.

        :param owner: who needs them.
        :raises OutsideFailure: the firewall refused, in its own words; what had been opened of them is closed again.
        """
        wanted = sorted(set(ports))
        if not wanted:
            return
        with self._held() as (record, programs):
            for port in wanted:
                opened = record.get(port)
                if opened is not None and owner not in opened.owners:
                    opened.owners = sorted([*opened.owners, owner])
            new = [port for port in wanted if port not in record]
            try:
                self._open(new, owner, record, programs)
            except ScalarizrError:
                with contextlib.suppress(ScalarizrError):
                    self._close([port for port in new if port in record], record, programs)
                raise

    def close_all_but(self, owner: str, ports: Iterable[int]) -> None:
        """Close what was opened for an owner and is needed neither by it nor by another one any more.

        :raises OutsideFailure: the firewall refused; it is tried again the next time.
        """
        if not self.opened(owner):
            return
        kept = set(ports)
        with self._held() as (record, programs):
            unneeded = []
            for port, opened in record.items():
                if owner in opened.owners and port not in kept:
                    if opened.owners == [owner]:
                        unneeded.append(port)
                    else:
                        opened.owners.remove(owner)
            self._close(unneeded, record, programs)

    def reopen(self) -> None:
        """Open again what is opened no more: a reboot, or whoever loaded the rules anew, took it away.

        :raises OutsideFailure: the firewall refused.
        """
        if not self._read():
            return
        with self._held() as (record, programs):
            self._open(list(record), None, record, programs)

    def opened(self, owner: str) -> set[int]:
        """Give the ports that were opened for an owner."""
        return {port for port, opened in self._read().items() if owner in opened.owners}

    def owners(self) -> set[str]:
        """Give all for whom a port was opened."""
        return {owner for opened in self._read().values() for owner in opened.owners}

    def _open(self, ports: list[int], owner: str | None, record: _Record, programs: "Programs") -> None:
        if not ports:
            return
        from scalarizr.host.firewall.keepers import KEEPERS, find_stops

        stops = find_stops(ports, programs)
        if not stops:
            return
        for stop in stops:
            opened = record.setdefault(stop.port, OpenedPort([owner] if owner else [], []))
            opened.keepers = sorted({*opened.keepers, stop.keeper})
        # Before it is done: what was recorded and never opened is harmless, the reverse would stay open for good.
        self._write(record)
        for name in sorted({stop.keeper for stop in stops}):
            KEEPERS[name].let_through([stop for stop in stops if stop.keeper == name], programs)
        left = find_stops(ports, programs)
        if left:
            raise OutsideFailure(_obstacle(left[0]), {"port": left[0].port})

    def _close(self, ports: list[int], record: _Record, programs: "Programs") -> None:
        if not ports:
            return
        from scalarizr.host.firewall.keepers import KEEPERS

        for name in sorted({keeper for port in ports for keeper in record[port].keepers}):
            KEEPERS[name].take_back([port for port in ports if name in record[port].keepers], programs)
        for port in ports:
            del record[port]

    @contextlib.contextmanager
    def _held(self) -> Iterator[tuple[_Record, "Programs"]]:
        from scalarizr.host.firewall.programs import Programs

        with locked(self._record.with_suffix(".lock"), what="the firewall") as lock:
            record = self._read()
            try:
                yield record, Programs(lock)
            finally:
                self._write(record)

    def _read(self) -> _Record:
        try:
            return msgspec.json.decode(self._record.read_bytes(), type=_Record)
        except FileNotFoundError:
            return {}
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            aside = self._record.with_name(f"{self._record.name}.damaged")
            with contextlib.suppress(FileNotFoundError):  # somebody else was first
                os.rename(self._record, aside)
            raise OutsideFailure(
                f"{self._record} was damaged ({error}) and is kept as {aside.name}: which ports were opened before is "
                "not known any more. Look for rules of the firewall that nobody needs, and call again.",
                {"path": str(aside)},
            ) from error

    def _write(self, record: _Record) -> None:
        if record != self._read():
            write_file(self._record, msgspec.json.encode(record), mode=0o600)


def _obstacle(stop: "Stop") -> str:
    return (
        f"The firewall still stops port {stop.port}, in the chain {stop.chain.name}, though it was opened with "
        f"{stop.keeper}: another rule comes first. It was closed again; let it through there by hand."
    )
