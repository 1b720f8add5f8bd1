"""An agent that listens for TLS, too, with a certificate of an issuer made for it; and clients that speak by hand."""

import ssl
from collections.abc import Callable
from pathlib import Path

from certificate_authority import CLIENT, Authority, Pair
from free_ports import free_port
from running_agent import RunningAgent
from wire import Answer, Connection

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


class TlsAgent:
    """An agent with TLS.

    :param make: makes the agent from its settings, not started.
    :param directory: of the issuer's and the certificates' files.
    :param clients: whether clients need a certificate.
    :param settings: TOML that is added; no section `[tls]`.
    """

    def __init__(
        self, make: Callable[[str], RunningAgent], directory: Path, *, clients: bool = False, settings: str = ""
    ) -> None:
        self.authority = Authority(directory / "servers")
        self.clients = Authority(directory / "clients", "Clients CA")
        self.pair = self.authority.issue("agent")
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self._clients = clients
        self._more = settings
        self.agent = make(self.settings())

    def settings(self, pair: Pair | None = None) -> str:
        """Give the settings, with these files."""
        certificate, key = pair or self.pair
        section = f'[tls]\nlisten = "127.0.0.1:{self.port}"\ncertificate = "{certificate}"\nkey = "{key}"\n'
        return section + (f'client_ca = "{self.clients.ca}"\n' if self._clients else "") + self._more

    def context(self, shown: Pair | None = None) -> ssl.SSLContext:
        """Give what a client connects with that believes the issuer, and shows a certificate of its own."""
        context = ssl.create_default_context(cafile=self.authority.ca)
        if shown is not None:
            context.load_cert_chain(*shown)
        return context

    def client(self, name: str, begins: float = -1, days: float = 60) -> Pair:
        """Issue a certificate that the agent accepts of clients, where it asks for one and the dates are right."""
        return self.clients.issue(name, use=CLIENT, begins=begins, days=days)

    def connect(self, context: ssl.SSLContext | None = None) -> Connection:
        """Connect, and shake hands."""
        connection = Connection(self.port)
        try:
            connection.socket = (context or self.context()).wrap_socket(connection.socket, server_hostname="127.0.0.1")
        except BaseException:
            connection.socket.close()
            raise
        return connection

    def shown(self) -> bytes | None:
        """Give the certificate that a new connection is shown."""
        with self.connect() as connection:
            return certificate_of(connection)


def certificate_of(connection: Connection) -> bytes | None:
    """Give the certificate that a connection was shown."""
    assert isinstance(connection.socket, ssl.SSLSocket)
    return connection.socket.getpeercert(binary_form=True)


def healthy(connection: Connection) -> bool:
    """Ask whether the agent is well."""
    answer: Answer = connection.ask(HEALTH)
    return answer.status == 200
