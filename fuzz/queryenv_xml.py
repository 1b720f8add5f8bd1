"""QueryEnv's answers: whatever the control plane sends, it is read or refused, and what is read is of its form."""

from pathlib import Path
from typing import Any

from scalarizr.environment.queryenv import QueryEnv
from scalarizr.errors import NotFound, OutsideFailure
from scalarizr.secret import Secret
from scalarizr.settings.model import Environment

LONGEST = 2048
WORDS = (
    b"<response>",
    b"</response>",
    b"<roles>",
    b'<role id="1" behaviour="app,www" name="a">',
    b"</role>",
    b'<hosts><host internal-ip="10.0.0.1" index="1" replication-master="1"/></hosts>',
    b"<virtualhost>",
    b"<cert>",
    b"<pkey>",
    b"<ca_cert>",
    b'<vhost hostname="a" https="1">',
    b"<raw><![CDATA[",
    b"]]></raw>",
    b"<item>",
    b"</item>",
    b"<metric>",
    b"<id>1</id>",
    b"<retrieve-method>read</retrieve-method>",
    b'<?xml version="1.0" encoding="',
    b'utf-16"?>',
    b"<!DOCTYPE a [<!ENTITY b 'c'>]>",
    b"&lt;",
    b"&#x41;",
    b"&#0;",
    b"xmlns:a='b'",
    b"<!--",
    b"-->",
    b"\xd9\xa3",
)
_SETTINGS = Environment(source="queryenv", url="https://control.invalid/query", server_id="s")


class _Answered(QueryEnv):
    """A control plane that answers what the fuzzer says."""

    def __init__(self) -> None:
        super().__init__(_SETTINGS, Path("/nonexistent"))
        self.content = b""

    def _signature(self, fields: dict[str, str], date: str) -> str:
        return ""

    def _exchange(self, command: str, path: str, body: str, headers: dict[str, str]) -> bytes:
        return self.content


_SOURCE = _Answered()


def check(data: bytes) -> None:
    """The first byte: what is asked. What follows is the answer."""
    _SOURCE.content = data[1:]
    try:
        _QUESTIONS[(data[0] if data else 0) % len(_QUESTIONS)]()
    except (OutsideFailure, NotFound) as error:
        assert len(str(error)) < 500 and "\n" not in str(error)


def _roles() -> None:
    seen = set()
    for role in _SOURCE.roles():
        assert role.id not in seen and all(word == word.strip() and word for word in role.behaviours)
        seen.add(role.id)
        for server in role.servers:
            assert server.index is None or (type(server.index) is int and server.index >= 0)
            assert server.private != "" and server.public != "" and type(server.replication_master) is bool


def _role() -> None:
    assert _SOURCE.role("1").id == "1"


def _certificate() -> None:
    found = _SOURCE.certificate(None)
    assert found.certificate == found.certificate.strip() and found.certificate and found.chain != ""
    assert (isinstance(found.key, Secret) and found.key.reveal() not in repr(found)) or len(found.key.reveal()) < 12


def _hosts() -> None:
    for host in _SOURCE.virtual_hosts():
        assert type(host.port) is int and 0 <= host.port <= 99999 and type(host.ssl) is bool


def _metrics() -> None:
    for metric in _SOURCE.metrics():
        assert type(metric.id) is int and metric.id >= 0 and metric.retrieve_method in ("execute", "read")


def _parameters() -> None:
    _check_tree(_SOURCE.farm_role_params("1"))


def _check_tree(tree: Any) -> None:
    todo = [tree]
    while todo:
        one = todo.pop()
        assert type(one) in (dict, list, str), type(one)
        if isinstance(one, dict):
            assert all(type(name) is str for name in one)
            todo += one.values()
        elif isinstance(one, list):
            todo += one


_QUESTIONS = (_roles, _certificate, _hosts, _metrics, _parameters, _role)


def seeds() -> dict[str, bytes]:
    """Make answers as the control plane gives them."""
    roles = (
        b'<?xml version="1.0" encoding="UTF-8"?>\n<response><roles><role id="1" behaviour="app, www" name="web"><hosts>'
        b'<host internal-ip="10.0.0.11" external-ip="192.0.2.1" index="1" status="Running" cloud-location="r"/>'
        b'<host internal-ip="" index="x" replication-master="1"/></hosts></role><role id="2"/></roles></response>'
    )
    certificate = (
        b"<response><virtualhost><cert>-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----</cert>"
        b"<pkey> KEY-OF-THE-SERVER </pkey><ca_cert/></virtualhost></response>"
    )
    hosts = (
        b'<response><vhosts><vhost hostname="a.example" https="1" type="apache" ssl-certificate-id="3"><raw><![CDATA[\n'
        b"<VirtualHost *:443>\nServerName a.example\n</VirtualHost>]]></raw></vhost></vhosts></response>"
    )
    metrics = (
        b"<response><metrics><metric><id>7</id><name>load</name><path>/usr/bin/m</path>"
        b'<retrieve-method>execute</retrieve-method></metric><metric id="8"><retrieve-method>read</retrieve-method>'
        b"</metric></metrics></response>"
    )
    tree = b"<response><a>1</a><b><item>x</item><item><c>y</c></item></b><d/><d>2</d>tail</response>"
    return {
        "roles": b"\0" + roles,
        "role": b"\5" + roles,
        "roles-latin": b"\0" + roles.replace(b"UTF-8", b"ISO-8859-1").replace(b"web", b"w\xe9b"),
        "roles-utf-16": b"\0" + roles.decode().replace("UTF-8", "UTF-16").encode("utf-16"),
        "certificate": b"\1" + certificate,
        "hosts": b"\2" + hosts,
        "metrics": b"\3" + metrics,
        "parameters": b"\4" + tree,
        "entity": b"\4<!DOCTYPE a [<!ENTITY b 'cccc'>]><a>&b;</a>",
        "external": b"\4<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>",
        "empty": b"\4",
        "page": b"\4<html><body>502 Bad Gateway<br></body></html>",
        "namespace": b"\4<a xmlns='urn:x'><b/></a>",
        "deep": b"\4" + b"<a>" * 120 + b"</a>" * 120,
    }
