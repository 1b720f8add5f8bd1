"""What can go wrong for a client: the agent answered with an error, could not be reached, or is not believed."""

from typing import Any


class ClientError(Exception):
    """Any failure of a call."""


class AgentError(ClientError):
    """The agent answered with an error.

    :ivar code: the JSON-RPC code; it carries the class of the error.
    :ivar message: a sentence for people.
    :ivar data: facts for programs: an object, a string (founding dialect) or None.
    """

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    def __str__(self) -> str:
        if isinstance(self.data, str):
            return f"{self.message}: {self.data}" if self.data not in self.message else self.message
        return self.message


class CertificateUnusable(ClientError):
    """A file of certificates, or of a certificate's key, that this client was given cannot be read or used."""


class Unreachable(ClientError):
    """The agent could not be reached, or did not answer in time."""


class AuthenticationFailed(ClientError):
    """The agent refused the message, or its answer is not genuine: another key, a clock that is off, or somebody in
    between."""
