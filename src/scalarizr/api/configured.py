"""The services whose configuration this agent changes: built from its parts, by name where a change is taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalarizr.host.firewall import Firewall
from scalarizr.rpc.rights import present_rights

if TYPE_CHECKING:
    from scalarizr.apache.hosting import Hosting
    from scalarizr.api.parts import Parts
    from scalarizr.changes.transaction import ConfiguredService
    from scalarizr.nginx.proxying import Proxying


def proxying_of(parts: Parts) -> Proxying:
    """Build nginx's proxies; nginx itself is looked for when it is first needed."""
    from scalarizr.nginx.program import NginxProgram
    from scalarizr.nginx.proxying import Proxying

    settings = parts.settings
    return Proxying(
        NginxProgram(settings.nginx),
        parts.changes,
        parts.environment,
        Firewall(settings.paths.state / "firewall.json"),
        parts.etc / "private.d" / "keys",
        settings.paths.state / "nginx",
        settings.environment.cloud_location,
        parts.log,
    )


def hosting_of(parts: Parts) -> Hosting:
    """Build Apache's virtual hosts; Apache itself is looked for when it is first needed."""
    from scalarizr.apache.hosting import Hosting
    from scalarizr.apache.program import ApacheProgram

    settings = parts.settings
    return Hosting(
        ApacheProgram(settings.apache),
        parts.changes,
        parts.environment,
        Firewall(settings.paths.state / "firewall.json"),
        parts.etc / "private.d",
        settings.paths.state / "apache",
        parts.log,
    )


def settle_ports(parts: Parts) -> None:
    """Close the ports that a crash left open, and open again those that a reboot closed.

    :raises ScalarizrError: the firewall refused, or a service is being changed.
    """
    firewall = Firewall(parts.settings.paths.state / "firewall.json")
    for name in sorted(firewall.owners()):
        service = configured_service(parts, name)
        if service is not None:
            with parts.changes.transaction(name, "firewall"):
                # What waits for its confirmation may go back to the ports that it left.
                if not parts.changes.journal.waiting(name):
                    service.close_ports()
    firewall.reopen()


def configured_service(parts: Parts, name: str) -> ConfiguredService | None:
    """Give the program behind a service's name in the journal; None where none is."""
    if name == "nginx":
        return proxying_of(parts)
    return hosting_of(parts) if name == "apache" else None


def any_directive(setting: str) -> bool:
    """Tell whether the present call's templates may hold any directive: never those of a caller with limited rights.

    :param setting: `template_directives` of the service's section.
    """
    return setting == "any" and present_rights().unlimited
