"""The passwords that this agent gave its user, kept so that the next call, and the monitoring agent, can log in."""

from pathlib import Path

import msgspec

from scalarizr.errors import UNCHANGED, OutsideFailure
from scalarizr.host.files import make_private_directory, write_file
from scalarizr.secret import Secret


class _Kept(msgspec.Struct):
    user: str
    passwords: list[str]


class KeptPasswords:
    """A file, 0600, with the passwords that may be in force.

    A new one is kept before the server is told, beside the old one: whenever the agent dies, one of them is right.

    :param path: the file.
    :param user: whose passwords.
    """

    def __init__(self, path: Path, user: str) -> None:
        self._path = path
        self._user = user

    def all(self) -> list[Secret]:
        """Give them, the newest first; none where the file is absent, damaged, or of another user."""
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=_Kept)
        except (OSError, msgspec.DecodeError):
            return []
        return [Secret(password) for password in kept.passwords] if kept.user == self._user else []

    def keep(self, passwords: list[Secret]) -> None:
        """Replace them.

        :raises OutsideFailure: the file cannot be written; it is as it was.
        """
        kept = _Kept(self._user, [password.reveal() for password in passwords])
        try:
            make_private_directory(self._path.parent)
            write_file(self._path, msgspec.json.encode(kept), mode=0o600)
        except OSError as error:
            raise OutsideFailure(
                f"{self._path} cannot be written: {error.strerror or error}. {UNCHANGED} Make room, or correct its "
                "directory's permissions.",
                {"path": str(self._path)},
            ) from error
