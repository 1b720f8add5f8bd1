"""Parameters: what passes is what the method declares, what does not is told by name, and secrets are never told."""

import inspect
import types
import typing
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

from scalarizr.apache.parameters import read_host_parameters
from scalarizr.api.namespaces import NAMESPACES
from scalarizr.errors import InvalidParameter
from scalarizr.nginx.names import address, location, server_name
from scalarizr.nginx.parameters import read_proxies, read_server
from scalarizr.rpc.registry import Method, Registry
from scalarizr.rpc.types import checker
from scalarizr.secret import Secret
from scalarizr.system.script_parameters import read_scripts, read_variables

LONGEST = 1536
# Where the JSON begins that is changed as such.
JSON_FROM = 2


class Place(typing.TypedDict, total=False):
    """As the API's own structures are declared."""

    name: typing.Required[str]
    port: int
    private: bool
    value: Secret | str


_KINDS: list[Any] = [
    bool,
    int,
    float,
    str,
    int | str,
    int | float | None,
    str | list[str] | None,
    list[int],
    list[dict[str, bool]],
    dict[str, list[int | str]],
    tuple[str, int],
    list[tuple[str, bool]],
    Literal["a", "b", 3],
    dict[str, Literal["x"]] | bool,
    Place,
    list[Place],
    Secret,
    dict[str, Secret] | None,
    list[Secret | int],
]
# Each text in these may be a secret; in the others, what stands under `value`.
_ALL_SECRET: list[Any] = [Secret, dict[str, Secret] | None, list[Secret | int]]
_CHECKS = [checker(kind) for kind in _KINDS]


def _methods() -> list[Method]:
    registry = Registry(NAMESPACES, {}, object.__new__)
    return [method for name in NAMESPACES for method in registry.methods(name).values()]


_METHODS = _methods()
WORDS = (
    *dict.fromkeys(f'"{one.name}"'.encode() for method in _METHODS for one in method.parameters),
    *(
        b'"hostname"',
        b'"backends"',
        b'"host"',
        b'"farm_role_id"',
        b'"location"',
        b'"templates"',
        b'"content"',
        b'"fail_timeout"',
        b'"ssl_certificate_id"',
        b'"template"',
        b'"body"',
        b'"#!/bin/sh\\n"',
        b'"path"',
        b'"run_as"',
        b'"timeout"',
        b'"private"',
        b'"0"',
        b'"1"',
        b'"true"',
        b"null",
        b"true",
        b"1e308",
        b"-1",
        b"99999999999999999999",
        b'"\\u0000"',
        b'"xn--"',
        b'"[::1]:80"',
        b'"unix:/run/a"',
        b'"~ ^/a{2}"',
        b"[",
        b"{",
        b"]",
        b"}",
        b", ",
        b": ",
    ),
)


def check(data: bytes) -> None:
    """The first byte: what is checked; the second: which one of it; the rest is JSON."""
    if len(data) < 3:
        return
    try:
        value = msgspec.json.decode(data[2:])
    except (ValueError, RecursionError):
        return
    try:
        _ONES[data[0] % len(_ONES)](value, data[1])
    except InvalidParameter as error:
        told = str(error)
        # An error is for a person: it does not give back a whole message.
        assert len(told) < 4000, len(told)
        assert told.encode("utf-8") and isinstance(error.facts["parameter"], str), told


def _annotation(value: Any, which: int) -> None:
    kind, check_one = _KINDS[which % len(_KINDS)], _CHECKS[which % len(_KINDS)]
    try:
        checked = check_one(value, "p")
    except InvalidParameter as error:
        if _holds_secret(kind):
            # Where names hold the same text an error may show it for theirs: the path leads through them.
            names = _names(value)
            for text in _texts(value, only=None if kind in _ALL_SECRET else "value"):
                hidden = len(text) < 12 or any(text in name for name in names)
                assert hidden or text not in str(error), "an error shows what may be a secret"
        raise
    assert _is(kind, checked), (kind, checked)
    assert check_one(_plain(checked), "p") == checked, "what was checked once is something else the second time"


def _of_method(value: Any, which: int) -> None:
    method = _METHODS[which % len(_METHODS)]
    if not isinstance(value, dict | list):
        return
    arguments = method.arguments(value)
    for parameter in method.parameters:
        if parameter.keyword in arguments:
            assert _is(parameter.annotation, arguments[parameter.keyword]), parameter.name
        else:
            assert parameter.default is not inspect.Parameter.empty, parameter.name


def _proxies(value: Any, which: int) -> None:
    value = value if isinstance(value, list) else [value]
    if not all(isinstance(one, dict) for one in value):
        return
    for proxy in read_proxies(value, "proxy_list", any_directive=bool(which & 1)):
        assert 1 <= proxy.port <= 65535 and 1 <= proxy.ssl_port <= 65535
        assert _is_one_word(proxy.hostname) and (proxy.http or proxy.ssl)
        for one in proxy.destinations:
            assert one.host is None or _is_one_word(one.host)
            assert one.role is None or _is_one_word(one.role)


def _host(value: Any, which: int) -> None:
    if isinstance(value, dict):
        host = read_host_parameters(value, any_directive=bool(which & 1))
        assert 1 <= host.port <= 65535 and _is_one_word(host.hostname) and "/" not in host.hostname


def _name(value: Any, which: int) -> None:
    if isinstance(value, dict):
        read_server(value)
    if isinstance(value, str):
        if which % 4 == 0:
            host, port = address(value, "p")
            assert _is_one_word(host) and (port is None or 1 <= port <= 65535)
            assert address(host, "p")[0] == host
        elif which % 4 == 1:
            name = server_name(value, "p")
            assert _is_one_word(name) and name == name.lower() and server_name(name, "p") == name
        elif which % 4 == 2:
            where = location(value, "p")
            assert "\n" not in where and "\0" not in where
        else:
            read_server(value)


def _scripts(value: Any, _which: int) -> None:
    value = value if isinstance(value, list) else [value]
    if not all(isinstance(one, dict) for one in value):
        return
    for script in read_scripts(value, 60):
        assert (script.body is None) != (script.path is None) and 0 < script.timeout <= 30 * 86400
        assert script.path is None or (script.path.startswith("/") and "\0" not in script.path)
        assert "/" not in script.execution_id and "\n" not in script.name


def _variables(value: Any, _which: int) -> None:
    value = value if isinstance(value, list) else [value]
    if not all(isinstance(one, dict) for one in value):
        return
    made = read_variables(value)
    for name, text in made.values.items():
        assert name.isidentifier() and name.isascii() and "\0" not in text and text.encode() is not None
    assert set(made.private) <= set(made.values.values())


_ONES = (_annotation, _of_method, _proxies, _host, _name, _scripts, _variables)


def _is_one_word(text: str) -> bool:
    return bool(text) and not any(mark in " \t\r\n;{}\"'\\#$" or not mark.isascii() for mark in text)


def _texts(value: Any, only: str | None = None) -> list[str]:
    """Give all texts in a value; those below one name alone, where that is said."""
    if isinstance(value, str):
        return [value] if only is None else []
    if isinstance(value, dict):
        return [text for name, one in value.items() for text in _texts(one, None if name == only else only)]
    return [text for one in value for text in _texts(one, only)] if isinstance(value, list) else []


def _names(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(name for one in value.values() for name in _names(one))]
    return [name for one in value for name in _names(one)] if isinstance(value, list) else []


def _plain(value: Any) -> Any:
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _holds_secret(kind: Any) -> bool:
    inside = typing.get_type_hints(kind).values() if typing.is_typeddict(kind) else get_args(kind)
    return kind is Secret or any(map(_holds_secret, inside))


def _is(kind: Any, value: Any) -> bool:
    """Tell whether a value is of an annotation; worked out from the annotation alone."""
    if kind is Any:
        return True
    if kind is None or kind is type(None):
        return value is None
    if kind in (bool, int, float, str, Secret):
        return type(value) is kind
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_is(one, value) for one in inside)
    if origin is Literal:
        return value in inside
    if origin is list:
        return type(value) is list and all(_is(inside[0], one) for one in value)
    if origin is tuple:
        return type(value) is tuple and len(value) == len(inside) and all(map(_is, inside, value))
    if typing.is_typeddict(kind):
        hints = typing.get_type_hints(kind)
        plain = {name: str if hint is Secret else hint for name, hint in hints.items()}
        return (
            type(value) is dict
            and set(value) <= set(hints)
            and all(_is(hints[name], one) or _is(plain[name], one) for name, one in value.items())
        )
    return type(value) is dict and (not inside or all(_is(inside[1], one) for one in value.values()))


def seeds() -> dict[str, bytes]:
    """Make parameters as callers send them."""
    proxy = (
        b'{"hostname": "www.example.com", "backends": [{"host": "10.0.0.11:8001", "weight": "5", "location": "/api"}, '
        b'{"farm_role_id": 123, "network": "private", "backup": 1}], "ssl": true, "ssl_certificate_id": 7, '
        b'"backend_fail_timeout": "15s", "templates": [{"content": "gzip on;", "location": "~ \\\\.php$"}, '
        b'{"content": "add_header A b;", "server": true}]}'
    )
    host = (
        b'{"hostname": "a.example", "port": "80", "template": "<VirtualHost *:80>\\nServerName a\\n</VirtualHost>", '
        b'"ssl": false, "allow_port": 1}'
    )
    values = [b"1", b'"1"', b"[1, 2]", b'{"0": "a", "1": "b"}', b'{"name": "n", "port": 1, "value": "v"}', b'["a", 1]']
    made = {f"kind-{number}": bytes((0, number)) + values[number % 6] for number in range(len(_KINDS))}
    for number, method in enumerate(_METHODS):
        if number % 6 == 0 and method.parameters:
            body = {one.name: None for one in method.parameters}
            made[f"method-{method.name}"] = bytes((1, number)) + msgspec.json.encode(body)
    made |= {
        "proxy": b"\2\0" + proxy,
        "proxies": b"\2\1[" + proxy.replace(b"gzip on", b"include x") + b"]",
        "server-dict": b'\4\0{"host": "app.internal", "port": 80, "max_fails": 3, "fail_timeout": "10"}',
        "host": b"\3\0" + host,
        "address": b'\4\0"[2001:db8::1]:8080"',
        "address-old": b'\4\0"0x7f.1"',
        "name": '\4\1"пример.рф"'.encode(),
        "name-star": b'\4\1"*.example.com"',
        "location": b'\4\2"~* \\\\.(gif|jpe?g)$"',
        "location-repeated": b'\4\2"~ ^/(a|b){2,3}/[[:alpha:]]"',
        "server": b'\4\3"unix:/run/app.sock"',
        "script": b'\5\0{"name": "s", "body": "#!/bin/sh\\nid", "timeout": "1.5", "asynchronous": "1"}',
        "script-path": b'\5\0[{"path": "/opt/x", "run_as": "root", "execution_id": 12}, {"path": "/opt/y"}]',
        "variables": b'\6\0[{"name": "A", "value": "b", "private": 1}, {"name": "PATH", "value": "x"}]',
    }
    return made
