"""What may stand in nginx's configuration under the caller's name: hostnames, locations, addresses, upstreams' names.

All by allow-list: what passes here cannot end the place that it is put in.
"""

import functools
import hashlib
import ipaddress
import re

from scalarizr.errors import InvalidParameter
from scalarizr.host.site_names import in_punycode, is_site_name
from scalarizr.nginx.syntax import quoted

_PREFIX = re.compile(r"/[A-Za-z0-9._~!$&()*+,=:@%/-]*", re.ASCII)
_MODIFIERS = ("=", "^~", "~*", "~")
_SOCKET = re.compile(r"unix:/[A-Za-z0-9._/@+-]{1,100}", re.ASCII)
_HOST_PORT = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
# Such as 10.1 and 0x7f.1 (inet_aton(3)).
_NUMBERS = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]*)(?:\.(?:0[xX][0-9a-fA-F]*|[0-9]*))*", re.ASCII)
UPSTREAM = re.compile(r"[A-Za-z0-9_.-]{1,255}", re.ASCII)
_LONGEST = 253


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:79] + "…")


def server_name(name: str, parameter: str) -> str:
    """Check a proxy's hostname.

    :return: it in lower case, an internationalised one as punycode.
    :raises InvalidParameter: it is none that a proxy can have.
    """
    if name.startswith("~"):
        raise InvalidParameter(parameter, _shown(name), "a name, no regular expression: give each name a proxy")
    punycode = in_punycode(name)
    if punycode is None:
        raise InvalidParameter(parameter, _shown(name), "a name that has a form in punycode (xn--…)")
    name = punycode
    if is_site_name(name):
        return name
    inner = name
    if inner.startswith("*."):
        inner = inner[2:]
    elif inner.startswith("."):
        inner = inner[1:]
    elif inner.endswith(".*"):
        inner = inner[:-2]
    if not is_site_name(inner) or len(name) > _LONGEST:
        raise InvalidParameter(
            parameter,
            _shown(name),
            "a host name such as www.example.com, *.example.com or .example.com: labels of at most 63 letters, digits, "
            "- and _, 253 characters in all",
        )
    return name


def location(text: str, parameter: str) -> str:
    """Check a location: `/path`, or a modifier (`=`, `^~`, `~`, `~*`), a space, and a path or regular expression.

    :return: it as it stands in the configuration.
    """
    if text == "/":
        return text
    text = text.strip()
    modifier, _, rest = text.partition(" ")
    if modifier in _MODIFIERS and rest:
        rest = rest.strip()
        if modifier.startswith("~"):
            if not rest.isprintable() or len(rest) > 500:
                raise InvalidParameter(parameter, _shown(text), "a regular expression in one printable line")
            try:
                re.compile(rest)
            except (re.error, OverflowError, RecursionError) as error:
                raise InvalidParameter(parameter, _shown(text), f"a regular expression: {error}") from None
            return f"{modifier} {quoted(rest)}"
        if _PREFIX.fullmatch(rest) and len(rest) <= 500:
            return f"{modifier} {rest}"
    elif _PREFIX.fullmatch(text) and len(text) <= 500:
        return text
    raise InvalidParameter(
        parameter,
        _shown(text),
        "a path such as /images, or = ^~ ~ ~* before one: no spaces, quotes, braces or semicolons",
    )


def address(text: str, parameter: str) -> tuple[str, int | None]:
    """Check a backend's address.

    :param text: a name, an IPv4 or IPv6 address, `[v6]:port`, `host:port`, or `unix:/path`.
    :return: the host as it stands in the configuration (IPv6 in brackets), and its own port.
    """
    if _SOCKET.fullmatch(text) and "/../" not in f"{text}/":
        return text, None
    known = _network_address(text)
    if known is not None:
        return known
    raise InvalidParameter(
        parameter,
        _shown(text),
        "an address such as 10.0.0.11, 10.0.0.11:8080, [fd00::1]:80, app.internal or unix:/run/app.sock",
    )


# The same few thousand servers stand behind many proxies.
@functools.lru_cache(4096)
def _network_address(text: str) -> tuple[str, int | None] | None:
    match = _HOST_PORT.fullmatch(text)
    if match:
        host, own = match["host"], match["port"]
        name = _ipv6(host[1:-1]) if host.startswith("[") else _host(host)
        if name and (own is None or 1 <= int(own) <= 65535):
            return name, int(own) if own else None
    bare = _ipv6(text)
    return (bare, None) if bare else None


def port(number: int, parameter: str) -> int:
    """Check a TCP port."""
    if not 1 <= number <= 65535:
        raise InvalidParameter(parameter, str(number), "a port, 1 to 65535")
    return number


def upstream_base(hostname: str, *, hashed: bool) -> str:
    """Give the beginning of the names of a proxy's upstreams."""
    if not hashed and UPSTREAM.fullmatch(hostname):
        return hostname
    return hashlib.sha1(hostname.encode(), usedforsecurity=False).hexdigest()


def upstream_name(base: str, where: str, roles: list[str]) -> str:
    """Give the name of an upstream: the base, the location, and the roles that its servers come from."""
    path = where.replace("/", "_").rstrip("_")
    if path and not UPSTREAM.fullmatch(path):
        # Two regular expressions must not come to one name.
        digest = hashlib.sha1(path.encode(), usedforsecurity=False).hexdigest()[:8]
        path = re.sub(r"[^A-Za-z0-9_.-]+", "-", path).strip("-_")[:60] + f"-{digest}"
    if path and not path.startswith("_"):
        path = f"_{path}"
    return base + path + (f"__{'_'.join(roles)}" if roles else "")


def _ipv6(text: str) -> str:
    try:
        return f"[{ipaddress.IPv6Address(text)}]" if "%" not in text else ""
    except ValueError:
        return ""


def _host(text: str) -> str:
    if _NUMBERS.fullmatch(text):  # what resolvers see an address in is one in full, or nothing
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            return ""
    return text.lower() if is_site_name(text) else ""
