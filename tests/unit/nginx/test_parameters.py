"""A proxy as callers describe it."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalarizr.errors import InvalidParameter
from scalarizr.nginx.parameters import Proxy, ServerOptions, read_proxies, read_proxy, read_server

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def proxy(**more: Any) -> Proxy:
    return read_proxy({"hostname": "a.example.com", "backends": [{"host": "10.0.0.1"}], **more}, any_directive=False)


def test_defaults_are_those_of_the_manual() -> None:
    read = proxy()
    assert (read.port, read.http, read.ssl, read.ssl_port) == (80, True, False, 443)
    assert read.hash_backend_name and read.write_proxies and read.reload_service
    assert read.destinations[0].location == "/" and read.destinations[0].options == ServerOptions()


def test_what_the_field_s_clients_send_is_understood() -> None:
    read = proxy(port="8080", http="1", ssl=1, ssl_port="8443", ssl_certificate_id=410, backend_ip_hash="0", name=None)
    assert (read.port, read.http, read.ssl, read.ssl_port) == (8080, True, True, 8443)
    assert read.ssl_certificate_id == "410" and not read.ip_hash
    assert read_proxy({"name": "A.example.com", "backends": [{"host": "::1"}]}, any_directive=False).hostname == (
        "a.example.com"
    )


def test_defaults_for_destinations_hold_where_a_destination_says_nothing() -> None:
    read = proxy(
        backend_port=81,
        backend_max_fails="3",
        backend_fail_timeout="15s",
        backend_weight=5,
        backends=[
            {"host": "10.0.0.1"},
            {"host": "10.0.0.2:90", "max_fails": 0, "weight": 7},
            {"host": "unix:/run/a.sock"},
            {"farm_role_id": 12, "port": "82", "network": "public", "backup": 1, "location": "/x"},
        ],
    )
    first, second, socket, role = read.destinations
    assert first.options == ServerOptions(port=81, max_fails=3, fail_timeout=15, weight=5)
    assert second.options == ServerOptions(port=90, max_fails=0, fail_timeout=15, weight=7)
    assert socket.options.port is None and socket.options.weight == 5
    assert (role.role, role.network, role.location, role.options.port) == ("12", "public", "/x", 82)
    assert role.options.backup and not role.options.down


@pytest.mark.parametrize(
    ("more", "parameter"),
    [
        ({"hostname": None}, "hostname"),
        ({"ssl": True, "ssl_port": 80}, "ssl_port"),
        ({"http": False}, "http"),
        ({"backend_ip_hash": True, "backend_least_conn": True}, "backend_least_conn"),
        ({"backends": []}, "backends"),
        ({"backends": [{"host": "10.0.0.1", "farm_role_id": 1}]}, "backends[0]"),
        ({"backends": [{}]}, "backends[0]"),
        ({"backends": [{"host": "10.0.0.1"}, {"host": "10.0.0.1", "weight": 0}]}, "backends[1].weight"),
        ({"backends": [{"host": "10.0.0.1", "fail_timeout": "1d"}]}, "backends[0].fail_timeout"),
        ({"backends": [{"host": "10.0.0.1", "network": "both"}]}, "backends[0].network"),
        ({"backends": [{"farm_role_id": "a b"}]}, "backends[0].farm_role_id"),
        ({"templates": [{"location": "/"}]}, "templates[0].content"),
        ({"templates": [{"content": "a 1;", "location": "/", "server": True}]}, "templates[0]"),
        ({"backend_prot": 1}, "backend_prot"),
        ({"port": "80 "}, "port"),
        ({"port": True}, "port"),
    ],
)
def test_a_mistake_is_named(more: dict[str, Any], parameter: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        proxy(**more)
    assert caught.value.facts["parameter"] == parameter
    with pytest.raises(InvalidParameter) as caught:
        good = {"hostname": "b.example.com", "backends": [{"host": "10.0.0.1"}]}
        read_proxies([good, {**good, **more}], "proxies", any_directive=False)
    assert caught.value.facts["parameter"] == f"proxies[1].{parameter}" and caught.value.facts["index"] == 1


def test_a_misspelt_parameter_gets_a_hint() -> None:
    with pytest.raises(InvalidParameter, match="backend_port, perhaps"):
        proxy(backend_prot=1)


def test_templates_alone_make_a_proxy_where_they_answer() -> None:
    template = {"content": "return 204;", "location": "= /ping"}
    assert proxy(backends=[], templates=[template]).templates[0].answers
    with pytest.raises(InvalidParameter):
        proxy(backends=[], templates=[{"content": "expires 1d;", "location": "/"}])


@pytest.mark.parametrize(
    ("described", "address"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.1:81", "10.0.0.1:81"),
        ({"host": "10.0.0.1", "port": "81"}, "10.0.0.1:81"),
        ({"host": "10.0.0.1:82", "port": 81}, "10.0.0.1:82"),
        ({"host": "fd00::1", "port": 81, "down": "1"}, "[fd00::1]:81"),
        ("unix:/run/a.sock", "unix:/run/a.sock"),
    ],
)
def test_a_server_is_an_address_or_a_dict(described: Any, address: str) -> None:
    assert read_server(described).address == address


@unhurried
@given(
    st.dictionaries(
        st.sampled_from(["hostname", "backends", "port", "ssl", "templates", "http"]) | st.text(),
        st.none()
        | st.integers()
        | st.text()
        | st.lists(
            st.dictionaries(st.sampled_from(["host", "port", "content", "location"]), st.text() | st.integers())
        ),
    )
)
def test_whatever_comes_is_read_or_refused_by_name(described: dict[str, Any]) -> None:
    try:
        read = read_proxy(described, any_directive=False)
    except InvalidParameter as error:
        assert error.facts["parameter"] is not None
    else:
        assert read.destinations or read.templates
