"""The asynchronous client against a real agent."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from running_agent import RunningAgent
from scalarizr.client import AgentError, AsyncClient, AuthenticationFailed, Unreachable


def test_calls_are_awaited(make_trial_agent: Callable[[str], RunningAgent]) -> None:
    agent = make_trial_agent('[api]\nidle_timeout = "1 s"').start()

    seen: list[str] = []

    async def use() -> None:
        for envelope in ("sealed", "founding"):
            async with AsyncClient(agent.url, key_file=agent.key_file, envelope=envelope) as api:
                assert len(await api.system.load_average()) == 3
                both = await asyncio.gather(api.system.uname(), api.trial.sleep(seconds=0.1, text="x"))
                assert both[0]["kernel_name"] == "Linux" and both[1] == "x"
                with pytest.raises(AgentError) as caught:
                    await api.system.nothing()
                assert caught.value.code == -32601
                seen.clear()
                operation = await api.trial.work(name="a", seconds=0.3, async_=True)
                result = await operation.wait(progress=lambda record: seen.append(record.status), timeout=90)
                assert result["name"] == "a" and seen[-1] == "completed"
                running = await api.trial.work(name="b", seconds=60, async_=True)
                await running.cancel()
                with pytest.raises(AgentError, match="cancelled"):
                    await running.wait()
                await asyncio.sleep(2.2)
                assert len(await api.system.load_average()) == 3, "the closed connection was made anew"

    asyncio.run(use())


def test_calls_that_are_made_at_once_go_over_connections_of_their_own(
    make_trial_agent: Callable[[str], RunningAgent],
) -> None:
    agent = make_trial_agent("").start()

    async def met(calls: int, connections: int, patience: float) -> list[bool]:
        async with AsyncClient(agent.url, key_file=agent.key_file, connections=connections) as api:
            gate = f"async-{connections}"
            return list(
                await asyncio.gather(*(api.trial.hold(gate=gate, count=calls, patience=patience) for _ in range(calls)))
            )

    assert asyncio.run(met(4, 16, 60)) == [True] * 4
    # Over one connection the second comes once the first has waited in vain.
    assert asyncio.run(met(2, 1, 0.5)) == [False, True]
    with agent.client() as client, ThreadPoolExecutor(4) as threads:
        assert (
            list(threads.map(lambda _: client.trial.hold(gate="threads", count=4, patience=60), "abcd")) == [True] * 4
        )


def test_what_goes_wrong_is_told() -> None:
    key = "HKjnlK/6PN2+u+c59JiUSaepOp4QfvBEM2vkWxRbrq/mS8+Ah1nOxg=="

    async def fail(url: str) -> None:
        async with AsyncClient(url, key=key, timeout=60) as api:
            await api.system.uname()

    with pytest.raises(Unreachable, match="cannot be reached"):
        asyncio.run(fail("http://127.0.0.1:1"))


def test_another_key_is_not_accepted(shared_agent: RunningAgent) -> None:
    key = "HKjnlK/6PN2+u+c59JiUSaepOp4QfvBEM2vkWxRbrq/mS8+Ah1nOxg=="

    async def fail() -> None:
        async with AsyncClient(shared_agent.url, key=key) as api:
            await api.system.uname()

    with pytest.raises(AuthenticationFailed):
        asyncio.run(fail())
