"""When nginx is started, reloaded or left alone by a change, through a real agent."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_with_nginx import AgentWithNginx, refusal
from private_servers import backend, fetch
from scalarizr.host.processes import is_alive, wait_until

pytestmark = [pytest.mark.root, pytest.mark.nginx]


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[AgentWithNginx]:
    made = AgentWithNginx(tmp_path)
    yield made
    made.close()


def test_without_a_reload_nginx_is_left_alone_until_one_is_asked_for(setup: AgentWithNginx) -> None:
    with backend("late") as port:
        proxy = setup.proxy("a.example.com", f"127.0.0.1:{port}")
        setup.api.nginx.make_proxy(**proxy, reload_service=False)
        with pytest.raises(OSError):
            fetch(setup.port, "a.example.com")
        setup.api.nginx.make_proxy(**proxy)
        assert fetch(setup.port, "a.example.com")[0] == 200


def test_a_stopped_nginx_is_started_by_a_change(setup: AgentWithNginx) -> None:
    setup.api.nginx.stop_service(reason="a test")
    assert setup.api.nginx.get_service_status() == 3
    setup.api.nginx.make_proxy(**setup.proxy("a.example.com", "10.0.0.1"))
    assert setup.api.nginx.get_service_status() == 0 and "a test" in setup.agent.log_text()


def test_a_reload_that_fails_puts_the_old_files_and_the_old_service_back(setup: AgentWithNginx) -> None:
    with backend("old") as port:
        setup.api.nginx.make_proxy(**setup.proxy("a.example.com", f"127.0.0.1:{port}"))
        files = setup.nginx.files()
        # nginx's test opens this log as root and says yes; the running master may not.
        setup.api.nginx.stop_service()
        setup.nginx.start_confined()
        elsewhere = setup.nginx.make_closed_directory("closed")
        templates = [{"content": f"access_log {elsewhere}/a.log;", "server": True}]
        proxy = setup.proxy("b.example.com", "10.0.0.1", templates=templates)
        said = refusal(setup.api.nginx.make_proxy, **proxy)
        assert "did not load the configuration" in said and "Everything was put back" in said
        assert setup.nginx.files() == files and fetch(setup.port, "a.example.com")[1].startswith("old")


def test_one_that_died_is_told_so_and_starts_again(setup: AgentWithNginx) -> None:
    master = setup.nginx.master()
    assert master is not None
    for child in Path(f"/proc/{master}/task/{master}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    os.kill(master, signal.SIGKILL)
    assert wait_until(lambda: not is_alive(master), 60)
    assert setup.api.nginx.get_service_status() == 1
    setup.api.nginx.start_service()
    assert setup.api.nginx.get_service_status() == 0
