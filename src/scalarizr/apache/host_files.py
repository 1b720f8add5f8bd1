"""The agent's virtual hosts as files of its own, and what Apache's configuration needs to serve them."""

import re
from collections.abc import Collection
from pathlib import Path

from scalarizr.apache.configuration import listening_ports
from scalarizr.apache.description import Description
from scalarizr.apache.ports import opened_ports_in, ports_text
from scalarizr.changes.transaction import Transaction

_FILE = re.compile(r"(?P<hostname>.+)-(?P<port>\d+)\.vhost\.conf")
_INCLUDE_NOTE = "# The next line is scalarizr's: its virtual hosts."


class HostFiles:
    """The files of one directory: one a virtual host, and one for the ports.

    :param directory: theirs.
    :ivar ports: the file that says on what ports Apache listens for them alone.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = directory / "ports.conf"

    def path(self, hostname: str, port: int) -> Path:
        """Give the file of a virtual host, whether it is there or not."""
        return self.directory / f"{hostname}-{port}.vhost.conf"

    def present(self, transaction: Transaction | None = None) -> list[tuple[str, int]]:
        """Give name and port of the agent's hosts: the live ones, or what a transaction would leave."""
        names = {path.name for path in self.directory.iterdir()} if self.directory.is_dir() else set()
        if transaction is not None:
            for file in transaction.plan:
                if file.path.parent == self.directory:
                    (names.discard if file.new.absent else names.add)(file.path.name)
        matches = (_FILE.fullmatch(name) for name in sorted(names) if not name.startswith("."))
        return [(match["hostname"], int(match["port"])) for match in matches if match]

    def listen(
        self, transaction: Transaction, described: Description, modules: frozenset[str], allowed: Collection[int]
    ) -> None:
        """Make Apache listen on the ports of the agent's hosts, where nothing else of its configuration does.

        :param described: the live configuration.
        :param modules: those that will be loaded.
        :param allowed: ports that a caller asked to be let through the firewall.
        """
        present = self.present(transaction)
        wanted = {port for _name, port in present}
        others = listening_ports(
            described,
            transaction,
            modules,
            leave_out=frozenset({self.ports}),
            also=[self.path(name, port) for name, port in present],
        )
        missing = wanted - others
        opened = (opened_ports_in(transaction.read(self.ports)) | set(allowed)) & wanted
        if missing or opened or transaction.exists(self.ports):
            transaction.write(self.ports, ports_text(missing, opened))

    def be_included(self, transaction: Transaction, main: Path) -> None:
        """Have the agent's files included from the main configuration, once."""
        if not self.present(transaction):
            return
        content = transaction.read(main) or b""
        pattern = f"{self.directory}/*.conf"
        if re.search(rb"(?im)^\s*include(?:optional)?\s+\"?" + re.escape(pattern.encode()) + rb"\"?\s*$", content):
            return
        newline = b"" if content.endswith(b"\n") or not content else b"\n"
        transaction.write(main, content + newline + f"\n{_INCLUDE_NOTE}\nIncludeOptional {pattern}\n".encode())
