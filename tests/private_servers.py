"""Real servers in private directories, on free ports, for tests: nginx, Apache, and what is needed beside them."""

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from running_agent import free_port
from scalarizr.host.processes import is_alive, program_of, title_of, wait_until

NGINX_CONF = """\
# Main configuration, written by a person.
worker_processes 2;
pid nginx.pid;
error_log error.log;
events { worker_connections 768; }
http {
    access_log access.log;   # keep this
    client_body_temp_path tmp;
    proxy_temp_path tmp;
    fastcgi_temp_path tmp;
    uwsgi_temp_path tmp;
    scgi_temp_path tmp;

    include sites-enabled/*;
}
"""


def _end(pid: int | None, program: str) -> None:
    """End a server by its process id: its own command needs a configuration that is valid."""
    if pid is None or program_of(pid) != program:
        return
    for number, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, 20)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if wait_until(lambda: not is_alive(pid), patience):
            return


class PrivateNginx:
    """The files of an nginx of its own below `directory`; it is started through the agent, or by `start`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "nginx"
        (self.directory / "sites-enabled").mkdir(parents=True)
        self.main = self.directory / "nginx.conf"
        self.main.write_text(NGINX_CONF)
        self.upstreams = self.directory / "app-servers.include"
        self.proxies = self.directory / "proxies.include"

    @property
    def settings(self) -> str:
        return f'[nginx]\nconfig_dir = "{self.directory}"\n'

    def command(self, *arguments: str) -> list[str]:
        return ["nginx", "-p", str(self.directory), "-c", str(self.main), *arguments]

    def start_confined(self) -> None:
        """Start it without what lets root into everybody's directories: its test, run by others, goes everywhere."""
        confined = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"]
        subprocess.run([*confined, *self.command()], check=True, capture_output=True, timeout=60)

    def make_closed_directory(self, name: str) -> Path:
        """Make a directory that is somebody else's and closed to one that was started so, not to its test."""
        made = self.directory / name
        made.mkdir(mode=0o700)
        os.chown(made, 12345, 12345)
        return made

    def is_valid(self) -> bool:
        return subprocess.run(self.command("-t", "-q"), capture_output=True).returncode == 0

    def master(self) -> int | None:
        try:
            return int((self.directory / "nginx.pid").read_text())
        except (OSError, ValueError):
            return None

    def files(self) -> dict[str, str]:
        """Every configuration file and link with what it holds."""
        found = {}
        for path in sorted(self.directory.rglob("*")):
            inside = path.relative_to(self.directory)
            if path.is_file() and path.suffix not in (".log", ".pid") and "tmp" not in inside.parts:
                found[str(inside)] = path.read_text()
        return found

    def stop(self) -> None:
        """End it, also where a test has lost its pid file."""
        _end(self.master(), "nginx")
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                title = title_of(int(entry.name))
                if title.startswith("nginx: master process") and f" {self.directory}/nginx.conf" in title:
                    _end(int(entry.name), "nginx")


class PrivateApache:
    """A copy of Debian's Apache configuration below `directory`, on free ports."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "apache2"
        self.port = free_port()
        shutil.copytree("/etc/apache2", self.directory, symlinks=True)
        for name in ("ssl.load", "ssl.conf", "socache_shmcb.load"):
            (self.directory / "mods-enabled" / name).unlink(missing_ok=True)
        for site in (self.directory / "sites-enabled").iterdir():
            site.unlink()
        (self.directory / "ports.conf").write_text(f"Listen {self.port}\n")
        self.main = self.directory / "apache2.conf"
        self.main.write_text(self.main.read_text() + "\nServerName localhost\n")
        run = directory / "apache-run"
        run.mkdir()
        self.logs = run
        (self.directory / "envvars").write_text(
            f"export APACHE_RUN_USER=www-data APACHE_RUN_GROUP=www-data APACHE_PID_FILE={run}/apache2.pid "
            f"APACHE_RUN_DIR={run} APACHE_LOCK_DIR={run}/lock APACHE_LOG_DIR={run} LANG=C\n"
        )

    @property
    def settings(self) -> str:
        return f'[apache]\nconfig_dir = "{self.directory}"\n'

    def control(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "APACHE_CONFDIR": str(self.directory)}
        return subprocess.run(["apache2ctl", *arguments], capture_output=True, text=True, env=environment)

    def is_valid(self) -> bool:
        return self.control("-t").returncode == 0

    def parent(self) -> int | None:
        try:
            return int((self.logs / "apache2.pid").read_text())
        except (OSError, ValueError):
            return None

    def stop(self) -> None:
        _end(self.parent(), "apache2")


@contextmanager
def backend(text: str) -> Iterator[int]:
    """A backend that answers with a text; gives its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = f"{text} {self.headers['Host']} {self.headers.get('X-Forwarded-Proto', '-')}".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fetch(port: int, host: str, path: str = "/", *, tls: bool = False, address: str = "127.0.0.1") -> tuple[int, str]:
    """Get a page of a virtual host; gives status and text."""
    if tls:
        context = ssl._create_unverified_context()
        connection: HTTPConnection = HTTPSConnection(address, port, timeout=60, context=context)
        raw = socket.create_connection((address, port), 60)
        connection.sock = context.wrap_socket(raw, server_hostname=host)
    else:
        connection = HTTPConnection(address, port, timeout=60)
    try:
        connection.request("GET", path, headers={"Host": host, "Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode() or (answer.headers.get("Location") or "")
    finally:
        connection.close()


def make_certificate(directory: Path, identity: str, name: str, days: int = 30) -> None:
    """Make a self-signed certificate of the local environment."""
    directory.mkdir(parents=True, exist_ok=True)
    subject = ["-subj", f"/CN={name}", "-days", str(days)]
    files = ["-keyout", str(directory / f"{identity}.key"), "-out", str(directory / f"{identity}.crt")]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subprocess.run([*command, *files, *subject], check=True, capture_output=True)
