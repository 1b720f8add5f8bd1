"""When nginx is started, reloaded or left alone by a change, through a real agent."""

import os
import signal
from pathlib import Path

import pytest

from agent_with_nginx import AgentWithNginx, refusal
from private_servers import backend, fetch
from scalarizr.host.processes import is_alive, wait_until

pytestmark = [pytest.mark.root, pytest.mark.nginx]


def test_without_a_reload_nginx_is_left_alone_until_one_is_asked_for(web: AgentWithNginx) -> None:
    with backend("late") as port:
        proxy = web.proxy("a.example.com", f"127.0.0.1:{port}")
        web.api.nginx.make_proxy(**proxy, reload_service=False)
        with pytest.raises(OSError):
            fetch(web.port, "a.example.com")
        web.api.nginx.make_proxy(**proxy)
        assert fetch(web.port, "a.example.com")[0] == 200


def test_a_stopped_nginx_is_started_by_a_change(web: AgentWithNginx) -> None:
    web.api.nginx.stop_service(reason="a test")
    assert web.api.nginx.get_service_status() == 3
    web.api.nginx.make_proxy(**web.proxy("a.example.com", "10.0.0.1"))
    assert web.api.nginx.get_service_status() == 0 and "a test" in web.agent.log_text()


def test_a_reload_that_fails_puts_the_old_files_and_the_old_service_back(web: AgentWithNginx) -> None:
    with backend("old") as port:
        web.api.nginx.make_proxy(**web.proxy("a.example.com", f"127.0.0.1:{port}"))
        files = web.nginx.files()
        # nginx's test opens this log as root and says yes; the running master may not.
        web.api.nginx.stop_service()
        web.nginx.start_confined()
        elsewhere = web.nginx.make_closed_directory("closed")
        templates = [{"content": f"access_log {elsewhere}/a.log;", "server": True}]
        proxy = web.proxy("b.example.com", "10.0.0.1", templates=templates)
        said = refusal(web.api.nginx.make_proxy, **proxy)
        assert "did not load the configuration" in said and "Everything was put back" in said
        assert web.nginx.files() == files and fetch(web.port, "a.example.com")[1].startswith("old")


def test_one_that_died_is_told_so_and_starts_again(web: AgentWithNginx) -> None:
    master = web.nginx.master()
    assert master is not None
    for child in Path(f"/proc/{master}/task/{master}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    os.kill(master, signal.SIGKILL)
    assert wait_until(lambda: not is_alive(master), 60)
    assert web.api.nginx.get_service_status() == 1
    web.api.nginx.start_service()
    assert web.api.nginx.get_service_status() == 0
