"""A proxy as callers describe it: every parameter checked, each mistake named with the proxy that it is in."""

from typing import Any, Literal

import msgspec

from scalarizr.errors import InvalidParameter
from scalarizr.nginx import names
from scalarizr.nginx.template import Template, check_template
from scalarizr.rpc.types import checker, shown

_MOST_FAILS = 10_000
_LONGEST_TIMEOUT = 86_400


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How nginx treats one server of an upstream; None leaves it to nginx."""

    port: int | None = None
    backup: bool = False
    down: bool = False
    weight: int | None = None
    max_fails: int | None = None
    fail_timeout: int | None = None


NO_OPTIONS = ServerOptions()
_OPTION_NAMES = {
    prefix: frozenset(f"{prefix}{name}" for name in ServerOptions.__struct_fields__) for prefix in ("", "backend_")
}


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests for a location go: one host, or the servers of a role.

    :param parameter: where the caller said so.
    """

    host: str | None = None
    role: str | None = None
    location: str = "/"
    network: Literal["private", "public"] | None = None
    options: ServerOptions = NO_OPTIONS
    parameter: str = ""


class Proxy(msgspec.Struct, frozen=True, kw_only=True):
    """One proxy, checked.

    :param place: where it stands in what the caller sent, such as `proxy_list[3]`; empty for a method's own parameters.
    :param index: in the caller's list; None: it is the only one.
    """

    hostname: str
    destinations: tuple[Destination, ...] = ()
    port: int = 80
    http: bool = True
    ssl: bool = False
    ssl_port: int = 443
    ssl_certificate_id: str | None = None
    ip_hash: bool = False
    least_conn: bool = False
    templates: tuple[Template, ...] = ()
    hash_backend_name: bool = True
    write_proxies: bool = True
    reload_service: bool = True
    place: str = ""
    index: int | None = None

    def parameter(self, name: str) -> str:
        """Give the full name of one of its parameters."""
        return f"{self.place}.{name}" if self.place else name

    @property
    def called(self) -> str:
        """Name it for a message."""
        return f"{self.place} ({self.hostname})" if self.place else f"the proxy {self.hostname}"


_Number = int | None
_PROXY: dict[str, Any] = {
    "hostname": str | None,
    "name": str | None,
    "backends": list[dict[str, Any]] | None,
    "port": int | None,
    "http": bool | None,
    "ssl": bool | None,
    "ssl_port": int | None,
    "ssl_certificate_id": int | str | None,
    "backend_port": int | None,
    "backend_ip_hash": bool | None,
    "backend_least_conn": bool | None,
    "backend_max_fails": int | None,
    "backend_fail_timeout": int | str | None,
    "backend_weight": int | None,
    "templates": list[dict[str, Any]] | None,
    "hash_backend_name": bool | None,
    "write_proxies": bool | None,
    "reload_service": bool | None,
}
_DESTINATION: dict[str, Any] = {
    "host": str | None,
    "farm_role_id": int | str | None,
    "port": int | None,
    "location": str | None,
    "backup": bool | None,
    "down": bool | None,
    "weight": int | None,
    "max_fails": int | None,
    "fail_timeout": int | str | None,
    "network": Literal["private", "public"] | None,
}
_SERVER: dict[str, Any] = {
    name: kind
    for name, kind in _DESTINATION.items()
    if name in ("host", "port", "backup", "down", "weight", "max_fails", "fail_timeout")
}
_TEMPLATE: dict[str, Any] = {"content": str, "location": str | None, "server": bool | None}
_CHECKS = {
    id(table): {name: checker(kind) for name, kind in table.items()}
    for table in (_PROXY, _DESTINATION, _SERVER, _TEMPLATE)
}
# Of what comes as it should nothing is left to check.
_PLAIN: dict[Any, type] = {
    str: str,
    str | None: str,
    int | None: int,
    bool | None: bool,
    list[dict[str, Any]] | None: list,
}
_EXACT = {
    id(table): {name: _PLAIN[kind] for name, kind in table.items() if kind in _PLAIN}
    for table in (_PROXY, _DESTINATION, _SERVER, _TEMPLATE)
}


def read_proxies(described: list[dict[str, Any]], parameter: str, *, any_directive: bool) -> list[Proxy]:
    """Check a whole list of proxies.

    :param described: as the caller sent them.
    :param parameter: the list's name.
    :raises InvalidParameter: names the first mistake, and the proxy by its index and hostname.
    """
    proxies = []
    for index, one in enumerate(described):
        place = f"{parameter}[{index}]"
        try:
            proxies.append(read_proxy(one, place=place, index=index, any_directive=any_directive))
        except InvalidParameter as error:
            name = one.get("hostname") or one.get("name")
            error.facts |= {"index": index, "hostname": name if isinstance(name, str) else None}
            raise
    return proxies


def read_proxy(described: dict[str, Any], *, place: str = "", index: int | None = None, any_directive: bool) -> Proxy:
    """Check one proxy.

    :param described: its parameters by name.
    :param place: prefix of their names in errors.
    :param index: in the caller's list.
    :param any_directive: templates may hold any directive.
    :raises InvalidParameter: names the parameter.
    """
    at = f"{place}." if place else ""
    given = _checked(_PROXY, described, at)
    hostname = given.get("hostname", given.get("name"))
    if hostname is None:
        raise InvalidParameter(f"{at}hostname", "nothing", "a host name")
    if given.get("name", hostname) != hostname:
        raise InvalidParameter(
            f"{at}name", shown(given["name"]), f"nothing beside hostname, which is {shown(hostname)}"
        )
    key = "hostname" if "hostname" in given else "name"
    hostname = names.server_name(hostname, f"{at}{key}")
    http, ssl = given.get("http", True), given.get("ssl", False)
    port = names.port(given.get("port", 80), f"{at}port")
    ssl_port = names.port(given.get("ssl_port", 443), f"{at}ssl_port")
    if not http and not ssl:
        raise InvalidParameter(
            f"{at}http", "false, with ssl false", "http, ssl or both: the proxy would listen nowhere"
        )
    if ssl and port == ssl_port:
        raise InvalidParameter(f"{at}ssl_port", str(ssl_port), "another port than the one for http")
    if given.get("backend_ip_hash") and given.get("backend_least_conn"):
        raise InvalidParameter(f"{at}backend_least_conn", "true, with backend_ip_hash", "one of the two")
    defaults = _options(given, at, "backend_")
    destinations = tuple(
        _destination(one, f"{at}backends[{index}]", defaults) for index, one in enumerate(given.get("backends", []))
    )
    templates = tuple(
        _template(one, f"{at}templates[{index}]", any_directive) for index, one in enumerate(given.get("templates", []))
    )
    if not destinations and not any(template.answers for template in templates):
        raise InvalidParameter(f"{at}backends", "none", 'at least one destination: {"host": …} or {"farm_role_id": …}')
    identity = given.get("ssl_certificate_id")
    return Proxy(
        hostname=hostname,
        destinations=destinations,
        port=port,
        http=http,
        ssl=ssl,
        ssl_port=ssl_port,
        ssl_certificate_id=None if identity is None else str(identity),
        ip_hash=given.get("backend_ip_hash", False),
        least_conn=given.get("backend_least_conn", False),
        templates=templates,
        hash_backend_name=given.get("hash_backend_name", True),
        write_proxies=given.get("write_proxies", True),
        reload_service=given.get("reload_service", True),
        place=place,
        index=index,
    )


class Server(msgspec.Struct, frozen=True):
    """One server as `add_server` and its kin name it.

    :param host: as it stands in the configuration.
    :param options: what the caller said of it.
    """

    host: str
    options: ServerOptions

    @property
    def address(self) -> str:
        return self.host if self.options.port is None else f"{self.host}:{self.options.port}"


def read_server(described: str | dict[str, Any], parameter: str = "server") -> Server:
    """Check a server given as an address or as a dict."""
    if isinstance(described, str):
        host, own = names.address(described, parameter)
        return Server(host, ServerOptions(port=own))
    given = _checked(_SERVER, described, f"{parameter}.")
    if "host" not in given:
        raise InvalidParameter(f"{parameter}.host", "nothing", "an address")
    host, own = names.address(given["host"], f"{parameter}.host")
    options = _options(given, f"{parameter}.", "")
    return Server(host, msgspec.structs.replace(options, port=own or options.port))


def _destination(described: dict[str, Any], place: str, defaults: ServerOptions) -> Destination:
    given = _checked(_DESTINATION, described, f"{place}.")
    if ("host" in given) == ("farm_role_id" in given):
        raise InvalidParameter(place, shown(described), "either host or farm_role_id")
    own = _options(given, f"{place}.", "")
    options = own
    if defaults != NO_OPTIONS:
        options = msgspec.structs.replace(
            own, **{name: value for name, value in msgspec.structs.asdict(defaults).items() if name not in given}
        )
    where = names.location(given.get("location", "/") or "/", f"{place}.location")
    if "farm_role_id" in given:
        role = str(given["farm_role_id"])
        if not names.UPSTREAM.fullmatch(role) or len(role) > 64:
            raise InvalidParameter(f"{place}.farm_role_id", shown(role), "a role's id")
        return Destination(
            role=role, location=where, network=given.get("network"), options=options, parameter=f"{place}.farm_role_id"
        )
    host, port = names.address(given["host"], f"{place}.host")
    if host.startswith("unix:"):
        options = msgspec.structs.replace(options, port=None)
    elif port is not None:
        options = msgspec.structs.replace(options, port=port)
    return Destination(host=host, location=where, options=options, parameter=f"{place}.host")


def _template(described: dict[str, Any], place: str, any_directive: bool) -> Template:
    given = _checked(_TEMPLATE, described, f"{place}.")
    if "content" not in given:
        raise InvalidParameter(f"{place}.content", "nothing", "nginx directives")
    where = given.get("location")
    if given.get("server"):
        if where is not None:
            raise InvalidParameter(place, "server and location", "one of the two")
    else:
        where = names.location(where or "/", f"{place}.location")
    return check_template(given["content"], where, f"{place}.content", any_directive=any_directive)


def _options(given: dict[str, Any], at: str, prefix: str) -> ServerOptions:
    if not given.keys() & _OPTION_NAMES[prefix]:
        return NO_OPTIONS
    port = given.get(f"{prefix}port")
    return ServerOptions(
        port=None if port is None else names.port(port, f"{at}{prefix}port"),
        backup=given.get("backup", False) if not prefix else False,
        down=given.get("down", False) if not prefix else False,
        weight=_within(given, at, f"{prefix}weight", 1, 65_535),
        max_fails=_within(given, at, f"{prefix}max_fails", 0, _MOST_FAILS),
        fail_timeout=_within(given, at, f"{prefix}fail_timeout", 0, _LONGEST_TIMEOUT),
    )


def _within(given: dict[str, Any], at: str, name: str, least: int, most: int) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, str):
        number = value.removesuffix("s")
        if not number.isascii() or not number.isdigit() or len(number) > 9:
            raise InvalidParameter(f"{at}{name}", shown(value), "seconds")
        value = int(number)
    if not least <= value <= most:
        raise InvalidParameter(f"{at}{name}", str(value), f"{least} to {most}")
    return int(value)


def _checked(table: dict[str, Any], described: dict[str, Any], at: str) -> dict[str, Any]:
    """Check types by a table; what is null counts as not given."""
    checks, exact = _CHECKS[id(table)], _EXACT[id(table)]
    given = {}
    for name, value in described.items():
        kind = exact.get(name)
        if kind is type(value) and (not isinstance(value, list) or all(type(one) is dict for one in value)):
            given[name] = value
            continue
        check = checks.get(name)
        if check is None:
            import difflib

            near = difflib.get_close_matches(str(name)[:100], checks, 1)
            expected = f"{near[0]}, perhaps" if near else "one of " + ", ".join(checks)
            raise InvalidParameter(f"{at}{str(name)[:60]}", "a parameter that there is not", expected)
        checked = check(value, f"{at}{name}")
        if checked is not None:
            given[name] = checked
    return given
