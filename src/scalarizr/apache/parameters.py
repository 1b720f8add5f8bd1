"""A virtual host as callers describe it, checked."""

from typing import Any

import msgspec

from scalarizr.apache.template import HostText, check_template
from scalarizr.errors import InvalidParameter
from scalarizr.host.site_names import in_punycode, is_site_name
from scalarizr.rpc.types import checker

_KINDS: dict[str, Any] = {
    "hostname": str,
    "port": int,
    "template": str,
    "ssl": bool | None,
    "ssl_certificate_id": int | str | None,
    "allow_port": bool | None,
    "reload": bool | None,
}
_CHECKS = {name: checker(kind) for name, kind in _KINDS.items()}


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """One virtual host.

    :param place: where it stands in what the caller sent, such as `vhosts[3]`; empty for a method's own parameters.
    """

    hostname: str
    port: int
    text: HostText
    ssl: bool = False
    ssl_certificate_id: str | None = None
    allow_port: bool = False
    place: str = ""
    index: int | None = None

    def parameter(self, name: str) -> str:
        """Give the full name of one of its parameters."""
        return f"{self.place}.{name}" if self.place else name

    @property
    def called(self) -> str:
        """Name it for a message."""
        name = f"{self.hostname}:{self.port}"
        return f"{self.place} ({name})" if self.place else f"the virtual host {name}"


def read_host_parameters(
    described: dict[str, Any], *, place: str = "", index: int | None = None, any_directive: bool
) -> Host:
    """Check one virtual host.

    :raises InvalidParameter: names the parameter.
    """
    import difflib

    at = f"{place}." if place else ""
    given = {}
    for name, value in described.items():
        if name not in _CHECKS:
            near = difflib.get_close_matches(str(name)[:100], _CHECKS, 1)
            expected = f"{near[0]}, perhaps" if near else "one of " + ", ".join(_CHECKS)
            raise InvalidParameter(f"{at}{str(name)[:60]}", "a parameter that there is not", expected)
        given[name] = _CHECKS[name](value, f"{at}{name}")
    for name in ("hostname", "port", "template"):
        if name not in given:
            raise InvalidParameter(f"{at}{name}", "nothing", "a value: it must be given")
    identity = given.get("ssl_certificate_id")
    return Host(
        hostname=site_name(given["hostname"], f"{at}hostname"),
        port=tcp_port(given["port"], f"{at}port"),
        text=check_template(given["template"], f"{at}template", any_directive=any_directive),
        ssl=bool(given.get("ssl")),
        ssl_certificate_id=None if identity is None else str(identity),
        allow_port=bool(given.get("allow_port")),
        place=place,
        index=index,
    )


def site_name(name: str, parameter: str) -> str:
    """Check a virtual host's name, which becomes a file's.

    :return: it in lower case, an internationalised one as punycode.
    """
    checked = in_punycode(name)
    if checked is None or not is_site_name(checked):
        shown = repr(name if len(name) <= 80 else name[:79] + "…")
        expected = "a host name such as www.example.com: labels of at most 63 letters, digits, - and _, 253 in all"
        raise InvalidParameter(parameter, shown, expected)
    return checked


def tcp_port(number: int, parameter: str) -> int:
    """Check a TCP port."""
    if not 1 <= number <= 65535:
        raise InvalidParameter(parameter, str(number), "a port, 1 to 65535")
    return number
