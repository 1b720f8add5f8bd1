"""What only a reload of Apache would show of TLS is found before anything changes; a real Apache goes on meanwhile."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from private_servers import PrivateApache, fetch, make_certificate
from running_agent import RunningAgent, free_port
from scalarizr.client import AgentError, Client

pytestmark = [pytest.mark.root, pytest.mark.apache2]


def make_rsa_certificate(directory: Path, identity: str, bits: int) -> None:
    files = ["-keyout", str(directory / f"{identity}.key"), "-out", str(directory / f"{identity}.crt")]
    command = ["openssl", "req", "-x509", "-newkey", f"rsa:{bits}", "-nodes", "-subj", "/CN=www.example.com", *files]
    subprocess.run(command, check=True, capture_output=True)


class Setup:
    """An agent with a running Apache of its own and certificates, `weak` with a key of 512 bits."""

    def __init__(self, directory: Path, listening: str = "", arguments: str = "") -> None:
        for parent in (directory, *directory.parents[:3]):
            if parent.stat().st_uid == 0:
                parent.chmod(parent.stat().st_mode | 0o011)
        self.directory = directory
        self.apache = PrivateApache(directory)
        with (self.apache.directory / "ports.conf").open("a") as file:
            file.write(listening)
        with (self.apache.directory / "envvars").open("a") as file:
            file.write(f"export APACHE_ARGUMENTS='{arguments}'\n")
        self.agent = RunningAgent(directory, self.apache.settings)
        certificates = self.agent.etc / "environment" / "certificates"
        make_certificate(certificates, "good", "www.example.com")
        make_rsa_certificate(certificates, "weak", 512)
        self.agent.start()
        self.api: Client = self.agent.client(timeout=60)
        self.api.apache.start_service()
        self.port = free_port()

    def host(self, directives: str = "", certificate: str = "good", port: int | None = None) -> dict[str, object]:
        template = (
            f"<VirtualHost *:1>\nServerName www.example.com\nDocumentRoot {self.directory}/site\n"
            f"SSLEngine on\n{directives}\n<Location />\nRequire all granted\n</Location>\n</VirtualHost>\n"
        )
        return {
            "hostname": "www.example.com",
            "port": port or self.port,
            "template": template,
            "ssl": True,
            "ssl_certificate_id": certificate,
        }

    def live(self) -> dict[str, bytes]:
        places = [self.apache.directory, self.agent.etc / "private.d"]
        files = [path for place in places for path in sorted(place.rglob("*")) if path.is_file()]
        return {str(path): path.read_bytes() for path in files}

    def close(self) -> None:
        self.api.close()
        self.apache.stop()
        self.agent.stop()


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    made = Setup(tmp_path)
    yield made
    made.close()


def test_what_the_tls_library_refuses_is_refused_before_apache_is_touched(setup: Setup) -> None:
    setup.api.apache.create_vhost(**setup.host())
    before, parent = setup.live(), setup.apache.parent()
    for directives, words in (
        ("SSLCipherSuite garbage", r"template, line 5: SSLCipherSuite garbage: .*: no cipher match"),
        ("SSLCipherSuite TLSv1.3 garbage", "template, line 5: .* no cipher match"),
        ("SSLOpenSSLConfCmd Curves nonsense", "template, line 5: SSLOpenSSLConfCmd Curves nonsense: "),
        ("SSLProxyEngine on\nSSLProxyCipherSuite garbage", "template, line 6: SSLProxyCipherSuite garbage: "),
    ):
        with pytest.raises(AgentError, match=rf"{words}.*Nothing was changed\.") as refused:
            setup.api.apache.create_vhost(**setup.host(directives))
        assert refused.value.code == -32014 and refused.value.data["parameter"] == "template"
    with pytest.raises(AgentError, match=r"ssl_certificate_id: SSLCertificateFile .* key too small") as refused:
        setup.api.apache.create_vhost(**setup.host(certificate="weak"))
    assert refused.value.data["parameter"] == "ssl_certificate_id"
    with pytest.raises(AgentError, match="no such certificate") as refused:
        setup.api.apache.create_vhost(**setup.host(certificate="missing"))
    assert refused.value.data["parameter"] == "ssl_certificate_id"
    with pytest.raises(AgentError, match=r"vhosts\[1\]\.ssl_certificate_id: .* key too small") as refused:
        hosts = [setup.host(), setup.host(certificate="weak", port=free_port())]
        setup.api.apache.reconfigure(vhosts=hosts, **{"async": False})
    assert refused.value.data["index"] == 1
    assert setup.live() == before and setup.apache.parent() == parent
    assert fetch(setup.port, "www.example.com", tls=True)[0] == 200


def test_who_lowers_the_security_level_may_have_a_small_key(setup: Setup) -> None:
    setup.api.apache.create_vhost(**setup.host("SSLCipherSuite DEFAULT@SECLEVEL=0", "weak"))
    # The level of everybody is inherited by a host that says nothing of its own.
    with setup.apache.main.open("a") as file:
        file.write("<IfModule ssl_module>\nSSLCipherSuite DEFAULT@SECLEVEL=0\n</IfModule>\n")
    setup.api.apache.create_vhost(**setup.host("", "weak"))
    assert setup.api.apache.get_service_status() == 0


def test_what_is_good_for_a_directory_alone_is_none_of_a_start_s_business(setup: Setup) -> None:
    text = f"<Directory {setup.directory}/site>\nSSLCipherSuite HIGH\nRequire all granted\n</Directory>"
    setup.api.apache.create_vhost(**setup.host(text))
    assert fetch(setup.port, "www.example.com", tls=True)[0] == 200


def test_a_port_that_a_define_of_the_service_opens_is_not_listened_on_twice(tmp_path: Path) -> None:
    extra, other = free_port(), free_port()
    listening = (
        f"<IfDefine EXTRA>\n<IfVersion >= 2.4>\nListen {extra}\n</IfVersion>\n</IfDefine>\n"
        f"<IfDefine !EXTRA>\nListen {other}\n</IfDefine>\n"
    )
    setup = Setup(tmp_path, listening, "-D EXTRA")
    try:
        for port in (extra, other):
            host = setup.host(port=port)
            host["template"] = f"<IfDefine NOBODY>\nListen {other}\n</IfDefine>\n{host['template']}"
            setup.api.apache.create_vhost(**host)
            assert fetch(port, "www.example.com", tls=True)[0] == 200
        ports = (setup.agent.etc / "private.d" / "vhosts" / "ports.conf").read_text()
        assert f"Listen {other}" in ports and f"Listen {extra}" not in ports
    finally:
        setup.close()
