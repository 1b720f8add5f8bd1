"""What is to be kept running, on disk: the agent, its next start and systemd's unit all go by it. No key is in it."""

from pathlib import Path

import msgspec

from scalarizr.errors import OutsideFailure
from scalarizr.host.files import make_private_directory, write_file


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The monitoring agent as it was enabled or disabled last.

    :param enabled: whether it is to run.
    :param command: its argument vector.
    :param directory: where its configuration is: its working directory.
    :param home: where it may write.
    :param output: the file that its output goes to.
    :param account: the account it runs as; empty: the agent's own.
    :param generation: a digest of this and of its configuration: what runs with another one is started anew.
    """

    enabled: bool = False
    command: list[str] = []
    directory: str = ""
    home: str = ""
    output: str = ""
    account: str = ""
    generation: str = ""


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The process that was started last.

    :param pid: its number.
    :param started_at: when, as /proc/PID/stat says it: a number that was given again has another.
    :param boot: the boot that it belongs to.
    :param generation: of what was wanted then.
    """

    pid: int
    started_at: str
    boot: str
    generation: str


class MonitoringRecord:
    """The two records below the agent's state directory.

    :param directory: of their own.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._wanted = directory / "monitoring.json"
        self._started = directory / "monitoring-process.json"

    def exists(self) -> bool:
        """Tell whether a monitoring agent was ever enabled."""
        return self._wanted.exists()

    def wanted(self) -> Wanted:
        """Give what is wanted; nothing where that is not known."""
        try:
            return msgspec.json.decode(self._wanted.read_bytes(), type=Wanted)
        except (OSError, msgspec.DecodeError):
            return Wanted()

    def want(self, wanted: Wanted) -> None:
        """Replace it.

        :raises OutsideFailure: it cannot be written; it is as it was.
        """
        self._write(self._wanted, wanted)

    def started(self) -> Started | None:
        """Give the process that was started last."""
        try:
            return msgspec.json.decode(self._started.read_bytes(), type=Started)
        except (OSError, msgspec.DecodeError):
            return None

    def note_started(self, started: Started) -> None:
        """Replace it.

        :raises OutsideFailure: it cannot be written.
        """
        self._write(self._started, started)

    def _write(self, path: Path, record: msgspec.Struct) -> None:
        try:
            make_private_directory(self._directory)
            write_file(path, msgspec.json.encode(record), mode=0o600)
        except OSError as error:
            raise OutsideFailure(
                f"{path} cannot be written: {error.strerror or error}. Make room, and call again.", {"path": str(path)}
            ) from error
