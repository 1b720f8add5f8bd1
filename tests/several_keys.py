"""What tests of an agent's several keys share: making keys, calling with them, the command line for them."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from running_agent import RunningAgent
from scalarizr.client import AgentError, Client
from scalarizr.envelope.key import ServerKey, make_key_text
from scalarizr.host.telling import have_settings_read
from wire import ask, sealed_request

REFUSED = b"Signature doesn't match\n"
NOT_ALLOWED = -32017


def key_path(agent: RunningAgent, identity: str) -> Path:
    return agent.key_file.with_name(identity)


def key_of(agent: RunningAgent, identity: str = "default") -> ServerKey:
    return ServerKey.from_file(key_path(agent, identity))


def give_key(agent: RunningAgent, identity: str, *allow: str, lines: str = "") -> None:
    """Make a key as a person does who edits the files."""
    path = key_path(agent, identity)
    if not path.exists():
        path.write_bytes(make_key_text())
        path.chmod(0o600)
    rules = agent.etc / "keys.toml"
    rules.touch(0o600)
    rules.write_text(f"{rules.read_text()}[{identity}]\nallow = {json.dumps(list(allow))}\n{lines}\n")


def read_again(agent: RunningAgent) -> list[str]:
    word = have_settings_read(agent.state, patience=60)
    assert word is not None
    return word.problems


def holder(agent: RunningAgent, identity: str, **options: Any) -> Client:
    return Client(agent.url, key_file=key_path(agent, identity), key_id=identity, timeout=60, **options)


def error_of(call: Callable[[], Any]) -> AgentError:
    with pytest.raises(AgentError) as caught:
        call()
    return caught.value


def post(agent: RunningAgent, identity: str, path: str, call: Any) -> Any:
    """Send a call by hand; gives the opened answer."""
    key = key_of(agent, identity)
    return ask(agent.port, sealed_request(key, path, json.dumps(call), kid=identity)).opened(key)


def modern(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}


def moment(second: float) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def raw(agent: RunningAgent, key: ServerKey, kid: Any) -> bytes:
    return sealed_request(key, "/system", modern("load_average"), kid=kid)


def command_in(etc: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "scalarizr", "--etc", str(etc), *words], capture_output=True, text=True, timeout=120
    )


def command(agent: RunningAgent, *words: str) -> "subprocess.CompletedProcess[str]":
    return command_in(agent.etc, *words)


def done(agent: RunningAgent, *words: str) -> Any:
    finished = command(agent, *words)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout) if finished.stdout.startswith(("{", "[")) else finished.stdout
