"""Building the storage of one agent from its settings: for the API, and for whoever has to undo."""

import logging
from pathlib import Path

from scalarizr.changes.changes import Changes
from scalarizr.host.paths import HostPaths
from scalarizr.logs import open_log
from scalarizr.settings.load import load_settings
from scalarizr.settings.model import Settings
from scalarizr.storage.storage import Storage


def storage_of(etc: Path, settings: Settings, host: HostPaths, changes: Changes, log: logging.Logger) -> Storage:
    """Build the storage of an agent that is built.

    :param etc: its configuration directory.
    :param changes: its transactions, for fstab.
    """
    return Storage(etc, settings, host, changes, log)


def open_storage(etc: Path) -> Storage:
    """Build the storage of an agent from its configuration directory alone."""
    settings = load_settings(etc)
    log = open_log(settings, rotates=False)
    return Storage(etc, settings, HostPaths(settings.paths.root), Changes(settings.paths.state / "changes", log), log)
