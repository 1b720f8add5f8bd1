"""`GET /metrics` of a running agent: off by default, for this host alone, read by Prometheus and shown by Grafana."""

import http.client
import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from running_agent import RunningAgent, free_port
from scalarizr.client import AgentError

ROOT = Path(__file__).parents[2]
MakeAgent = Callable[[str], RunningAgent]


def page(port: int, path: str = "/metrics", verb: str = "GET") -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(verb, path)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, answer.headers.get("Content-Type", ""), text


def figures(port: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    status, kind, text = page(port)
    assert status == 200 and kind.startswith("application/openmetrics-text; version=1.0.0")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def watched(make_trial_agent: MakeAgent) -> Iterator[tuple[RunningAgent, int]]:
    port = free_port()
    yield make_trial_agent(f'[metrics]\nlisten = "127.0.0.1:{port}"\n').start(), port


def test_it_counts_calls_errors_refusals_and_operations(watched: tuple[RunningAgent, int]) -> None:
    agent, port = watched
    with agent.client() as api:
        for _ in range(3):
            api.trial.types(number=1)
        for name in ("trial.nothing", "nowhere.nothing", "x" * 90):
            with pytest.raises(AgentError):
                api.call(name)
        with pytest.raises(AgentError):
            api.trial.types(number="x")
        api.trial.work(name="one")
        assert page(agent.port, "/trial", "POST")[0] == 400
    read = figures(port)
    types, unknown = ("method", "trial.types"), ("method", "unknown")
    assert read["scalarizr_call_duration_seconds_count", (types,)] == 4
    assert read["scalarizr_call_errors_total", (("code", "-32602"), types)] == 1
    assert read["scalarizr_call_duration_seconds_count", (unknown,)] == 3
    assert read["scalarizr_messages_refused_total", (("reason", "signature"),)] == 1
    assert read["scalarizr_operations_total", (("method", "trial.work"), ("status", "completed"))] == 1
    assert read["scalarizr_operations_running", ()] == 0
    assert 10e6 < read["process_resident_memory_bytes", ()] < 500e6


def test_nothing_else_is_answered_there(watched: tuple[RunningAgent, int]) -> None:
    _agent, port = watched
    assert page(port, "/system", "POST")[0] == 404
    assert page(port, "/metrics", "POST")[0] == 405
    assert page(port, "/healthz")[0] == 404


def test_it_is_off_unless_it_is_asked_for(shared_agent: RunningAgent) -> None:
    assert page(shared_agent.port)[0] == 404


@pytest.mark.parametrize("listen", ["0.0.0.0:9810", "[::]:9810", "10.0.0.1:9810", "localhost:9810"])
def test_an_address_that_others_reach_stops_the_start(tmp_path: Path, listen: str) -> None:
    agent = RunningAgent(tmp_path, f'[metrics]\nlisten = "{listen}"\n').start(wait=False)
    assert agent.process is not None and agent.process.stdout is not None
    said = agent.process.stdout.read().decode()
    assert agent.process.wait(60) != 0
    assert "[metrics]" in said and listen in said and "loopback" in said and "Traceback" not in said
    agent.process.stdout.close()
    agent.process = None


def names_in_the_dashboard() -> set[str]:
    dashboard = json.loads((ROOT / "packaging" / "grafana" / "scalarizr.json").read_text())
    text = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    return set(re.findall(r"\b((?:scalarizr|process)_\w+)", text))


def test_the_dashboard_asks_for_figures_that_there_are(watched: tuple[RunningAgent, int]) -> None:
    _agent, port = watched
    text = page(port)[2]
    declared = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    asked = {re.sub(r"_(total|bucket|count|sum|info)$", "", name) for name in names_in_the_dashboard()}
    assert len(asked) >= 8 and asked - declared == set()


def test_prometheus_reads_it_and_answers_what_the_dashboard_asks(
    watched: tuple[RunningAgent, int], tmp_path: Path
) -> None:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("LEFT OUT: prometheus is not installed")
    agent, port = watched
    own = free_port()
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: scalarizr, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]\n"
    )
    place = f"127.0.0.1:{own}"
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={tmp_path}/data",
                f"--web.listen-address={place}",
            ],
            stdout=log,
            stderr=log,
        )
    try:

        def ask(expression: str) -> list[object]:
            url = f"http://{place}/api/v1/query?query={urllib.parse.quote(expression)}"
            with urllib.request.urlopen(url, timeout=60) as answer:
                said = json.loads(answer.read())
            assert said["status"] == "success"
            return list(said["data"]["result"])

        deadline = time.monotonic() + 120
        while True:
            assert time.monotonic() < deadline and process.poll() is None, (tmp_path / "prometheus.log").read_text()
            with agent.client() as api:
                api.trial.types(number=1)
            try:
                if ask('rate(scalarizr_call_duration_seconds_count{method="trial.types"}[1m]) > 0'):
                    break
            except OSError:
                pass
            time.sleep(0.5)
        assert ask('up{job="scalarizr"} == 1')
        dashboard = json.loads((ROOT / "packaging" / "grafana" / "scalarizr.json").read_text())
        without_answer = {
            panel["title"]
            for panel in dashboard["panels"]
            for target in panel["targets"]
            if not ask(target["expr"].replace("$instance", ".*"))
        }
        # Nothing of that has happened to this agent.
        assert without_answer <= {
            "Errors a second, by method and code",
            "Messages refused a second, by reason",
            "Operations that ended, an hour",
            "Changes that wait for a confirmation",
            "Changes of configuration in the history",
        }
    finally:
        process.terminate()
        process.wait(60)
