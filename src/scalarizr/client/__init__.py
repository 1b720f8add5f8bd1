"""The other end of the wire: `Client`, `AsyncClient`, and the errors that they raise."""

from scalarizr.client.client import Client
from scalarizr.client.errors import (
    AgentError,
    AuthenticationFailed,
    CertificateUnusable,
    ClientError,
    Unreachable,
)
from scalarizr.client.operation import Operation, OperationRecord

__all__ = [
    "AgentError",
    "AsyncClient",
    "AuthenticationFailed",
    "CertificateUnusable",
    "Client",
    "ClientError",
    "Operation",
    "OperationRecord",
    "Unreachable",
]


def __getattr__(name: str) -> object:
    # asyncio is half of what the import would cost; who stays synchronous does not pay for it.
    if name == "AsyncClient":
        from scalarizr.client.async_client import AsyncClient

        return AsyncClient
    raise AttributeError(name)
