"""Red Hat's and nginx.org's arrangement of nginx and Apache, with the programs that are installed here.

The files are those of tests/fixtures/{nginx,apache}/composed, in directories of their own and on free ports.
"""

import http.client
import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import pytest

from private_servers import backend, fetch, make_certificate
from running_agent import RunningAgent, free_port
from scalarizr.client import AgentError, Client

pytestmark = pytest.mark.root

COMPOSED = Path(__file__).parents[1] / "fixtures"
# What is built into Red Hat's program, or comes from the host's name.
BUILT_IN = "PidFile run/httpd.pid\nDefaultRuntimeDir run\nServerName localhost\n"
Files = dict[str, bytes]


def refusal(call: object, **arguments: object) -> str:
    with pytest.raises(AgentError) as caught:
        call(**arguments)  # type: ignore[operator]
    return f"{caught.value} {caught.value.data}"


class Arranged(ABC):
    """A server's configuration directory, and an agent that knows of it.

    :param directory: of the test.
    :param name: of the configuration's directory.
    :param section: of the settings.
    """

    def __init__(self, directory: Path, name: str, section: str, settings: str = "") -> None:
        for parent in (directory, *directory.parents[:3]):
            if parent.stat().st_uid == os.geteuid():
                parent.chmod(parent.stat().st_mode | 0o011)  # the server's user must be able to reach the sites
        self.directory = directory
        self.etc = directory / name
        self.tls_port, self.port = sorted((free_port(), free_port()))  # the unlucky order for who looks for plain http
        self.build()
        self.agent = RunningAgent(directory, f'[{section}]\nconfig_dir = "{self.etc}"\n{settings}')
        self.certificates = self.agent.etc / "environment" / "certificates"
        self.certificates.mkdir(parents=True)
        self.agent.start()
        self.api: Client = self.agent.client(timeout=60)

    @abstractmethod
    def build(self) -> None:
        """Lay the tree of the configuration."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the server."""

    def close(self) -> None:
        self.api.close()
        self.stop()
        self.agent.stop()

    def adapt(self, replacements: dict[str, str], pattern: str = "**/*") -> None:
        for path in self.etc.glob(pattern):
            if path.is_file():
                text = path.read_text()
                for before, after in replacements.items():
                    text = text.replace(before, after)
                path.write_text(text)

    def files(self) -> Files:
        """Every file of the configuration; nothing that the server writes."""
        found = {}
        for path in sorted(self.etc.rglob("*")):
            relative = path.relative_to(self.etc)
            if path.is_file() and relative.parts[0] not in ("logs", "run", "modules", "pki"):
                found[str(relative)] = path.read_bytes()
        return found

    def last_change(self) -> str:
        return str(self.api.change.list()[0]["id"])


def changed(before: Files, after: Files) -> dict[str, tuple[bytes | None, bytes | None]]:
    names = sorted({*before, *after})
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


# nginx


class RedHatNginx(Arranged):
    def __init__(self, directory: Path, release: str) -> None:
        self._packaged = COMPOSED / "nginx" / "composed" / release / "etc" / "nginx"
        super().__init__(directory, "nginx", "nginx")
        self.main = self.etc / "nginx.conf"
        self.proxies = self.etc / "proxies.include"
        self.api.nginx.start_service()

    def build(self) -> None:
        shutil.copytree(self._packaged, self.etc)
        for name in ("logs", "conf.d", "default.d", "modules"):
            (self.etc / name).mkdir(exist_ok=True)
        (self.etc / "mime.types").write_text("types { text/html html; }\n")
        self.adapt(
            {
                "/etc/nginx": str(self.etc),
                "/usr/share/nginx/modules": f"{self.etc}/modules",
                "/var/log/nginx": f"{self.etc}/logs",
                "/run/nginx.pid": f"{self.etc}/logs/nginx.pid",
                "nginx;": "www-data;",
                "listen       80": f"listen       {self.port}",
                "listen       [::]:80": f"listen       [::]:{self.port}",
            }
        )

    def stop(self) -> None:
        if (self.etc / "logs" / "nginx.pid").exists():
            subprocess.run(["nginx", "-p", self.etc, "-c", self.main, "-s", "stop"], capture_output=True)

    def proxy(self, hostname: str, port: int) -> dict[str, object]:
        return {"hostname": hostname, "port": self.port, "backends": [{"host": f"127.0.0.1:{port}"}]}

    def make_role(self, port: int) -> None:
        text = f'[roles.1]\nbehaviours = ["app"]\nservers = [{{ private = "127.0.0.1:{port}" }}]\n'
        (self.certificates.parent / "roles.toml").write_text(text)

    def reconfigure(self) -> None:
        """Make the default proxy, on this test's port."""
        proxies = [{"hostname": "_", "port": self.port, "backends": [{"farm_role_id": 1}]}]
        self.api.nginx.reconfigure(proxies=proxies, async_=False)


@pytest.fixture
def red_hat_nginx(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RedHatNginx]:
    made = RedHatNginx(tmp_path, request.param)
    yield made
    made.close()


@pytest.mark.nginx
@pytest.mark.parametrize("red_hat_nginx", ["1.12.2-el7", "1.14.1-el8"], indirect=True)
def test_a_default_server_in_the_main_configuration_is_commented_out_and_comes_back(red_hat_nginx: RedHatNginx) -> None:
    setup = red_hat_nginx
    before = setup.files()
    assert fetch(setup.port, "www.example.com")[0] == 200
    with backend("proxied") as port:
        setup.api.nginx.make_proxy(**setup.proxy("www.example.com", port))
        assert fetch(setup.port, "www.example.com") == (200, "proxied www.example.com http")
        # Nobody else is the default server now.
        assert fetch(setup.port, "other.example.com")[1].startswith("proxied")
        after = setup.files()
        assert set(changed(before, after)) == {
            "nginx.conf",
            "app-servers.include",
            "error-pages.include",
            "proxies.include",
        }
        lines = after["nginx.conf"].decode().splitlines(keepends=True)
        ours = [line for line in lines if "stood in the way" in line or "scalarizr's" in line or ".include;" in line]
        kept = "".join(line.removeprefix("#scalarizr#") for line in lines if line not in ours)
        assert len(ours) == 5 and kept.encode() == before["nginx.conf"]
        assert "nginx.conf, lines 38 to 57, claimed a port" in setup.proxies.read_text()
        setup.api.nginx.make_proxy(**setup.proxy("www.example.com", port))
        assert setup.files() == after
        setup.api.change.revert(id=setup.last_change())
    assert setup.files() == before
    assert "proxied" not in fetch(setup.port, "www.example.com")[1]


@pytest.mark.nginx
@pytest.mark.parametrize("red_hat_nginx", ["1.20.1-el9", "1.28.0-nginx.org"], indirect=True)
def test_a_default_site_that_does_not_say_so_goes_only_for_the_default_proxy(red_hat_nginx: RedHatNginx) -> None:
    setup = red_hat_nginx
    before = setup.files()
    with backend("proxied") as port:
        setup.make_role(port)
        setup.api.nginx.make_proxy(**setup.proxy("www.example.com", port))
        assert fetch(setup.port, "www.example.com")[1].startswith("proxied")
        assert not fetch(setup.port, "other.example.com")[1].startswith("proxied")
        assert setup.files().get("conf.d/default.conf") == before.get("conf.d/default.conf")
        setup.reconfigure()
        assert fetch(setup.port, "other.example.com")[1].startswith("proxied")
        after = setup.files()
        assert "conf.d/default.conf" not in after
        assert after.get("conf.d/default.conf.disabled") == before.get("conf.d/default.conf")
        setup.api.change.revert(id=setup.last_change())
        assert not fetch(setup.port, "other.example.com")[1].startswith("proxied")


@pytest.mark.nginx
@pytest.mark.parametrize("red_hat_nginx", ["1.14.1-el8"], indirect=True)
def test_what_a_person_made_of_the_default_server_stays_and_serves(red_hat_nginx: RedHatNginx) -> None:
    setup = red_hat_nginx
    with backend("theirs") as theirs, backend("proxied") as port:
        setup.make_role(port)
        own = f"        location / {{\n            proxy_pass http://127.0.0.1:{theirs};\n"
        setup.main.write_text(setup.main.read_text().replace("        location / {\n", own, 1))
        setup.api.nginx.reload_service()
        before = setup.files()
        setup.api.nginx.make_proxy(**setup.proxy("www.example.com", port))
        assert fetch(setup.port, "www.example.com")[1].startswith("proxied")
        assert fetch(setup.port, "other.example.com")[1].startswith("theirs")
        added = [line for line in setup.main.read_text().splitlines() if line.encode() not in before["nginx.conf"]]
        assert len(added) == 4
        live = setup.files()
        with pytest.raises(AgentError, match="The name _ is claimed"):
            setup.reconfigure()
        assert setup.files() == live and fetch(setup.port, "other.example.com")[1].startswith("theirs")


@pytest.mark.nginx
@pytest.mark.parametrize("red_hat_nginx", ["1.20.1-el9", "1.28.0-nginx.org"], indirect=True)
def test_tls_roles_and_reconfiguration_work_beside_a_package_s_files(red_hat_nginx: RedHatNginx) -> None:
    setup = red_hat_nginx
    make_certificate(setup.certificates, "7", "s.example.com")
    before = setup.files()
    with backend("secure") as port:
        proxy = {**setup.proxy("s.example.com", port), "ssl": True, "ssl_port": setup.tls_port, "ssl_certificate_id": 7}
        setup.api.nginx.reconfigure(proxies=[proxy], async_=False)
        assert fetch(setup.tls_port, "s.example.com", tls=True) == (200, "secure s.example.com https")
        setup.api.nginx.recreate_proxying(proxy_list=[])
    assert set(changed(before, setup.files())) == {
        "nginx.conf",
        "app-servers.include",
        "error-pages.include",
        "proxies.include",
    }
    assert setup.api.nginx.get_service_status() == 0 and setup.api.nginx.configtest() is None


# Apache


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
