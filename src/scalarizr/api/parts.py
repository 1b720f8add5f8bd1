"""What the agent hands to each namespace when it builds it: every shared mechanism, and nothing global."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from scalarizr.changes.changes import Changes
    from scalarizr.environment.source import EnvironmentSource
    from scalarizr.host.paths import HostPaths
    from scalarizr.operations.runner import Operations
    from scalarizr.settings.model import Settings


@dataclass(frozen=True, slots=True)
class Parts:
    """The shared mechanisms.

    :ivar etc: the agent's configuration directory.
    :ivar settings: the settings in force.
    :ivar host: where the host's trees are.
    :ivar log: the agent's log.
    :ivar environment: roles, certificates, virtual hosts, metrics.
    :ivar changes: transactions on configuration files.
    :ivar operations: long work; None inside a worker, which is one itself.
    """

    etc: Path
    settings: Settings
    host: HostPaths
    log: logging.Logger
    environment: EnvironmentSource
    changes: Changes
    operations: Operations | None
