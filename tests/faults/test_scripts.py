"""Scripts under fire: agent, worker and keeper killed, disks full, programs that do not want to end."""

import base64
import contextlib
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from running_agent import RunningAgent
from scalarizr.client import AgentError, Client, Operation
from scalarizr.host.processes import is_alive, wait_until
from script_calls import pid_in, sh, started


@pytest.fixture
def agent(tmp_path: Path, bodies: Path) -> Iterator[RunningAgent]:
    with RunningAgent(tmp_path, f'[system]\nscript_dir = "{bodies}"\n') as running:
        yield running


def ends(*pids: int) -> bool:
    return wait_until(lambda: not any(map(is_alive, pids)), 30)


def empty(directory: Path) -> bool:
    return wait_until(lambda: list(directory.iterdir()) == [], 30)


def at_work(client: Client, directory: Path, **given: Any) -> tuple[Operation, int, int]:
    """Run a script that waits, with a daemon in a session of its own; gives their processes."""
    main, daemon = directory / "main", directory / "daemon"
    operation = started(
        client,
        sh(
            f"(setsid sh -c 'echo $$ > {daemon}; exec sleep 600' &); echo $$ > {main}; echo at it; exec sleep 600",
            execution_id="s",
            **given,
        ),
        sh(f"touch {directory}/second"),
    )
    pid_in(daemon)
    assert wait_until(lambda: "job: at it" in operation.record().logs, 30), "it is in the log, too, by then"
    return operation, pid_in(main), pid_in(daemon)


def keeper_of(main: int) -> psutil.Process:
    keeper = psutil.Process(main).parent()
    assert keeper is not None and any("script_keeper" in word for word in keeper.cmdline())
    return keeper


def worker_of(main: int) -> psutil.Process:
    worker = keeper_of(main).parent()
    assert worker is not None and "scalarizr.worker" in worker.cmdline()
    return worker


def log_of(agent: RunningAgent) -> str:
    return next((agent.logs / "scripting").glob("*.s-out.log")).read_text()


def test_a_killed_agent_leaves_the_script_at_work_and_the_next_one_has_its_result(
    agent: RunningAgent, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    with agent.client() as client:
        operation = started(
            client, sh(f"echo $$ > {tmp_path}/main; cat {go}; exit 3", execution_id="s"), sh(f"touch {tmp_path}/second")
        )
        main = pid_in(tmp_path / "main")
        agent.kill()
    assert is_alive(main)
    with agent.start().client() as client:
        assert client.operation.result(operation_id=operation.id)["status"] == "in-progress"
        go.write_text("word\n")
        assert ends(main)
        record = wait_until_finished(client, operation)
        assert record["status"] == "completed"
        assert [one["return_code"] for one in record["result"]] == [3, 0]
    assert (tmp_path / "second").exists() and log_of(agent) == "word\n"


def wait_until_finished(client: Client, operation: Operation) -> Any:
    found: list[Any] = []

    def finished() -> bool:
        found[:] = [client.operation.result(operation_id=operation.id)]
        return found[0]["finished_at"] is not None

    assert wait_until(finished, 60)
    return found[0]


def failed_with_nothing_left(
    agent: RunningAgent, client: Client, operation: Operation, processes: list[int], bodies: Path
) -> Any:
    """Wait for the end of an operation whose script is gone with all that it started; gives its record."""
    assert ends(*processes) and empty(bodies)
    record = wait_until_finished(client, operation)
    assert record["status"] == "failed" and log_of(agent) == "at it\n"
    return record


def test_a_killed_worker_takes_the_script_with_it_and_its_output_stays(
    agent: RunningAgent, tmp_path: Path, bodies: Path
) -> None:
    with agent.client() as client:
        operation, *processes = at_work(client, tmp_path)
        worker_of(processes[0]).kill()
        record = failed_with_nothing_left(agent, client, operation, processes, bodies)
        assert record["error_code"] == -32015 and not (tmp_path / "second").exists()


def test_a_killed_keeper_takes_the_script_with_it_and_the_operation_says_so(
    agent: RunningAgent, tmp_path: Path, bodies: Path
) -> None:
    with agent.client() as client:
        operation, *processes = at_work(client, tmp_path)
        keeper_of(processes[0]).kill()
        record = failed_with_nothing_left(agent, client, operation, processes, bodies)
        assert "watched over the script job" in record["error"] and not (tmp_path / "second").exists()


def test_what_keepers_left_that_were_killed_with_their_workers_is_cleaned_up(
    agent: RunningAgent, tmp_path: Path, bodies: Path
) -> None:
    with agent.client() as client:
        operation, main, _daemon = at_work(client, tmp_path)
        both = [worker_of(main), keeper_of(main)]
        both[0].suspend()  # so that it does not clean up after the other one
        both[1].kill()
        both[0].kill()
        assert ends(main)
        wait_until_finished(client, operation)
        assert empty(bodies), "the agent does what the worker noted"
        abandoned = bodies / "old"
        abandoned.mkdir()
        os.utime(abandoned, (0, 0))
        client.system.execute_scripts(scripts=[sh("true")])
        assert not abandoned.exists()


def kills_at_random_instants(agent: RunningAgent, directory: Path, bodies: Path, seed: int, rounds: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    with agent.client() as client:
        for number in range(rounds):
            daemon = directory / f"daemon-{number}"
            text = f"(setsid sh -c 'echo $$ > {daemon}; exec sleep 600' &); echo at it; exec sleep 600"
            operation = started(client, sh(text, execution_id=f"round-{number}"))
            time.sleep(chance.uniform(0, 1.2))
            victims = chance.choice([("worker",), ("keeper",), ("worker", "keeper")])
            for process in processes_of(agent, operation):
                if any(is_a(process, victim) for victim in victims):
                    process.kill()
            if processes_of(agent, operation):
                operation.cancel()
            assert wait_until_finished(client, operation)["status"] in ("failed", "canceled")
            assert wait_until(lambda file=daemon: not file.exists() or not is_alive(int(file.read_text() or 0)), 30)
            assert not bodies.exists() or empty(bodies), number


def processes_of(agent: RunningAgent, operation: Operation) -> list[psutil.Process]:
    """Give the worker of an operation and its keeper."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for worker in psutil.Process(agent.pid()).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if operation.id in worker.cmdline():
                    found += [worker, *(one for one in worker.children() if is_a(one, "keeper"))]
    return found


def is_a(process: psutil.Process, kind: str) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return {"worker": "scalarizr.worker", "keeper": "scalarizr.system.script_keeper"}[kind] in process.cmdline()
    return False


def test_whoever_is_killed_at_a_random_instant_nothing_is_left(
    agent: RunningAgent, tmp_path: Path, bodies: Path
) -> None:
    kills_at_random_instants(agent, tmp_path, bodies, seed=20261128, rounds=6)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_whoever_is_killed_at_random_instants_again_and_again_nothing_is_left(
    agent: RunningAgent, tmp_path: Path, bodies: Path
) -> None:
    kills_at_random_instants(agent, tmp_path, bodies, seed=random.randrange(1 << 32), rounds=150)


def test_a_cancelled_worker_that_is_deaf_is_killed_with_the_script(tmp_path: Path, bodies: Path) -> None:
    settings = f'[system]\nscript_dir = "{bodies}"\n[operations]\ncancel_timeout = "1 s"\n'
    with RunningAgent(tmp_path / "agent", settings) as agent, agent.client() as client:
        operation, main, daemon = at_work(client, tmp_path)
        worker_of(main).suspend()
        operation.cancel()
        assert ends(main, daemon) and empty(bodies)
        assert wait_until_finished(client, operation)["status"] == "canceled"


def test_a_script_whose_processes_replace_each_other_all_the_time_comes_to_its_end(
    agent: RunningAgent, tmp_path: Path, bodies: Path
) -> None:
    began = tmp_path / "began"
    text = (
        "#!/usr/bin/env python3\n"
        "import os, signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(began)!r}, 'w').close()\n"
        "if os.fork():\n"
        "    signal.pause()\n"
        "while True:\n"
        "    os._exit(0) if os.fork() else os.setsid()\n"
    )
    with agent.client() as client:
        for limit in (2, 10, 50):  # a slow machine gets another try
            (result,) = client.system.execute_scripts(scripts=[{"name": "job", "body": text, "timeout": limit}])
            if began.exists():
                break
        assert began.exists() and result["timed_out"]
        assert not [
            one for one in psutil.process_iter(["cmdline"]) if str(bodies) in " ".join(one.info["cmdline"] or ())
        ]


@pytest.mark.root
def test_a_full_disk_stops_the_log_and_not_the_script(tmp_path: Path, bodies: Path) -> None:
    agent = RunningAgent(tmp_path, f'[system]\nscript_dir = "{bodies}"\n')
    logs = agent.logs / "scripting"
    logs.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", logs], check=True)
    try:
        with agent, agent.client() as client:
            text = f"head -c 200000 /dev/zero | tr '\\0' x; echo words >&2; touch {tmp_path}/end; exit 5"
            (result,) = client.system.execute_scripts(scripts=[sh(text, execution_id="s")])
            assert result["return_code"] == 5 and (tmp_path / "end").exists()
            assert 0 < len(log_of(agent)) <= 65536
    finally:
        subprocess.run(["umount", logs], check=True)


@pytest.mark.root
def test_where_no_log_can_be_made_no_script_runs(tmp_path: Path, bodies: Path) -> None:
    agent = RunningAgent(tmp_path, f'[system]\nscript_dir = "{bodies}"\n')
    logs = agent.logs / "scripting"
    logs.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", logs], check=True)
    try:
        with agent, agent.client() as client:
            with pytest.raises(AgentError, match="No script was started") as caught:
                client.system.execute_scripts(scripts=[sh(f"touch {tmp_path}/ran")])
            assert caught.value.code == -32018 and not (tmp_path / "ran").exists()
            assert base64.b64decode(client.system.get_script_logs(exec_script_id="s")["stdout"])
    finally:
        subprocess.run(["umount", logs], check=True)
