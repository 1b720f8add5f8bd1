"""Writing a proxy down: its upstreams and its servers, every line with the parameter that it comes from."""

from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import msgspec

from scalarizr.environment.source import Role
from scalarizr.nginx import names
from scalarizr.nginx.document import Block, Origin, Origins, owner_comment
from scalarizr.nginx.parameters import NO_OPTIONS, Destination, Proxy, ServerOptions
from scalarizr.nginx.template import Template

# One line, or several of one origin; the parameter that it comes from (empty: none; with or without the proxy's place
# in the caller's list); and the line of a template.
Line = tuple[str, str, int]
INDENT = "    "
PLACEHOLDER = "server 127.0.0.1 down; # placeholder: no server yet"
CONNECTION = "$scalarizr_connection"
DEFAULT_HEADERS = (
    "proxy_http_version 1.1;",
    "proxy_set_header Host $host;",
    "proxy_set_header X-Real-IP $remote_addr;",
    "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
    "proxy_set_header X-Forwarded-Proto $scheme;",
    "proxy_set_header Upgrade $http_upgrade;",
    f"proxy_set_header Connection {CONNECTION};",
)
# "Modern enough for everybody" by today's advice: forward secrecy and AEAD only.
TLS_LINES = (
    "ssl_protocols TLSv1.2 TLSv1.3;",
    "ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305;",
    "ssl_prefer_server_ciphers off;",
    "ssl_session_timeout 1d;",
    "ssl_session_cache shared:scalarizr:10m;",
    "ssl_session_tickets off;",
)


class RoleServers(msgspec.Struct, frozen=True):
    """The servers that a destination's role has at the moment."""

    addresses: tuple[tuple[str, int | None], ...]


class Upstream(msgspec.Struct, frozen=True):
    """An upstream to be written: its name, and the location that it serves."""

    name: str
    location: str
    destinations: tuple[Destination, ...]


def upstreams_of(proxy: Proxy, base: str) -> list[Upstream]:
    """Group a proxy's destinations by location."""
    by_location: dict[str, list[Destination]] = {}
    for destination in proxy.destinations:
        by_location.setdefault(destination.location, []).append(destination)
    return [
        Upstream(
            names.upstream_name(base, where, list(dict.fromkeys(one.role for one in group if one.role))),
            where,
            tuple(group),
        )
        for where, group in by_location.items()
    ]


def render_upstream(proxy: Proxy, upstream: Upstream, roles: dict[str, Role], network: "Network") -> Block:
    """Write an upstream with its servers, or the placeholder where it has none."""
    lines: list[Line] = [(f"upstream {upstream.name} {{", "backends", 0)]
    if proxy.ip_hash:
        lines.append((f"{INDENT}ip_hash;", "backend_ip_hash", 0))
    if proxy.least_conn:
        lines.append((f"{INDENT}least_conn;", "backend_least_conn", 0))
    servers: dict[str, Line] = {}
    for destination in upstream.destinations:
        if destination.role is not None:
            lines.append((INDENT + role_comment(destination), destination.parameter, 0))
            for host, port in network.addresses(roles[destination.role], destination):
                options = (
                    destination.options if port is None else msgspec.structs.replace(destination.options, port=port)
                )
                line = server_line(host, options)
                servers.setdefault(line.split()[1].rstrip(";"), (INDENT + line, destination.parameter, 0))
        else:
            assert destination.host is not None
            line = server_line(destination.host, destination.options)
            servers.setdefault(line.split()[1].rstrip(";"), (INDENT + line, destination.parameter, 0))
    lines += servers.values() or [(INDENT + PLACEHOLDER, "backends", 0)]
    return _block(proxy, "upstream", upstream.name, [*lines, _END])


def server_line(host: str, options: ServerOptions) -> str:
    """Write a `server` directive of an upstream."""
    if options == NO_OPTIONS:
        return f"server {host};"
    words = [host if options.port is None or host.startswith("unix:") else f"{host}:{options.port}"]
    for name in ("weight", "max_fails"):
        if getattr(options, name) is not None:
            words.append(f"{name}={getattr(options, name)}")
    if options.fail_timeout is not None:
        words.append(f"fail_timeout={options.fail_timeout}s")
    words += [name for name in ("backup", "down") if getattr(options, name)]
    return f"server {' '.join(words)};"


def role_comment(destination: Destination) -> str:
    """Note which role servers come from, and with which options: for those that join it later."""
    said = msgspec.structs.asdict(destination.options) | {"network": destination.network}
    shown = " ".join(f"{name}={value}" for name, value in said.items() if value not in (None, False))
    return f"# role {destination.role} {shown}".rstrip()


class Network(msgspec.Struct, frozen=True):
    """How servers of a role are reached from here.

    :param cloud_location: of this server; None: unknown.
    """

    cloud_location: str | None

    def addresses(self, role: Role, destination: Destination) -> list[tuple[str, int | None]]:
        """Give the addresses of a role's servers: private in the same cloud location, else public."""
        found = []
        for server in role.servers:
            near = (
                self.cloud_location is None
                or server.cloud_location is None
                or server.cloud_location == self.cloud_location
            )
            private_first = near if destination.network is None else destination.network == "private"
            choice = (server.private or server.public) if private_first else (server.public or server.private)
            if destination.network is not None:
                choice = server.private if private_first else server.public
            if choice:
                found.append(
                    names.address(choice, f"{destination.parameter}: the address of a server of role {role.id}")
                )
        return found


def render_servers(
    proxy: Proxy, upstreams: Sequence[Upstream], certificate: tuple[Path, Path] | None, *, ipv6: bool
) -> list[Block]:
    """Write a proxy's servers: the one that hands on, and before it the one that redirects where http is off.

    :param certificate: paths of certificate and key; None without ssl.
    :param ipv6: whether this host has IPv6.
    """
    blocks = []
    if not proxy.http:
        blocks.append(_redirecting_server(proxy, ipv6=ipv6))
    lines: list[Line] = [_SERVER]
    if proxy.http:
        lines.append(_listening("port", proxy.port, "", ipv6=ipv6))
    if proxy.ssl:
        lines.append(_listening("ssl_port", proxy.ssl_port, " ssl", ipv6=ipv6))
    lines.append((f"{INDENT}server_name {proxy.hostname};", "hostname", 0))
    if certificate is not None:
        lines += (_inner(certificate_lines(certificate), "ssl_certificate_id"), _TLS_LINES)
    server_templates = [template for template in proxy.templates if template.location is None]
    if not server_templates:
        lines.append(_HEADER_LINES)
    for template in server_templates:
        lines += _template_lines(template, 1)
    lines += _location_lines(proxy, upstreams, frozenset().union(*(one.locations for one in server_templates)))
    blocks.append(_block(proxy, "server", "", [*lines, _END]))
    return blocks


def certificate_lines(certificate: tuple[Path, Path]) -> tuple[str, str]:
    """Write where the certificate is."""
    return f"ssl_certificate {certificate[0]};", f"ssl_certificate_key {certificate[1]};"


def listen_texts(port: int, rest: str, *, ipv6: bool) -> list[str]:
    """Write the directives `listen` for a port on every address."""
    return [f"listen {port}{rest};", *([f"listen [::]:{port}{rest};"] if ipv6 else [])]


def redirecting_lines(ssl_port: int) -> list[str]:
    """Write what sends a visitor to https."""
    port = "" if ssl_port == 443 else f":{ssl_port}"
    return [f"return 301 https://$host{port}$request_uri;"]


def _redirecting_server(proxy: Proxy, *, ipv6: bool) -> Block:
    lines: list[Line] = [_SERVER, _listening("port", proxy.port, "", ipv6=ipv6)]
    lines.append((f"{INDENT}server_name {proxy.hostname};", "hostname", 0))
    lines.append(_inner(redirecting_lines(proxy.ssl_port)))
    return _block(proxy, "server", "", [*lines, _END])


@lru_cache(256)
def _listening(parameter: str, port: int, rest: str, *, ipv6: bool) -> Line:
    return _inner(listen_texts(port, rest, ipv6=ipv6), parameter)


def _location_lines(proxy: Proxy, upstreams: Sequence[Upstream], own: frozenset[str]) -> list[Line]:
    by_location = {upstream.location: upstream for upstream in upstreams}
    templates: dict[str, list[Template]] = {}
    for template in proxy.templates:
        if template.location is not None:
            templates.setdefault(template.location, []).append(template)
    lines: list[Line] = []
    for where in dict.fromkeys((*by_location, *templates)):
        if where in own:
            continue  # the server's template says what becomes of it
        lines.append((f"{INDENT}location {where} {{", "backends", 0))
        merged = templates.get(where, [])
        for template in merged:
            lines += _template_lines(template, 2)
        if where in by_location and not any(template.hands_on for template in merged):
            lines.append((f"{INDENT}{INDENT}proxy_pass http://{by_location[where].name};", "backends", 0))
        lines.append(_END_OF_LOCATION)
    return lines


def _template_lines(template: Template, depth: int) -> list[Line]:
    # As the caller wrote them: a line may be in the middle of a quoted text.
    return [
        (INDENT * depth + line if number == template.lines[0][0] else line, template.parameter, number)
        for number, line in template.lines
    ]


def _inner(texts: Iterable[str], parameter: str = "") -> Line:
    return ("\n".join([INDENT + text for text in texts]), parameter, 0)


def _block(proxy: Proxy, kind: str, label: str, lines: list[Line]) -> Block:
    above = owner_comment(proxy.hostname)
    text = above + "\n".join([line[0] for line in lines]) + "\n"
    return Block(text, kind, label, proxy.hostname, partial(_origins, proxy, lines), len(above))


def _origins(proxy: Proxy, lines: list[Line]) -> Origins:
    """Give where the lines of a block come from, that of the comment above it first."""
    found: list[Origin | None] = [None]
    for text, parameter, number in lines:
        found += [_origin(proxy, parameter, number) if parameter else None] * (text.count("\n") + 1)
    return tuple(found)


def _origin(proxy: Proxy, parameter: str, number: int) -> Origin:
    whole = parameter if parameter.startswith(proxy.place) else proxy.parameter(parameter)
    return Origin(proxy.called, whole, number, proxy.hostname, proxy.index)


_SERVER: Line = ("server {", "", 0)
_END: Line = ("}", "", 0)
_END_OF_LOCATION: Line = (f"{INDENT}}}", "", 0)
_HEADER_LINES = _inner(DEFAULT_HEADERS)
_TLS_LINES = _inner(TLS_LINES)
