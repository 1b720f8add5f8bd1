"""Where the agent may not mount (most containers), planned files are checked in a copy of the configuration."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from private_servers import PrivateApache, PrivateNginx, backend, fetch, make_certificate
from running_agent import RunningAgent, free_port
from scalarizr.client import AgentError

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="LEFT OUT: there is no setpriv"),
]
CONTAINED = ["setpriv", "--bounding-set", "-sys_admin", "--", sys.executable, "-m", "scalarizr", "serve"]


class Contained:
    """Both servers, and an agent without CAP_SYS_ADMIN."""

    def __init__(self, directory: Path) -> None:
        for parent in (directory, *directory.parents[:3]):
            if parent.stat().st_uid == os.geteuid():
                parent.chmod(parent.stat().st_mode | 0o011)
        self.directory = directory
        self.nginx = PrivateNginx(directory)
        self.apache = PrivateApache(directory)
        self.agent = RunningAgent(directory, self.nginx.settings + self.apache.settings, command=CONTAINED)
        make_certificate(self.agent.etc / "environment" / "certificates", "1", "www.example.com")
        self.agent.start()
        capabilities = Path(f"/proc/{self.agent.pid()}/status").read_text().partition("CapEff:")[2].split()[0]
        assert not int(capabilities, 16) >> 21 & 1, "CAP_SYS_ADMIN (capabilities(7))"
        self.api: Any = self.agent.client(timeout=60)
        self.port, self.tls = free_port(), free_port()

    def live(self) -> dict[Path, bytes]:
        places = (self.nginx.directory, self.apache.directory, self.agent.etc)
        files = [path for place in places for path in place.rglob("*") if path.is_file() and path.suffix != ".log"]
        return {path: path.read_bytes() for path in files}


@pytest.fixture
def contained(tmp_path: Path) -> Iterator[Contained]:
    made = Contained(tmp_path)
    yield made
    made.api.close()
    made.agent.stop()
    made.nginx.stop()
    made.apache.stop()


@pytest.mark.nginx
def test_proxies_are_made_and_bad_ones_refused(contained: Contained) -> None:
    api = contained.api.nginx
    tls = {"ssl": True, "ssl_port": contained.tls, "ssl_certificate_id": 1}
    with backend("app") as port:
        proxy = {"hostname": "www.example.com", "port": contained.port, "backends": [{"host": f"127.0.0.1:{port}"}]}
        shown = api.make_proxy(**proxy, **tls, _dry_run=True)
        assert shown["valid"] and not contained.nginx.proxies.exists()
        api.make_proxy(**proxy, **tls)
        assert fetch(contained.port, "www.example.com")[0] == 200
        assert fetch(contained.tls, "www.example.com", tls=True)[0] == 200
        live = contained.live()
        templates = [{"content": "expires 1d;\nnonsense on;", "location": "/"}]
        with pytest.raises(AgentError, match=r'templates\[0\]\.content, line 2: nginx says: unknown directive "nons'):
            api.make_proxy(**proxy, templates=templates)
        with pytest.raises(AgentError, match="host not found in upstream"):
            api.make_proxy(hostname="b.example.com", port=contained.port, backends=[{"host": "no.invalid"}])
        assert contained.live() == live
        api.remove_proxy(hostname="www.example.com")
        assert contained.nginx.is_valid() and "server {" not in contained.nginx.proxies.read_text()


@pytest.mark.apache2
def test_virtual_hosts_are_made_and_bad_ones_refused(contained: Contained) -> None:
    api = contained.api.apache
    template = (
        "<VirtualHost *:80>\n  ServerName www.example.com\n"
        f"  DocumentRoot {contained.directory}/site\n  ErrorLog {contained.directory}/log/error.log\n"
        f"  <Directory {contained.directory}/site>\n    Require all granted\n  </Directory>\n</VirtualHost>\n"
    )
    host = {"hostname": "www.example.com", "port": contained.tls, "ssl": True, "ssl_certificate_id": 1}
    assert api.create_vhost(**host, template=template, _dry_run=True)["valid"]
    api.create_vhost(**host, template=template)
    assert fetch(contained.tls, "www.example.com", tls=True)[0] == 200
    live = contained.live()
    with pytest.raises(AgentError, match="template, line 5: Apache says: Invalid command 'Reqire'"):
        api.create_vhost(**host, template=template.replace("  <Directory", "  Reqire x\n  <Directory"))
    assert contained.live() == live
    api.delete_vhosts(vhosts=[["www.example.com", contained.tls]])
    api.disable_mod_ssl()
    assert contained.apache.is_valid()
