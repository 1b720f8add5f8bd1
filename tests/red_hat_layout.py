"""Red Hat's and nginx.org's arrangement of servers, with the programs that are installed here.

The files are those of tests/fixtures/{nginx,apache}/composed, in directories of their own and on free ports.
"""

import os
from abc import ABC, abstractmethod
from pathlib import Path

import pytest

from running_agent import RunningAgent, free_port
from scalarizr.client import AgentError, Client

COMPOSED = Path(__file__).parent / "fixtures"
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
