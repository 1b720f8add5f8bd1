"""A reload of a real nginx that does not come about: noticed in a moment, whatever its log is, and no sooner."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from private_servers import PrivateNginx, fetch
from running_agent import free_port
from scalarizr.errors import OutsideFailure
from scalarizr.nginx.program import NginxProgram
from scalarizr.settings.model import Nginx

pytestmark = [pytest.mark.root, pytest.mark.nginx]


class Setup:
    """A running nginx that listens on one port."""

    def __init__(self, directory: Path) -> None:
        self.nginx = PrivateNginx(directory)
        self.port = free_port()
        self.program = NginxProgram(Nginx(config_dir=self.nginx.directory))
        self.listen(self.port)

    def listen(self, *ports: int, more: str = "") -> None:
        listens = "".join(f"listen {port};" for port in ports)
        site = self.nginx.directory / "sites-enabled" / "site"
        site.write_text(f"server {{ {listens} {more} return 200 here; }}\n")

    def log_to(self, where: str) -> None:
        self.nginx.main.write_text(self.nginx.main.read_text().replace("error_log error.log;", where))


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    made = Setup(tmp_path)
    yield made
    made.nginx.stop()


@pytest.mark.parametrize(
    "where", ["", "error_log stderr;", "error_log /dev/null;", "error_log syslog:server=unix:/none;"]
)
def test_a_refusal_is_noticed_without_a_log_that_can_be_read(setup: Setup, where: str) -> None:
    setup.log_to(where)
    setup.program.start()
    master = setup.program.master()
    began = time.monotonic()
    setup.program.reload()
    assert fetch(setup.port, "x") == (200, "here")
    setup.listen(setup.port, more="nonsense on;")
    with pytest.raises(OutsideFailure, match=r'did not load the configuration: .*unknown directive "nonsense"'):
        setup.program.reload()
    assert time.monotonic() - began < 60
    assert setup.program.master() == master and fetch(setup.port, "x") == (200, "here")
    setup.listen(setup.port)
    setup.program.reload()


def test_a_port_that_becomes_free_meanwhile_is_no_refusal(setup: Setup) -> None:
    setup.program.start()
    other = free_port()
    held = socket.socket()
    held.bind(("0.0.0.0", other))
    held.listen()
    setup.listen(setup.port, other)
    log = setup.nginx.directory / "error.log"

    def let_go_at_the_first_complaint() -> None:
        deadline = time.monotonic() + 60
        while f":{other} failed" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.005)
        held.close()

    watcher = threading.Thread(target=let_go_at_the_first_complaint)
    watcher.start()
    setup.program.reload()
    watcher.join()
    assert f"bind() to 0.0.0.0:{other} failed" in log.read_text()
    assert fetch(other, "x") == fetch(setup.port, "x") == (200, "here")


def test_a_port_that_stays_held_is_a_refusal_in_nginx_s_words(setup: Setup) -> None:
    setup.program.start()
    other = free_port()
    with socket.socket() as held:
        held.bind(("0.0.0.0", other))
        held.listen()
        setup.listen(setup.port, other)
        with pytest.raises(
            OutsideFailure, match=rf"bind\(\) to 0\.0\.0\.0:{other} failed \(98: Address already in use\)"
        ):
            setup.program.reload()
    assert fetch(setup.port, "x") == (200, "here")
