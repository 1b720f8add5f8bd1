"""Virtual hosts beside the files of Red Hat's packages, with the Apache that is installed here."""

import http.client
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from private_servers import fetch, make_certificate
from red_hat_layout import COMPOSED, Arranged, changed, refusal
from running_agent import free_port

pytestmark = pytest.mark.root

# What is built into Red Hat's program, or comes from the host's name.
BUILT_IN = "PidFile run/httpd.pid\nDefaultRuntimeDir run\nServerName localhost\n"


class RedHatApache(Arranged):
    def __init__(self, directory: Path, settings: str = "") -> None:
        super().__init__(directory, "httpd", "apache", settings)
        self.main = self.etc / "conf" / "httpd.conf"
        self.tls = self.etc / "conf.d" / "ssl.conf"
        self.module = self.etc / "conf.modules.d" / "00-ssl.conf"
        self.hosts = self.agent.etc / "private.d" / "vhosts"
        self.api.apache.start_service()

    def build(self) -> None:
        shutil.copytree(COMPOSED / "apache" / "composed" / "2.4.37-el8" / "etc" / "httpd", self.etc)
        for name in ("logs", "run", "pki"):
            (self.etc / name).mkdir()
        (self.etc / "modules").symlink_to("/usr/lib/apache2/modules")
        site = self.directory / "www" / "html"
        site.mkdir(parents=True)
        (site / "index.html").write_text("the package's site")
        make_certificate(self.etc / "pki", "localhost", "localhost")
        self.adapt(
            {
                "/etc/httpd": str(self.etc),
                "/var/www": str(self.directory / "www"),
                "\nListen 80\n": f"\nListen {self.port}\n{BUILT_IN}",
                "User apache\nGroup apache": "User www-data\nGroup www-data",
                "/run/httpd": f"{self.etc}/run",
                "exec:/usr/libexec/httpd-ssl-pass-dialog": "builtin",
                "PROFILE=SYSTEM": "HIGH",
                "443": str(self.tls_port),
                "/etc/pki/tls/certs/localhost": f"{self.etc}/pki/localhost",
                "/etc/pki/tls/private/localhost": f"{self.etc}/pki/localhost",
            },
            "conf*/*.conf",
        )
        # What is no module of its own in Debian's program.
        for path in self.etc.glob("conf.modules.d/*.conf"):
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join(line for line in lines if "LoadModule" not in line or self._has(line.split()[-1])))

    def _has(self, module: str) -> bool:
        return (self.etc / module).exists()

    def stop(self) -> None:
        if (self.etc / "run" / "httpd.pid").exists():
            subprocess.run(["apache2", "-d", self.etc, "-f", self.main, "-k", "stop"], capture_output=True)

    def host(self, name: str, port: int, **more: object) -> dict[str, object]:
        template = (
            f"<VirtualHost *:{port}>\n    ServerName {name}\n    DocumentRoot {self.directory}/sites/{name}\n"
            f"    <Directory {self.directory}/sites>\n        Require all granted\n    </Directory>\n</VirtualHost>\n"
        )
        return {"hostname": name, "port": port, "template": template, "ssl": False, **more}


@pytest.fixture
def red_hat_apache(tmp_path: Path) -> Iterator[RedHatApache]:
    made = RedHatApache(tmp_path)
    yield made
    made.close()


@pytest.mark.apache2
def test_virtual_hosts_come_and_go_beside_red_hat_s_files(red_hat_apache: RedHatApache) -> None:
    setup = red_hat_apache
    before, port = setup.files(), free_port()
    assert fetch(setup.port, "x") == (200, "the package's site")
    path = setup.api.apache.create_vhost(**setup.host("www.example.com", port))
    status, text = fetch(port, "www.example.com")
    assert status == 200 and "It works" in text
    assert setup.api.apache.list_served_virtual_hosts() == [path]
    # One that shares the package's port: the main server's site is behind it.
    setup.api.apache.create_vhost(**setup.host("two.example.com", setup.port))
    assert "It works" in fetch(setup.port, "two.example.com")[1]
    ((name, (old, new)),) = changed(before, setup.files()).items()
    assert name == "conf/httpd.conf" and old is not None and new is not None and new.startswith(old)
    assert new[len(old) :].count(b"IncludeOptional") == 1
    paths = setup.api.apache.reconfigure(vhosts=[setup.host("b.example.com", port)], async_=False)
    assert setup.api.apache.list_served_virtual_hosts() == paths and fetch(port, "b.example.com")[0] == 200
    setup.api.apache.delete_vhosts(vhosts=[["b.example.com", port]])
    assert fetch(setup.port, "x") == (200, "the package's site")
    with pytest.raises(OSError):
        fetch(port, "b.example.com")


@pytest.mark.apache2
def test_a_host_on_the_port_of_ssl_conf_does_not_listen_there_twice(red_hat_apache: RedHatApache) -> None:
    setup = red_hat_apache
    make_certificate(setup.certificates, "410", "s.example.com")
    before = setup.files()
    setup.api.apache.create_vhost(**setup.host("s.example.com", setup.tls_port, ssl=True, ssl_certificate_id=410))
    assert "It works" in fetch(setup.tls_port, "s.example.com", tls=True)[1]
    assert not (setup.hosts / "ports.conf").exists()
    assert set(changed(before, setup.files())) == {"conf/httpd.conf"}
    said = refusal(setup.api.apache.disable_mod_ssl)
    assert f"s.example.com-{setup.tls_port}.vhost.conf" in said and "ssl.conf" not in said.replace("vhost.conf", "")


@pytest.mark.apache2
def test_mod_ssl_goes_with_its_default_host_and_both_come_back(red_hat_apache: RedHatApache) -> None:
    setup = red_hat_apache
    before = setup.files()
    assert fetch(setup.tls_port, "x", tls=True) == (200, "the package's site")
    setup.api.apache.disable_mod_ssl()
    assert set(changed(before, setup.files())) == {
        "conf.d/ssl.conf",
        "conf.d/ssl.conf.disabled",
        "conf.modules.d/00-ssl.conf",
    }
    assert setup.module.read_text().startswith("#LoadModule") and fetch(setup.port, "x")[0] == 200
    with pytest.raises(OSError):
        fetch(setup.tls_port, "x", tls=True)
    setup.api.apache.disable_mod_ssl()
    setup.api.apache.enable_mod_ssl()
    assert setup.files() == before and fetch(setup.tls_port, "x", tls=True)[0] == 200
    setup.api.apache.disable_mod_ssl()
    # A host that needs the module brings both back, and listens once on their port.
    make_certificate(setup.certificates, "default", "s.example.com")
    setup.api.apache.create_vhost(**setup.host("s.example.com", setup.tls_port, ssl=True))
    assert "It works" in fetch(setup.tls_port, "s.example.com", tls=True)[1]
    assert set(changed(before, setup.files())) == {"conf/httpd.conf"}


@pytest.mark.apache2
def test_a_default_host_that_somebody_uses_keeps_mod_ssl(red_hat_apache: RedHatApache) -> None:
    setup = red_hat_apache
    text = setup.tls.read_text()
    setup.tls.write_text(text.replace(f"#ServerName www.example.com:{setup.tls_port}", "ServerName www.example.com"))
    live = setup.files()
    assert f"mod_ssl is needed by {setup.tls}" in refusal(setup.api.apache.disable_mod_ssl)
    setup.tls.write_text(text)
    own = setup.etc / "conf.d" / "mine.conf"
    own.write_text("<IfModule !ssl_module>\nLoadModule ssl_module modules/mod_ssl.so\n</IfModule>\n")
    live = setup.files()
    assert f"mod_ssl is loaded in {own}" in refusal(setup.api.apache.disable_mod_ssl)
    assert setup.files() == live


@pytest.mark.apache2
def test_the_default_host_for_tls_gets_a_certificate_and_keeps_the_rest(red_hat_apache: RedHatApache) -> None:
    setup = red_hat_apache
    make_certificate(setup.certificates, "7", "s.example.com")
    before = setup.files()
    setup.api.apache.set_default_ssl_certificate(id=7)
    ((name, (old, new)),) = changed(before, setup.files()).items()
    assert name == "conf.d/ssl.conf" and old is not None and new is not None
    keys = setup.agent.etc / "private.d" / "keys"
    expected = old.decode().replace(f"{setup.etc}/pki/localhost.", f"{keys}/https_7.")
    assert new.decode() == expected and fetch(setup.tls_port, "x", tls=True)[0] == 200
    assert "mod_ssl is needed by" in refusal(setup.api.apache.disable_mod_ssl)
    live = setup.files()
    # Not on this host: the certificate that Red Hat's package makes.
    assert "/etc/pki/tls/certs/localhost.crt" in refusal(setup.api.apache.set_default_ssl_certificate, id=8)
    assert setup.files() == live
    setup.tls.unlink()
    assert "There is no default virtual host for TLS" in refusal(setup.api.apache.set_default_ssl_certificate, id=7)


@pytest.mark.apache2
def test_statistics_say_why_there_are_none_and_where_to_put_them(red_hat_apache: RedHatApache) -> None:
    setup = red_hat_apache
    said = setup.api.apache.get_webserver_statistics()
    assert set(said) == {"errmsg"} and "mod_status is loaded, but" in said["errmsg"]
    assert '<Location "/server-status">' in said["errmsg"] and "status_url" in said["errmsg"]
    status = setup.etc / "conf.d" / "status.conf"
    status.write_text('<Location "/server-status">\n    SetHandler server-status\n    Require local\n</Location>\n')
    setup.api.apache.reload_service()
    figures = setup.api.apache.get_webserver_statistics()
    assert {"ServerVersion", "Total Accesses", "IdleWorkers", "Scoreboard", "CurrentTime"} <= set(figures)
    assert all(isinstance(value, str) for value in figures.values()) and figures["ServerVersion"].startswith("Apache/")
    # Everything else answers with TLS alone.
    main = setup.main.read_text()
    setup.main.write_text(main.replace(f"\nListen {setup.port}\n", "\n"))
    setup.api.apache.reload_service()
    assert "Scoreboard" in setup.api.apache.get_webserver_statistics()
    setup.main.write_text(main)
    status.write_text(status.read_text().replace("Require local", "Require all denied"))
    setup.api.apache.reload_service()
    assert "answers 403" in setup.api.apache.get_webserver_statistics()["errmsg"]
    status.unlink()
    base = setup.etc / "conf.modules.d" / "00-base.conf"
    base.write_text(base.read_text().replace("LoadModule status_module", "#LoadModule status_module"))
    setup.api.apache.reload_service()
    assert setup.api.apache.get_webserver_statistics() == {"errmsg": "mod_status is not enabled"}
    setup.api.apache.stop_service()
    assert setup.api.apache.get_webserver_statistics() == {"errmsg": "Apache is not running"}


@pytest.mark.apache2
def test_the_settings_say_where_mod_status_answers(tmp_path: Path) -> None:
    port = free_port()
    setup = RedHatApache(tmp_path, f'status_url = "http://127.0.0.1:{port}/figures"\n')
    try:
        unreachable = setup.api.apache.get_webserver_statistics()
        assert set(unreachable) == {"errmsg"} and "refused" in unreachable["errmsg"]
        (setup.etc / "conf.d" / "status.conf").write_text(
            f"Listen 127.0.0.1:{port}\n<VirtualHost 127.0.0.1:{port}>\n<Location /figures>\nSetHandler server-status\n"
            "</Location>\n</VirtualHost>\n"
        )
        setup.api.apache.reload_service()
        assert "Scoreboard" in setup.api.apache.get_webserver_statistics()
    finally:
        setup.close()


@pytest.mark.apache2
def test_an_apache_that_does_not_name_its_files_is_read_all_the_same(tmp_path: Path) -> None:
    """Red Hat 7's 2.4.6 knows no DUMP_INCLUDES: here the installed one is not asked for it."""
    old = tmp_path / "bin" / "apache2"
    old.parent.mkdir()
    old.write_text(
        '#!/bin/sh\nfor word in "$@"; do\n    shift\n    [ "$word" = DUMP_INCLUDES ] && word=NOTHING\n'
        '    set -- "$@" "$word"\ndone\nexec /usr/sbin/apache2 "$@"\n'
    )
    old.chmod(0o755)
    setup = RedHatApache(tmp_path, f'binary = "{old}"\n')
    try:
        make_certificate(setup.certificates, "410", "s.example.com")
        setup.api.apache.create_vhost(**setup.host("s.example.com", setup.tls_port, ssl=True, ssl_certificate_id=410))
        assert "It works" in fetch(setup.tls_port, "s.example.com", tls=True)[1]
        assert not (setup.hosts / "ports.conf").exists()
    finally:
        setup.close()


@pytest.mark.apache2
def test_what_red_hat_7_starts_its_service_with_counts(tmp_path: Path) -> None:
    """`OPTIONS` and other variables of /etc/sysconfig/httpd: the configuration is not valid without them."""
    (tmp_path / "sysconfig").mkdir()
    # Where the main server's page is.
    (tmp_path / "sysconfig" / "httpd").write_text('# Options.\nOPTIONS="-D TRIAL -DOTHER"\nPLACE=trial\n')
    setup = RedHatApache(tmp_path)
    try:
        page = tmp_path / "www" / "trial"
        page.mkdir()
        (page / "index.html").write_text("the trial's site")
        with setup.main.open("a") as main:
            main.write(f'<IfDefine TRIAL>\n<IfDefine OTHER>\nDocumentRoot "{tmp_path}/www/${{PLACE}}"\n')
            main.write("</IfDefine>\n</IfDefine>\n<IfDefine !TRIAL>\nNonsense on\n</IfDefine>\n")
        setup.api.apache.configtest()
        port = free_port()
        setup.api.apache.create_vhost(**setup.host("www.example.com", port))
        assert fetch(port, "www.example.com")[0] == 200
        assert fetch(setup.port, "x") == (200, "the trial's site")
        setup.api.apache.restart_service()
        assert fetch(setup.port, "x") == (200, "the trial's site")
    finally:
        setup.api.apache.stop_service()  # without the options its own program takes the configuration for wrong
        setup.close()


@pytest.mark.apache2
def test_start_stop_restart_reload_and_a_deadly_mistake(red_hat_apache: RedHatApache) -> None:
    setup = red_hat_apache
    api = setup.api.apache
    assert api.get_service_status() == 0 and api.configtest() is None
    api.reload_service()
    api.restart_service()
    api.stop_service()
    assert api.get_service_status() == 3
    with pytest.raises((OSError, http.client.HTTPException)):
        fetch(setup.port, "x")
    # Its test believes in this certificate; starting does not, and says why.
    (setup.etc / "pki" / "localhost.crt").write_text("nothing\n")
    said = refusal(api.start_service)
    assert "Apache did not start" in said and "AH02562: Failed to configure certificate" in said
