"""Building the parts that namespaces are made of: the same in the agent and in its workers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from scalarizr.api.parts import Parts
from scalarizr.changes.transaction import Changes
from scalarizr.environment.opening import open_environment
from scalarizr.host.paths import HostPaths

if TYPE_CHECKING:
    from scalarizr.operations.runner import Operations
    from scalarizr.settings.model import Settings


def build_parts(settings: Settings, log: logging.Logger, operations: Operations | None) -> Parts:
    """Build what namespaces are built from: in the agent and in its workers alike."""
    return Parts(
        settings=settings,
        host=HostPaths(settings.paths.root),
        log=log,
        environment=open_environment(settings),
        changes=Changes(settings.paths.state / "changes", log),
        operations=operations,
    )
