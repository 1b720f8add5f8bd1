"""What making, growing and snapshotting volumes have alike: whose volumes, and a note of what undoes the work."""

from pathlib import Path
from typing import Any

from scalarizr.operations.progress import current
from scalarizr.storage.catalogue import Catalogue


class VolumeWork:
    """Work on the volumes of one server.

    :param etc: the agent's configuration directory, for whoever has to undo.
    :param catalogue: types and records.
    """

    def __init__(self, etc: Path, catalogue: Catalogue) -> None:
        self._etc = etc
        self._catalogue = catalogue
        self._records = catalogue.records
        self._host = catalogue.host

    def _note(self, undo: str, key: str, attempt: str, **further: Any) -> None:
        """Note, before it is begun, what undoes this call's work.

        :param undo: a function of `undoing`.
        :param key: the record of the volume or snapshot.
        :param attempt: the call, as the record has it.
        :param further: arguments of `undo`.
        """
        current().before(undo, etc=str(self._etc), key=key, attempt=attempt, **further)
