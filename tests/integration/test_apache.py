"""Virtual hosts of a real Apache, through a real agent."""

import http.client
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from private_servers import PrivateApache, backend, fetch, make_certificate
from running_agent import RunningAgent, free_port
from scalarizr.client import AgentError, Client

pytestmark = [pytest.mark.root, pytest.mark.apache2]

TEMPLATE = """\
# 100 % of $this is a comment: <VirtualHost *:1>
#   SSLCertificateFile /not/mine
<VirtualHost *:80>
    ServerName www.example.com
    ServerAdmin ünï@example.com
    DocumentRoot ROOT
    CustomLog ${APACHE_LOG_DIR}/access.log "%h %l %u \\
        %t"
    <Directory ROOT>
        Require all granted
    </Directory>
</VirtualHost>
"""


class Setup:
    """An agent with an Apache of its own, running."""

    def __init__(self, directory: Path, settings: str = "") -> None:
        # The server's user must be able to reach the sites.
        for parent in (directory, *directory.parents[:3]):
            if parent.stat().st_uid == os.geteuid():
                parent.chmod(parent.stat().st_mode | 0o011)
        self.directory = directory
        self.apache = PrivateApache(directory)
        self.agent = RunningAgent(directory, self.apache.settings + settings)
        self.certificates = self.agent.etc / "environment" / "certificates"
        self.certificates.mkdir(parents=True)
        self.hosts = self.agent.etc / "private.d" / "vhosts"
        self.agent.start()
        self.api: Client = self.agent.client(timeout=60)
        self.api.apache.start_service()
        self.port = free_port()

    def close(self) -> None:
        self.api.close()
        self.apache.stop()
        self.agent.stop()

    def template(self, name: str = "www.example.com", root: str = "site") -> str:
        text = TEMPLATE.replace("www.example.com", name)
        return text.replace("ROOT", str(self.directory / "sites" / root))

    def host(self, name: str = "www.example.com", **more: object) -> dict[str, object]:
        return {"hostname": name, "port": self.port, "template": self.template(name), "ssl": False, **more}

    def live(self) -> dict[str, str]:
        places = [self.apache.directory, self.agent.etc / "private.d"]
        files = [path for place in places for path in sorted(place.rglob("*")) if path.is_file()]
        return {str(path): path.read_text(errors="replace") for path in files}


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    made = Setup(tmp_path)
    yield made
    made.close()


def refusal(call: object, **arguments: object) -> str:
    with pytest.raises(AgentError) as caught:
        call(**arguments)  # type: ignore[operator]
    return f"{caught.value} {caught.value.data}"


def test_a_virtual_host_serves_at_once_from_a_new_document_root(setup: Setup) -> None:
    path = setup.api.apache.create_vhost(**setup.host())
    assert path == str(setup.hosts / f"www.example.com-{setup.port}.vhost.conf")
    status, text = fetch(setup.port, "www.example.com")
    assert status == 200 and "It works" in text
    root = setup.directory / "sites" / "site"
    assert root.owner() == "www-data" and (root / "index.html").owner() == "www-data"
    assert setup.api.apache.list_served_virtual_hosts() == [path]
    written = Path(path).read_text()
    assert written == setup.template().replace("*:80>", f"*:{setup.port}>")
    assert setup.apache.main.read_text().count("IncludeOptional") == 5


def test_the_same_call_again_changes_nothing(setup: Setup) -> None:
    setup.api.apache.create_vhost(**setup.host())
    live = setup.live()
    setup.api.apache.create_vhost(**setup.host())
    assert setup.live() == live and len(setup.api.change.list()) == 1


def test_tls_enables_the_module_and_points_the_template_at_the_certificate(setup: Setup) -> None:
    make_certificate(setup.certificates, "410", "s.example.com")
    template = setup.template("s.example.com").replace(
        "    DocumentRoot",
        "    SSLEngine on\n    SSLCertificateFile /etc/aws/keys/https.crt\n"
        "    SSLCertificateKeyFile /etc/aws/keys/https.key\n    SSLCertificateChainFile \\\n  /etc/aws/keys/ca.crt\n"
        "    DocumentRoot",
    )
    path = setup.api.apache.create_vhost(
        **{**setup.host("s.example.com"), "template": template, "ssl": 1, "ssl_certificate_id": "410"}
    )
    assert fetch(setup.port, "s.example.com", tls=True)[0] == 200
    keys = setup.agent.etc / "private.d" / "keys"
    text = Path(path).read_text()
    assert f"SSLCertificateFile {keys}/https_410.crt" in text and f"SSLCertificateKeyFile {keys}/https_410.key" in text
    assert "#SSLCertificateChainFile" in text and "#/etc/aws/keys/ca.crt" in text and "/etc/aws/keys/https" not in text
    assert "#   SSLCertificateFile /not/mine" in text
    assert (keys / "https_410.key").stat().st_mode & 0o777 == 0o600
    assert (setup.apache.directory / "mods-enabled" / "ssl.load").readlink() == Path("../mods-available/ssl.load")
    assert "mod_ssl is needed by" in refusal(setup.api.apache.disable_mod_ssl)
    setup.api.apache.update_vhost(signature=["s.example.com", setup.port], ssl=False)
    assert fetch(setup.port, "s.example.com")[0] == 200
    setup.api.apache.disable_mod_ssl()
    assert not (setup.apache.directory / "mods-enabled" / "ssl.load").is_symlink()
    setup.api.apache.enable_mod_ssl()
    assert "ssl_module" in setup.apache.control("-M").stdout


def test_a_template_without_tls_directives_gets_them(setup: Setup) -> None:
    make_certificate(setup.certificates, "default", "s.example.com")
    setup.api.apache.create_vhost(**setup.host("s.example.com", ssl=True))
    assert fetch(setup.port, "s.example.com", tls=True)[0] == 200


def test_several_hosts_in_one_template_stay_as_they_are_but_for_the_certificate(setup: Setup) -> None:
    make_certificate(setup.certificates, "1", "s.example.com")
    plain = free_port()
    template = (
        f"<VirtualHost *:{plain}>\n  ServerName s.example.com\n  Redirect / https://s.example.com/\n</VirtualHost>\n"
        f"Listen {plain}\n<IfModule mod_ssl.c>\n"
        + setup.template("s.example.com").replace("*:80>", f"*:{setup.port}>")
        + "</IfModule>\n"
    )
    setup.api.apache.create_vhost(
        hostname="s.example.com", port=setup.port, template=template, ssl=True, ssl_certificate_id=1
    )
    assert fetch(setup.port, "s.example.com", tls=True)[0] == 200
    assert fetch(plain, "s.example.com")[0] == 302


def test_a_host_gets_another_name_port_and_text(setup: Setup) -> None:
    setup.api.apache.create_vhost(**setup.host())
    other = free_port()
    old = ["www.example.com", str(setup.port)]
    path = setup.api.apache.update_vhost(signature=old, hostname="new.example.com", port=other)
    assert path.endswith(f"new.example.com-{other}.vhost.conf")
    text = Path(path).read_text()
    assert "ServerName new.example.com" in text and f"<VirtualHost *:{other}>" in text
    assert not (setup.hosts / f"www.example.com-{setup.port}.vhost.conf").exists()
    assert fetch(other, "new.example.com")[0] == 200
    with pytest.raises(OSError):
        fetch(setup.port, "new.example.com")
    assert "There is no virtual host" in refusal(setup.api.apache.update_vhost, signature=old, port=81)
    setup.api.apache.create_vhost(**setup.host())
    assert "already" in refusal(setup.api.apache.update_vhost, signature=old, hostname="new.example.com", port=other)


def test_deleting_hosts_reports_unknown_ones_and_keeps_content(setup: Setup) -> None:
    path = setup.api.apache.create_vhost(**setup.host())
    gone = setup.api.apache.delete_vhosts(vhosts=[["www.example.com", setup.port], ["no.example.com", 80]])
    assert gone == {"deleted": [path], "unknown": [["no.example.com", 80]]}
    assert not Path(path).exists() and (setup.directory / "sites" / "site" / "index.html").exists()
    assert setup.api.apache.list_served_virtual_hosts() == []
    assert "Listen" not in (setup.hosts / "ports.conf").read_text()


def test_reconfigure_makes_the_set_exactly_this_or_nothing(setup: Setup) -> None:
    first = setup.api.apache.reconfigure(vhosts=[setup.host("a.example.com")], async_=False)
    live = setup.live()
    bad = {**setup.host("c.example.com"), "template": setup.template("c.example.com") + "\nNonsense on\n"}
    said = refusal(setup.api.apache.reconfigure, vhosts=[setup.host("b.example.com"), bad], async_=False)
    assert "vhosts[1] (c.example.com" in said and "line 14" in said and "Nothing was changed" in said
    assert setup.live() == live
    worse = {**setup.host("d.example.com"), "port": 0}
    said = refusal(
        setup.api.apache.reconfigure,
        vhosts=[setup.host("b.example.com"), bad, worse],
        rollback_on_error=False,
        async_=False,
    )
    words = said.partition(" {")[0]
    assert "c.example.com" in words and "d.example.com" in words and "b.example.com" not in words
    assert words.startswith("2 of the virtual hosts are bad") and "The other one was applied." in words
    assert "Nothing was changed" not in said
    served = setup.api.apache.list_served_virtual_hosts()
    assert len(served) == 1 and "b.example.com" in served[0] and first != served


def test_reconfigure_takes_the_environment_s_hosts(setup: Setup) -> None:
    (setup.certificates.parent / "www.conf").write_text(setup.template("env.example.com"))
    (setup.certificates.parent / "virtual_hosts.toml").write_text(
        f'[[virtual_hosts]]\nhostname = "env.example.com"\nport = {setup.port}\ntemplate_file = "www.conf"\n'
    )
    operation = setup.api.apache.reconfigure(async_=True)
    assert operation.wait() == [str(setup.hosts / f"env.example.com-{setup.port}.vhost.conf")]
    assert fetch(setup.port, "env.example.com")[0] == 200


@pytest.mark.parametrize(
    ("parameter", "changed", "words"),
    [
        ("hostname", {"hostname": "../../etc/cron.d/x"}, "host name"),
        ("hostname", {"hostname": "a b"}, "host name"),
        ("port", {"port": 0}, "1 to 65535"),
        ("template", {"template": "ServerName x\n"}, "VirtualHost"),
        ("template", {"template": "<VirtualHost *:80>\nServerName x\n"}, "line 1: <VirtualHost> is not closed"),
        ("template", {"template": "<VirtualHost *:80>\n</Directory>\n"}, "line 2"),
        ("template", {"template": "<VirtualHost *:80>\nIncl\\\nude /etc/shadow\n</VirtualHost>"}, "line 2"),
        ("template", {"template": '<VirtualHost *:80>\nCustomLog "|/bin/sh" x\n</VirtualHost>'}, "line 2"),
        ("template", {"template": "LoadModule x y\n<VirtualHost *:80>\n</VirtualHost>"}, "line 1"),
        ("template", {"template": "<Perl>\n</Perl>\n<VirtualHost *:80>\n</VirtualHost>"}, "line 1"),
    ],
)
def test_bad_input_is_refused_by_name(setup: Setup, parameter: str, changed: dict[str, object], words: str) -> None:
    live = setup.live()
    said = refusal(setup.api.apache.create_vhost, **{**setup.host(), **changed})
    assert repr(parameter) in said and words in said and setup.live() == live


def test_apache_s_own_words_are_mapped_to_the_template_s_line(setup: Setup) -> None:
    make_certificate(setup.certificates, "1", "s.example.com")
    template = setup.template().replace("    CustomLog", "    Nonsense on\n    CustomLog")
    host = {**setup.host(ssl=True, ssl_certificate_id=1), "template": template}
    live = setup.live()
    said = refusal(setup.api.apache.create_vhost, **host)
    assert "template, line 7" in said and "Invalid command 'Nonsense'" in said and "Nothing was changed" in said
    assert setup.live() == live and setup.api.apache.get_service_status() == 0


def test_a_missing_log_directory_is_made_and_a_taken_port_refused(setup: Setup) -> None:
    logs = setup.directory / "logs-of" / "site"
    template = setup.template().replace("    CustomLog", f"    ErrorLog {logs}/error.log\n    CustomLog")
    shown = setup.api.apache.create_vhost(**{**setup.host(), "template": template}, _dry_run=True)
    assert shown["valid"] and not logs.exists() and not setup.hosts.exists()
    setup.api.apache.create_vhost(**{**setup.host(), "template": template})
    assert (logs / "error.log").exists() and fetch(setup.port, "www.example.com")[0] == 200
    with backend("other") as taken:
        said = refusal(setup.api.apache.create_vhost, **{**setup.host("x.example.com"), "port": taken})
        assert "held by another program" in said
    assert setup.api.apache.get_service_status() == 0


def test_the_default_host_for_tls_gets_a_certificate_or_the_system_s_own(setup: Setup) -> None:
    make_certificate(setup.certificates, "7", "s.example.com")
    site = setup.apache.directory / "sites-available" / "default-ssl.conf"
    before = site.read_text()
    setup.api.apache.set_default_ssl_certificate(id=7)
    assert "private.d/keys/https_7.crt" in site.read_text()
    setup.api.apache.set_default_ssl_certificate(id=8)
    text = site.read_text()
    assert "ssl-cert-snakeoil.pem" in text and text.split() == before.split()


def test_a_chain_in_the_wrong_order_is_put_right(setup: Setup) -> None:
    make_chain(setup.certificates, "5")
    setup.api.apache.create_vhost(**setup.host("s.example.com", ssl=True, ssl_certificate_id=5))
    keys = setup.agent.etc / "private.d" / "keys"
    assert (keys / "https_5-ca.crt").read_text().count("BEGIN CERTIFICATE") == 2
    assert "SSLCertificateChainFile" in (setup.hosts / f"s.example.com-{setup.port}.vhost.conf").read_text()
    stranger = setup.certificates / "stranger.crt"
    make_certificate(setup.certificates, "stranger", "stranger.example")
    chain = setup.certificates / "5.ca"
    chain.write_text(chain.read_text() + stranger.read_text())
    said = refusal(setup.api.apache.create_vhost, **setup.host("t.example.com", ssl=True, ssl_certificate_id=5))
    assert "does not hold together" in said and "stranger.example" in said


def make_chain(directory: Path, identity: str) -> None:
    """Make root → intermediate → leaf, with the chain's file in the wrong order."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = datetime.datetime.now(datetime.UTC)
    made = []
    issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None = None
    for name in ("root", "intermediate", "s.example.com"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer[0] if issuer else subject)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=9))
        builder = builder.add_extension(x509.BasicConstraints(name != "s.example.com", None), critical=True)
        made.append(builder.sign(issuer[1] if issuer else key, hashes.SHA256()))
        issuer = (subject, key)
    assert issuer is not None
    root, middle, leaf = (one.public_bytes(serialization.Encoding.PEM).decode() for one in made)
    (directory / f"{identity}.crt").write_text(leaf)
    (directory / f"{identity}.ca").write_text(root + middle)
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / f"{identity}.key").write_bytes(issuer[1].private_bytes(serialization.Encoding.PEM, *plain))


def test_statistics_come_from_mod_status_and_say_why_not(setup: Setup) -> None:
    figures = setup.api.apache.get_webserver_statistics()
    assert "Total Accesses" in figures and all(isinstance(value, str) for value in figures.values())
    for name in ("status.load", "status.conf"):
        (setup.apache.directory / "mods-enabled" / name).unlink()
    setup.api.apache.reload_service()
    assert setup.api.apache.get_webserver_statistics() == {"errmsg": "mod_status is not enabled"}
    setup.api.apache.stop_service(reason="a test")
    assert "errmsg" in setup.api.apache.get_webserver_statistics()


def test_start_stop_restart_reload_return_when_it_is_so(setup: Setup) -> None:
    api = setup.api.apache
    parent = setup.apache.parent()
    assert api.get_service_status() == 0 and api.configtest() is None
    api.reload_service()
    assert setup.apache.parent() == parent and fetch(setup.apache.port, "x")[0] in (200, 403, 404)
    api.restart_service(reason="a test")
    assert setup.apache.parent() != parent and fetch(setup.apache.port, "x")[0] in (200, 403, 404)
    api.stop_service()
    assert api.get_service_status() == 3
    api.reload_service()
    assert api.get_service_status() == 0
    setup.apache.main.write_text(setup.apache.main.read_text() + "Nonsense on\n")
    for method in (api.configtest, api.reload_service, api.restart_service):
        assert "Invalid command 'Nonsense'" in refusal(method)
    assert fetch(setup.apache.port, "x")[0] in (200, 403, 404)
    assert api.get_service_status() == 0, "it runs, whatever its files say by now"
    setup.agent.kill()
    setup.agent.start()
    with setup.agent.client() as client:
        assert client.apache.get_service_status() == 0


def test_a_reload_that_kills_apache_puts_the_old_files_and_a_running_service_back(setup: Setup) -> None:
    setup.api.apache.create_vhost(**setup.host())
    make_certificate(setup.directory, "own", "x.example.com")
    # Apache's test does not mind that there is no cache for stapling; loading it ends the server.
    template = with_own_certificate(setup, "own.crt", "own.key").replace(
        "SSLEngine on", "SSLEngine on\nSSLUseStapling on"
    )
    setup.api.apache.enable_mod_ssl()
    live = setup.live()
    said = refusal(setup.api.apache.create_vhost, **{**setup.host("x.example.com"), "template": template})
    assert "Everything was put back" in said and "Stapling" in said
    assert setup.live() == live and setup.api.apache.get_service_status() == 0
    assert fetch(setup.port, "www.example.com")[0] == 200


def with_own_certificate(setup: Setup, certificate: str, key: str) -> str:
    return setup.template("x.example.com").replace(
        "    DocumentRoot",
        f"    SSLEngine on\n    SSLCertificateFile {setup.directory}/{certificate}\n"
        f"    SSLCertificateKeyFile {setup.directory}/{key}\n    DocumentRoot",
    )


def test_a_template_s_own_certificate_is_looked_at_before_anything_is_touched(setup: Setup) -> None:
    setup.api.apache.create_vhost(**setup.host())
    for name in ("one", "two"):
        make_certificate(setup.directory, name, "x.example.com")
    (setup.directory / "no.crt").write_text("-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
    setup.api.apache.enable_mod_ssl()
    live, parent = setup.live(), setup.apache.parent()
    for certificate, key, words in (
        ("one.crt", "two.key", "line 8: SSLCertificateKeyFile KEY is not the key of SSLCertificateFile CERTIFICATE"),
        ("no.crt", "one.key", "line 7: SSLCertificateFile CERTIFICATE holds a certificate that cannot be read"),
        ("one.crt", "one.crt", "line 8: SSLCertificateKeyFile KEY holds no private key that can be read"),
    ):
        host = {**setup.host("x.example.com"), "template": with_own_certificate(setup, certificate, key)}
        said = refusal(setup.api.apache.create_vhost, **host)
        words = words.replace("KEY", str(setup.directory / key)).replace(
            "CERTIFICATE", str(setup.directory / certificate)
        )
        assert words in said and "Nothing was changed." in said
        shown = setup.api.apache.create_vhost(**host, _dry_run=True)
        assert not shown["valid"] and words in shown["validator_output"]
    assert setup.live() == live and setup.apache.parent() == parent
    port = free_port()
    host = {**setup.host("x.example.com"), "template": with_own_certificate(setup, "one.crt", "one.key"), "port": port}
    setup.api.apache.create_vhost(**host)
    assert fetch(port, "x.example.com", tls=True)[0] == 200


def test_a_change_of_apache_is_taken_back_and_kept_on_confirmation(setup: Setup) -> None:
    began = time.monotonic()
    setup.api.apache.create_vhost(**setup.host("other.example.com", port=free_port()))
    within = max(5, math.ceil(10 * (time.monotonic() - began)))
    made = setup.api.apache.create_vhost(**setup.host(), _confirm_within=within)
    assert made["result"] == str(setup.hosts / f"www.example.com-{setup.port}.vhost.conf")
    assert fetch(setup.port, "www.example.com")[0] == 200
    deadline = time.monotonic() + within + 60
    while setup.api.change.show(id=made["change_id"])["status"] == "waiting" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert setup.api.change.show(id=made["change_id"])["status"] == "reverted"
    with pytest.raises((OSError, http.client.HTTPException)):
        fetch(setup.port, "www.example.com")
