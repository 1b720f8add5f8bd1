"""An agent with an nginx of its own, and what its tests say in one word."""

import hashlib
from pathlib import Path

import pytest

from private_servers import PrivateNginx
from running_agent import RunningAgent, free_port
from scalarizr.client import AgentError, Client


class AgentWithNginx:
    """An agent with an nginx of its own, running."""

    def __init__(self, directory: Path, settings: str = "") -> None:
        self.nginx = PrivateNginx(directory)
        self.agent = RunningAgent(directory, self.nginx.settings + settings)
        self.environment = self.agent.etc / "environment"
        (self.environment / "certificates").mkdir(parents=True)
        self.agent.start()
        self.api: Client = self.agent.client(timeout=60)
        self.api.nginx.start_service()
        self.port = free_port()

    def close(self) -> None:
        self.api.close()
        self.nginx.stop()
        self.agent.stop()

    def proxy(self, hostname: str, *hosts: str, **more: object) -> dict[str, object]:
        backends = [{"host": host} for host in hosts]
        return {"hostname": hostname, "port": self.port, "backends": backends, **more}

    def statuses(self) -> list[str]:
        return [f"{change['method']} {change['status']}" for change in self.api.change.list()]


def sha1(name: str) -> str:
    return hashlib.sha1(name.encode()).hexdigest()


def refusal(call: object, **arguments: object) -> str:
    """What an error says, its data included."""
    with pytest.raises(AgentError) as caught:
        call(**arguments)  # type: ignore[operator]
    return f"{caught.value} {caught.value.data}"
