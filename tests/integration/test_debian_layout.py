"""Debian's own nginx and Apache, where its packages put them, under its init scripts.

They run in namespaces of their own: the machine's files, processes and ports stay as they are.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from network_namespace import Host, needs
from private_servers import fetch, make_certificate
from running_agent import RunningAgent
from scalarizr.client import AgentError
from scalarizr.host.processes import children_of, is_alive, read_pid_file, title_of

pytestmark = [pytest.mark.root, needs("unshare")]
PRIVATE = ("etc/nginx", "etc/apache2", "var/log/nginx", "var/log/apache2", "var/lib/nginx", "var/lib/apache2")


class Server:
    """A Debian server with its packages' files, untouched until now, and an agent with nothing set."""

    def __init__(self, directory: Path) -> None:
        for parent in (directory, *directory.parents[:3]):
            if parent.stat().st_uid == os.geteuid():
                parent.chmod(parent.stat().st_mode | 0o011)
        self.host = Host(directory)
        for place in PRIVATE:
            private = self.host.directory / place.replace("/", "-")
            shutil.copytree(f"/{place}", private, symlinks=True)
            self.host.run("mount", "--bind", str(private), f"/{place}")
        self.host.run("mkdir", "/run/lock")
        command = [*self.host.prefix, sys.executable, "-m", "scalarizr", "serve"]
        self.agent = RunningAgent(directory, command=command)
        with self.host.inside():
            self.agent.start()
            self.api: Any = self.agent.client(timeout=90)
            self.api.system.load_average()

    def etc(self, name: str) -> Path:
        """Where a directory of /etc is seen from outside."""
        return self.host.directory / f"etc-{name}"

    def pid(self, file: str) -> int | None:
        return read_pid_file(Path(f"/proc/{self.host.prefix[2]}/root/run", file))

    def fetch(self, port: int, host: str, path: str = "/", *, tls: bool = False) -> tuple[int, str]:
        with self.host.inside():
            return fetch(port, host, path, tls=tls)

    def says(self, *command: str) -> int:
        return subprocess.run([*self.host.prefix, *command], capture_output=True).returncode

    def close(self) -> None:
        self.api.close()
        self.agent.stop()
        for file in ("nginx.pid", "apache2/apache2.pid"):
            pid = self.pid(file)
            if pid is not None and is_alive(pid):
                os.kill(pid, signal.SIGTERM)
        self.host.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.close()


def files_of(directory: Path) -> dict[str, object]:
    return {
        str(path): path.readlink() if path.is_symlink() else path.read_bytes()
        for path in directory.rglob("*")
        if path.is_symlink() or path.is_file()
    }


@pytest.mark.nginx
def test_nginx_is_started_watched_and_stopped_through_its_init_script(server: Server) -> None:
    api = server.api.nginx
    assert api.get_service_status() == 3 and server.says("service", "nginx", "status") == 3
    api.start_service()
    master = server.pid("nginx.pid")
    assert master is not None and is_alive(master) and api.get_service_status() == 0
    assert server.says("service", "nginx", "status") == 0 and server.fetch(80, "x")[0] == 200
    workers = children_of(master)
    api.reload_service()
    serving = {pid for pid in children_of(master) if title_of(pid) == "nginx: worker process"}
    assert server.pid("nginx.pid") == master and serving and not serving & workers
    api.restart_service(reason="a test")
    assert server.pid("nginx.pid") != master and not is_alive(master) and server.fetch(80, "x")[0] == 200
    api.stop_service()
    assert api.get_service_status() == 3
    server.host.listen(80)
    with pytest.raises(AgentError, match=r"did not start.*bind.*:80 failed.*Address already in use"):
        api.start_service()


@pytest.mark.nginx
def test_one_that_died_leaves_its_pid_file_and_starts_again(server: Server) -> None:
    server.api.nginx.start_service()
    master = server.pid("nginx.pid")
    assert master is not None
    for pid in (master, *children_of(master)):  # the master first: it would start others
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while is_alive(master) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.api.nginx.get_service_status() == 1
    server.api.nginx.reload_service()
    assert server.api.nginx.get_service_status() == 0 and server.fetch(80, "x")[0] == 200


@pytest.mark.nginx
def test_a_proxy_takes_the_default_site_s_place_and_gives_it_back(server: Server) -> None:
    etc = server.etc("nginx")
    before = files_of(etc)
    templates = [{"content": "return 200 proxied;", "location": "/which"}]
    server.api.nginx.make_proxy(hostname="www.example.com", backends=[{"host": "127.0.0.1:81"}], templates=templates)
    assert server.api.nginx.get_service_status() == 0, "a stopped one is started by a change"
    assert server.fetch(80, "www.example.com", "/which") == (200, "proxied")
    after = files_of(etc)
    assert set(before) - set(after) == {str(etc / "sites-enabled" / "default")}
    names = ("app-servers.include", "proxies.include", "error-pages.include")
    assert set(after) - set(before) == {str(etc / name) for name in names}
    main = str(etc / "nginx.conf")
    assert [path for path in before if path in after and before[path] != after[path]] == [main]
    old, new = (Path(main).read_text().splitlines() if text is None else text for text in (None, None))
    del old
    added = [line.strip() for line in new if "scalarizr" in line or line.strip().endswith(".include;")]
    assert (
        len(added) == 4
        and [line for line in new if line.strip() not in added]
        == str(
            before[main].decode()  # type: ignore[attr-defined]
        ).splitlines()
    )
    server.api.change.revert(id=server.api.change.list()[0]["id"])
    assert files_of(etc) == before and server.fetch(80, "x")[0] == 200


@pytest.mark.apache2
def test_apache_and_its_modules_are_handled_the_distribution_s_way(server: Server) -> None:
    api, etc = server.api.apache, server.etc("apache2")
    assert api.get_service_status() == 3
    api.start_service()
    parent = server.pid("apache2/apache2.pid")
    assert parent is not None and api.get_service_status() == 0 and server.says("service", "apache2", "status") == 0
    assert api.get_webserver_statistics()["ServerVersion"].startswith("Apache/2.4")
    before = files_of(etc)
    make_certificate(server.agent.etc / "environment" / "certificates", "1", "www.example.com")
    template = "<VirtualHost *:443>\n  ServerName www.example.com\n  DocumentRoot /var/www/html\n</VirtualHost>\n"
    assert server.says("a2query", "-m", "ssl") != 0
    path = api.create_vhost(hostname="www.example.com", port=443, template=template, ssl=True, ssl_certificate_id=1)
    assert server.fetch(443, "www.example.com", tls=True)[0] == 200 and api.list_served_virtual_hosts() == [path]
    assert server.says("a2query", "-m", "ssl") == 0 and server.pid("apache2/apache2.pid") == parent
    assert not (server.agent.etc / "private.d" / "vhosts" / "ports.conf").exists(), "Debian's own has it"
    api.delete_vhosts(vhosts=[["www.example.com", 443]])
    api.disable_mod_ssl()
    assert server.says("a2query", "-m", "ssl") != 0
    for change in server.api.change.list():
        server.api.change.revert(id=change["id"]) if change["status"] == "applied" else None
    assert files_of(etc) == before and server.fetch(80, "x")[0] == 200
    api.stop_service(reason="a test")
    assert api.get_service_status() == 3 and not is_alive(parent)
    server.host.listen(80)
    with pytest.raises(AgentError, match=r"did not start.*The port 80 is held by another program"):
        api.start_service()
