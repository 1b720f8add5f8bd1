"""Choosing the environment's source by the settings."""

from scalarizr.environment.source import EnvironmentSource
from scalarizr.errors import NotConfigured
from scalarizr.settings.model import Settings


def open_environment(settings: Settings) -> EnvironmentSource:
    """Open the source that `[environment] source` names.

    :raises NotConfigured: a setting that it needs is missing; the message names it.
    """
    if settings.environment.source == "queryenv":
        from scalarizr.environment.queryenv import QueryEnv

        return QueryEnv(settings.environment, settings.paths.key)
    from scalarizr.environment.local import LocalFiles

    if settings.environment.directory is None:
        raise NotConfigured("The setting [environment] directory is missing.", {"setting": "environment.directory"})
    return LocalFiles(settings.environment.directory)
