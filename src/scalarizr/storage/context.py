"""What a volume type is given to work with."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from scalarizr.host.paths import HostPaths
    from scalarizr.settings.model import Settings
    from scalarizr.storage.records import Records

Still = Callable[[], contextlib.AbstractContextManager[None]]
"""Gives the block in which a volume's file system is frozen (or at least synced): the instant of a snapshot."""


class Nested(Protocol):
    """The volumes that a volume is made of: those of RAID and LVM. Each dict is one of the API, of any type."""

    def make(self, volume: dict[str, Any], key: str) -> dict[str, Any]:
        """Make sure that a volume is there, attached, and empty where it is new.

        :param volume: its dict; with an `id`, or a `device` of type `base`, it is there already.
        :param key: names it where it is to be made, so that a repetition finds it.
        :return: its dict, with `device`.
        """

    def attach(self, volume: dict[str, Any]) -> dict[str, Any]:
        """Make sure that a volume that exists is attached."""

    def detach(self, volume: dict[str, Any], force: bool) -> dict[str, Any]:
        """Detach a volume; what was detached already stays so."""

    def destroy(self, volume: dict[str, Any], force: bool) -> None:
        """Delete a volume; what is not ours is let go."""

    def snapshot(self, volume: dict[str, Any], description: str, tags: dict[str, str]) -> dict[str, Any]:
        """Take a snapshot of a volume that the caller keeps still."""

    def destroy_snapshot(self, snapshot: dict[str, Any]) -> None:
        """Delete a snapshot."""

    def grow(self, volume: dict[str, Any], growth: dict[str, Any]) -> dict[str, Any]:
        """Grow a volume, without looking at what is on it."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a volume type is given.

    :ivar settings: the agent's.
    :ivar host: where the host's trees are.
    :ivar log: the agent's log.
    :ivar records: what this agent made.
    :ivar nested: the volumes that a volume is made of.
    """

    settings: Settings
    host: HostPaths
    log: logging.Logger
    records: Records
    nested: Nested

    @property
    def state(self) -> Path:
        """The directory of what must survive a restart."""
        return self.settings.paths.state
