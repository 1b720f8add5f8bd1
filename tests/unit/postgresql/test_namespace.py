"""The namespace on a host without PostgreSQL."""

from pathlib import Path

import pytest

from running_agent import RunningAgent
from scalarizr.client import AgentError


def test_where_there_is_no_postgresql_the_methods_are_described_and_say_so(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for tree in ("proc", "sys"):
        (root / tree).symlink_to(f"/{tree}")
    with RunningAgent(tmp_path, paths=f'root = "{root}"\n') as agent, agent.client() as api:
        described = api.rpc.discover()["methods"]
        assert {"postgresql.reset_password", "postgresql.create_databundle"} <= {one["name"] for one in described}
        for method in ("reset_password", "replication_status", "start_service", "get_service_status"):
            with pytest.raises(AgentError, match="No PostgreSQL cluster was found") as caught:
                api.call(f"postgresql.{method}")
            assert caught.value.code == -32019
