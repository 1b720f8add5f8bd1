"""The environment from a control plane: a QueryEnv server that verifies every signature, and several hostile ones."""

import base64
import hashlib
import hmac
import http.server
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from running_agent import RunningAgent
from scalarizr.environment.queryenv import QueryEnv
from scalarizr.environment.source import Server
from scalarizr.errors import NotConfigured, NotFound, OutsideFailure, PermissionRefused, ScalarizrError, TimedOut
from scalarizr.settings.model import Environment

RAW = bytes(range(40))
ANSWERS = {
    "list-roles": """<response><roles>
        <role behaviour="app,www" name="front" id="12"><hosts>
            <host index="1" internal-ip="10.0.0.1" external-ip="203.0.113.1" status="Running" cloud-location="eu"/>
            <host index="2" internal-ip="10.0.0.2" external-ip="" replication-master="1"/></hosts></role>
        <role behaviour="db" name="data" id="13"><hosts/></role></roles></response>""",
    "get-https-certificate": """<response><virtualhost>
        <cert>CERT</cert><pkey>KEY</pkey><ca_cert/></virtualhost></response>""",
    "list-virtualhosts": """<response><vhosts>
        <vhost hostname="a.example" type="apache" https="0">
        <raw><![CDATA[<VirtualHost *:8080>x</VirtualHost>]]></raw></vhost>
        <vhost hostname="b.example" type="apache" https="1"><raw>y</raw></vhost></vhosts></response>""",
    "list-farm-role-params": """<response><postgresql>
        <volume><size>5</size></volume><hosts><item>a</item><item>b</item></hosts>
        <tag>x</tag><tag>y</tag></postgresql></response>""",
    "get-scaling-metrics": """<response><metrics><metric><id>7</id><name>q</name><path>/bin/q</path>
        <retrieve-method>execute</retrieve-method></metric></metrics></response>""",
}


class Plane:
    """A control plane that knows one server, and answers only what that server signed."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.asked: list[dict[str, str]] = []
        self.answer: Callable[[Any, str], None] = self.answer_well
        plane = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                fields = dict(parse_qsl(body, keep_blank_values=True))
                plane.asked.append(fields)
                text = "".join(name + fields[name] for name in sorted(fields)) + self.headers["Date"]
                mac = base64.b64encode(hmac.new(RAW, text.encode(), hashlib.sha1).digest()).decode()
                known = self.headers["X-Server-Id"] == "server-1" and self.headers["X-Signature"] == mac
                version, command = self.path.strip("/").split("/")[-2:]
                if not known or version != fields["version"] or command != fields["operation"]:
                    self.reply(403, "<error>Signature mismatch</error>")
                    return
                plane.answer(self, command)

            def reply(self, status: int, text: str | bytes) -> None:
                data = text.encode() if isinstance(text, str) else text
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: object) -> None:
                return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if context:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, args=[0.05])
        self.thread.start()
        self.port = self.server.server_port

    def answer_well(self, handler: Any, command: str) -> None:
        handler.reply(200, ANSWERS[command])

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def plane() -> Iterator[Plane]:
    made = Plane()
    yield made
    made.close()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(base64.encodebytes(RAW))
    return path


@pytest.fixture
def environment(plane: Plane, key_file: Path) -> QueryEnv:
    return opened(f"http://127.0.0.1:{plane.port}/queryenv/", key_file)


def opened(url: str, key_file: Path, **more: Any) -> QueryEnv:
    return QueryEnv(Environment(source="queryenv", url=url, insecure=True, server_id="server-1", **more), key_file)


def test_every_command_is_signed_and_its_answer_read(environment: QueryEnv, plane: Plane) -> None:
    front, data = environment.roles()
    assert (front.id, front.name, front.behaviours) == ("12", "front", ("app", "www"))
    assert front.servers[0] == Server(
        private="10.0.0.1", public="203.0.113.1", cloud_location="eu", index=1, status="Running"
    )
    assert front.servers[1].replication_master and front.servers[1].public is None and data.servers == ()
    assert environment.role("12").name == "front" and plane.asked[-1]["farm-role-id"] == "12"
    with pytest.raises(NotFound):
        environment.role("99")
    certificate = environment.certificate("410")
    assert (certificate.certificate, certificate.key.reveal(), certificate.chain) == ("CERT", "KEY", None)
    assert plane.asked[-1] == {"operation": "get-https-certificate", "version": "2012-04-17", "id": "410"}
    first, second = environment.virtual_hosts()
    assert (first.hostname, first.port, first.ssl) == ("a.example", 8080, False) and "<VirtualHost" in first.template
    assert (second.port, second.ssl) == (443, True)
    assert environment.farm_role_params("12") == {
        "postgresql": {"volume": {"size": "5"}, "hosts": ["a", "b"], "tag": ["x", "y"]}
    }
    (metric,) = environment.metrics()
    assert (metric.id, metric.retrieve_method) == (7, "execute")


def test_an_agent_reads_its_metrics_from_the_control_plane(
    plane: Plane, make_trial_agent: Callable[[str], RunningAgent]
) -> None:
    url = f"http://127.0.0.1:{plane.port}"
    agent = make_trial_agent(
        f'[environment]\nsource = "queryenv"\nurl = "{url}"\ninsecure = true\nserver_id = "server-1"'
    )
    agent.key_file.write_bytes(base64.b64encode(RAW))
    with agent.start().client() as client:
        (metric,) = client.system.scaling_metrics()
        assert metric["name"] == "q" and metric["value"] is None and "/bin/q" in metric["error"]


def bombs() -> dict[str, Callable[[Any, str], None]]:
    entities = "".join(f'<!ENTITY a{n} "&a{n - 1};&a{n - 1};">' for n in range(1, 30))

    def drip(handler: Any, _command: str) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        for _ in range(400):
            handler.wfile.write(b"<")
            time.sleep(0.05)

    def cut(handler: Any, _command: str) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"<response/>")
        handler.close_connection = True

    def redirect(handler: Any, _command: str) -> None:
        handler.send_response(302)
        handler.send_header("Location", "http://127.0.0.1:1/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return {
        "no XML": lambda handler, _: handler.reply(200, "<response>"),
        "entities": lambda h, _: h.reply(200, f'<!DOCTYPE r [<!ENTITY a0 "x">{entities}]><r>&a29;</r>'),
        "a file": lambda h, _: h.reply(200, '<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]><r>&a;</r>'),
        "100 MB": lambda h, _: h.reply(200, b"<r>" + b"x" * (100 << 20) + b"</r>"),
        "an error": lambda h, _: h.reply(500, "<error>database is down</error>"),
        "cut off": cut,
        "a redirect": redirect,
        "a drip": drip,
    }


@pytest.mark.parametrize("name", bombs())
def test_a_hostile_answer_is_one_clear_error(plane: Plane, key_file: Path, name: str) -> None:
    settings = Environment(source="queryenv", url=f"http://127.0.0.1:{plane.port}", insecure=True, server_id="server-1")
    environment = QueryEnv(settings, key_file, patience=1.0 if name == "a drip" else 60.0)
    plane.answer = bombs()[name]
    with pytest.raises(ScalarizrError) as caught:
        environment.roles()
    assert isinstance(caught.value, TimedOut if name == "a drip" else OutsideFailure)
    words = caught.value.message
    assert "127.0.0.1" in words or "control plane" in words
    assert "passwd" not in words and "root:" not in words and len(words) < 400


def test_a_refusal_says_so_without_the_signature(plane: Plane, key_file: Path) -> None:
    key_file.write_bytes(base64.b64encode(bytes(range(1, 41))))
    with pytest.raises(PermissionRefused, match="Signature mismatch") as caught:
        opened(f"http://127.0.0.1:{plane.port}", key_file).roles()
    assert "=" not in caught.value.message


def test_nobody_there_is_one_clear_error(key_file: Path) -> None:
    with pytest.raises(OutsideFailure, match="cannot be asked"):
        opened("http://127.0.0.1:1", key_file).roles()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": None, "server_id": "s"}, "url is missing"),
        ({"url": "https://x", "server_id": None}, "server_id is missing"),
        ({"url": "http://x", "server_id": "s"}, "insecure = true"),
        ({"url": "ftp://x", "server_id": "s"}, "no http or https"),
    ],
)
def test_what_is_not_configured_is_named(settings: dict[str, Any], words: str, key_file: Path) -> None:
    with pytest.raises(NotConfigured, match=words):
        QueryEnv(Environment(source="queryenv", **settings), key_file)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    secret = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(
        built.public_bytes(serialization.Encoding.PEM) + key.private_bytes(serialization.Encoding.PEM, *secret)
    )
    return path


def test_https_is_verified(certificate: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    plane = Plane(context)
    settings = Environment(source="queryenv", url=f"https://localhost:{plane.port}", server_id="server-1")
    try:
        with pytest.raises(OutsideFailure, match="is not trusted"):
            QueryEnv(settings, key_file).roles()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert len(QueryEnv(settings, key_file).roles()) == 2
    finally:
        plane.close()
