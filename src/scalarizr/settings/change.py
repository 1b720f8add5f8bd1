"""What a new reading of the settings changes, and which of that can change while the agent runs."""

import msgspec

from scalarizr.settings.model import Settings

LIVE = frozenset(
    {
        "api.max_body",
        "api.clock_skew",
        "api.replay_entries",
        "api.connections",
        "api.bodies_in_memory",
        "api.head_timeout",
        "api.body_timeout",
        "api.idle_timeout",
        "api.idle_exit",
        "api.queue",
        "tls.certificate",
        "tls.key",
        "tls.client_ca",
        "operations.keep",
        "operations.parallel",
        "operations.cancel_timeout",
    }
)


def changed_settings(old: Settings, new: Settings) -> list[str]:
    """Name the settings that differ, as `section.key`."""
    return [
        f"{section.name}.{key.name}"
        for section in msgspec.structs.fields(Settings)
        for key in msgspec.structs.fields(section.type)
        if getattr(getattr(old, section.name), key.name) != getattr(getattr(new, section.name), key.name)
    ]
