"""Operations that change a real nginx, cancelled at any instant: what they say is how it is."""

import random
import time
from pathlib import Path
from typing import Any

import pytest

from private_servers import PrivateNginx, fetch
from running_agent import RunningAgent, free_port
from scalarizr.client import AgentError

pytestmark = [pytest.mark.root, pytest.mark.nginx]


def test_a_cancelled_change_is_undone_or_was_made_before(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    nginx = PrivateNginx(tmp_path)
    request.addfinalizer(nginx.stop)
    port = free_port()

    def proxies(answer: str) -> list[dict[str, Any]]:
        templates = [{"content": f"return 200 {answer};", "location": "/which"}]
        names = ["www.example.com", *(f"{number}.example.com" for number in range(200))]
        return [
            {"hostname": name, "port": port, "backends": [{"host": "127.0.0.1"}], "templates": templates}
            for name in names
        ]

    with RunningAgent(tmp_path, nginx.settings) as agent, agent.client(timeout=60) as api:
        present = "a"
        api.nginx.recreate_proxying(proxy_list=proxies(present))
        began = time.monotonic()
        api.nginx.reconfigure(proxies=proxies("first"), async_=True).wait()
        whole, present = time.monotonic() - began, "first"
        seen: list[str] = []
        # However fast this machine is: until a cancellation came in time, and ten times at least.
        while len(seen) < 10 or ("canceled" not in seen and len(seen) < 100):
            turn = len(seen)
            wanted = f"turn{turn}"
            operation = api.nginx.reconfigure(proxies=proxies(wanted), async_=True)
            time.sleep(chance.uniform(0, whole))
            operation.cancel()
            try:
                operation.wait()
            except AgentError:
                pass
            status = operation.record().status
            present = wanted if status == "completed" else present
            seen.append(status)
            assert fetch(port, "www.example.com", "/which")[1] == present, f"seed {seed}, turn {turn}, {status}"
            assert nginx.proxies.read_text().count(f"return 200 {present};") == 201 and nginx.is_valid()
            assert not list((agent.state / "changes" / "pending").iterdir())
        assert "canceled" in seen and set(seen) <= {"canceled", "completed"}
        print(f"{seen.count('canceled')} of {len(seen)} came in time; a whole change takes {whole:.2f} s")
