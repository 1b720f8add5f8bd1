"""Proxies beside the files of Red Hat's and nginx.org's packages, with the nginx that is installed here."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from private_servers import backend, fetch, make_certificate
from red_hat_layout import COMPOSED, Arranged, changed
from scalarizr.client import AgentError

pytestmark = pytest.mark.root


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
