"""Building the parts that namespaces are made of: the same in the agent and in its workers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from scalarizr.api.parts import Parts
from scalarizr.changes.changes import Changes
from scalarizr.changes.guarding import start_guard
from scalarizr.environment.opening import open_environment
from scalarizr.host.paths import HostPaths

if TYPE_CHECKING:
    from scalarizr.changes.transaction import ConfiguredService
    from scalarizr.operations.runner import Operations
    from scalarizr.settings.model import Settings


def build_parts(etc: Path, settings: Settings, log: logging.Logger, operations: Operations | None) -> Parts:
    """Build what namespaces are built from: in the agent and in its workers alike."""
    parts = Parts(
        etc=etc,
        settings=settings,
        host=HostPaths(settings.paths.root),
        log=log,
        environment=open_environment(settings),
        changes=Changes(
            settings.paths.state / "changes",
            log,
            services=lambda name: _service(parts, name),
            start_guard=lambda record, seconds: start_guard(etc, record, seconds),
            keep=settings.changes.keep,
        ),
        operations=operations,
    )
    return parts


def _service(parts: Parts, name: str) -> ConfiguredService | None:
    from scalarizr.api.configured import configured_service

    return configured_service(parts, name)
