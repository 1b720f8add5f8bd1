"""What every source of the environment gives, whatever it is read from."""

from typing import Any, Literal, Protocol

import msgspec

from scalarizr.secret import Secret


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One server of a role.

    :param private: its private address; may carry a port of its own, `10.0.0.11:8001` or `[::1]:80`.
    :param public: its public address.
    :param cloud_location: its region or zone.
    :param index: its number in the role.
    :param replication_master: whether it is the one that the others replicate from.
    :param status: the control plane's word for its state; empty where unknown.
    """

    private: str | None = None
    public: str | None = None
    cloud_location: str | None = None
    index: int | None = None
    replication_master: bool = False
    status: str = ""


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """A farm role.

    :param id: the farm_role_id.
    :param name: its name.
    :param behaviours: what its servers do, such as `app`.
    :param servers: its servers.
    """

    id: str
    name: str = ""
    behaviours: tuple[str, ...] = ()
    servers: tuple[Server, ...] = ()


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate with its key.

    :param id: its id; None for the default one.
    :param certificate: PEM.
    :param key: PEM.
    :param chain: the certificates of its issuers, PEM, or None.
    """

    id: str | None
    certificate: str
    key: Secret
    chain: str | None = None


class VirtualHost(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual host of the web server.

    :param hostname: its name.
    :param port: TCP port.
    :param ssl: whether it speaks TLS.
    :param template: the text of its `<VirtualHost>`.
    :param ssl_certificate_id: the certificate to use; None: the default one.
    """

    hostname: str
    port: int = 80
    ssl: bool = False
    template: str = ""
    ssl_certificate_id: str | None = None


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A scaling metric.

    :param id: its number.
    :param name: its name.
    :param path: the file that is run or read.
    :param retrieve_method: `execute` or `read`.
    """

    id: int
    name: str
    path: str
    retrieve_method: Literal["execute", "read"]


class EnvironmentSource(Protocol):
    """A source of the environment. Every call reads anew what may have changed."""

    def roles(self) -> list[Role]:
        """Give all roles."""

    def role(self, farm_role_id: str) -> Role:
        """Give one role.

        :raises NotFound: there is none of that id.
        """

    def certificate(self, certificate_id: str | None) -> Certificate:
        """Give a certificate, or with None the default one.

        :raises NotFound: there is none of that id.
        """

    def virtual_hosts(self) -> list[VirtualHost]:
        """Give the virtual hosts."""

    def metrics(self) -> list[Metric]:
        """Give the scaling metrics."""

    def farm_role_params(self, farm_role_id: str) -> dict[str, Any]:
        """Give the parameters of a role; empty where the source has none."""
