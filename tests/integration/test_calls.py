"""Calls to a real agent: dialects, parameters, time limits, resources, credentials."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from running_agent import RunningAgent
from scalarizr.client import AgentError, AuthenticationFailed, Client, Unreachable
from scalarizr.envelope.key import ServerKey
from scalarizr.host.processes import wait_until
from wire import ask, founding_request, sealed_request

KEY_TEXT = "planted-secret-8f3a71"


def call(agent: RunningAgent, path: str, text: bytes | str | dict[str, Any], *, founding: bool = False) -> Any:
    key = ServerKey.from_file(agent.key_file)
    make = founding_request if founding else sealed_request
    answer = ask(agent.port, make(key, path, text))
    return answer.opened(key) if answer.status == 200 else answer


def test_the_answer_has_the_dialect_of_the_question(trial_agent: RunningAgent) -> None:
    old = call(trial_agent, "/system", '{"method": "block_device", "params": {}, "id": 5}')
    assert old["error"]["data"] == "block_device; did you mean block_devices?" and "jsonrpc" not in old
    new = call(trial_agent, "/system", '{"jsonrpc": "2.0", "method": "block_device", "id": 5}')
    assert new["jsonrpc"] == "2.0" and new["id"] == 5
    assert new["error"] == {
        "code": -32601,
        "message": "Method not found",
        "data": {"method": "block_device", "nearest": "block_devices"},
    }


def test_errors_of_the_founding_dialect_carry_text_or_null(trial_agent: RunningAgent) -> None:
    for text in ("{", '{"method": "x"}', '{"method": "types", "params": {"number": []}, "id": 1}'):
        error = call(trial_agent, "/trial", text, founding=True)["error"]
        assert error["data"] is None or isinstance(error["data"], str)
        assert set(error) == {"code", "message", "data"}


def test_a_batch_is_answered_in_order_without_its_notifications(trial_agent: RunningAgent) -> None:
    batch = (
        '[{"jsonrpc": "2.0", "method": "types", "params": {"number": 1}, "id": 1}, 5,'
        ' {"jsonrpc": "2.0", "method": "types", "params": {}},'
        ' {"jsonrpc": "2.0", "method": "sleep", "params": {"seconds": 0, "text": "x"}, "id": "b"},'
        ' {"method": "types", "params": {}, "id": 9}]'
    )
    answers = call(trial_agent, "/trial", batch)
    assert [answer.get("id") for answer in answers] == [1, None, "b", 9]
    assert [answer.get("error", {}).get("code") for answer in answers] == [None, -32600, None, -32600]
    assert all(answer["jsonrpc"] == "2.0" for answer in answers)


def test_a_notification_is_answered_by_204_and_nothing_else(trial_agent: RunningAgent) -> None:
    for text in (
        '{"jsonrpc": "2.0", "method": "command", "params": {"note": "told"}}',
        '[{"jsonrpc": "2.0", "method": "types"}, {"jsonrpc": "2.0", "method": "nothing"}]',
    ):
        answer = call(trial_agent, "/trial", text)
        assert answer.status == 204 and answer.body == b"" and "content-length" not in answer.headers
    assert "end told" in (trial_agent.state / "commands").read_text()


def test_parameters_come_by_name_by_position_and_as_php_sends_them(trial_agent: RunningAgent) -> None:
    with trial_agent.client() as client:
        assert client.call("trial.types", flag="1", number="42", names={"1": "b", "0": "a"}) == [
            True,
            42,
            0.0,
            ["a", "b"],
            None,
            None,
        ]
    by_position = call(trial_agent, "/trial", '{"method": "types", "params": [1, "7"], "id": 1}')
    assert by_position["result"][:2] == [True, 7]


@pytest.mark.parametrize(
    ("params", "parameter"),
    [
        ('{"flag": 2}', "flag"),
        ('{"names": ["a", 5]}', "names[1]"),
        ('{"pair": ["a"]}', "pair"),
        ('{"nummber": 1}', "nummber"),
        ('{"_dry_run": "maybe"}', "_dry_run"),
        ('{"_platform_access_data": "x"}', "_platform_access_data"),
        ("[1, 2, 3, 4, 5, 6, 7]", "params"),
    ],
)
def test_a_wrong_parameter_is_named(trial_agent: RunningAgent, params: str, parameter: str) -> None:
    answer = call(trial_agent, "/trial", f'{{"jsonrpc": "2.0", "method": "types", "params": {params}, "id": 1}}')
    assert answer["error"]["code"] == -32602 and answer["error"]["data"]["parameter"] == parameter


def test_a_dry_run_of_what_knows_none_is_refused(trial_agent: RunningAgent) -> None:
    for params in ({"_dry_run": True}, {"_confirm_within": 60}):
        answer = call(trial_agent, "/trial", {"method": "command", "params": params, "id": 1})
        assert answer["error"]["code"] == -32013
    assert not (trial_agent.state / "commands").exists()


def test_a_method_that_takes_too_long_is_given_up_and_others_are_not_held_up(trial_agent: RunningAgent) -> None:
    with trial_agent.client() as client, trial_agent.client() as other:
        with pytest.raises(AgentError) as caught:
            client.call("trial.too_slow", seconds=1)
        assert caught.value.code == -32016

        def wait() -> None:
            with trial_agent.client() as waiting:
                waiting.call("trial.hold", gate="a")

        threads = [threading.Thread(target=wait) for _ in range(5)]
        for thread in threads:
            thread.start()
        trial_agent.waiting_at("a", 5)
        for _ in range(20):
            other.call("system.load_average")
        assert all(thread.is_alive() for thread in threads)
        trial_agent.open_gate("a")
        for thread in threads:
            thread.join()


def test_commands_on_one_resource_wait_for_each_other(trial_agent: RunningAgent) -> None:
    def run(note: str) -> None:
        with trial_agent.client() as client:
            client.call("trial.command", seconds=0.1, note=note)

    threads = [threading.Thread(target=run, args=[f"n{number}"]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (trial_agent.state / "commands").read_text().splitlines()
    assert len(lines) == 12
    for begin, end in zip(lines[::2], lines[1::2], strict=True):
        assert begin.replace("begin", "end") == end


def test_platform_access_is_seen_by_its_own_request_alone(trial_agent: RunningAgent) -> None:
    with trial_agent.client() as client:
        assert client.call("trial.access", _platform_access_data={"key": "a", "other": 1}) == ["key", "other"]
        assert client.call("trial.access") == []
        assert client.call("trial.access", _platform_access_data=[]) == []


def test_no_secret_reaches_an_answer_or_a_file(trial_agent: RunningAgent) -> None:
    access = {"key_id": f"{KEY_TEXT}-id", "key": KEY_TEXT, "proxy": {"pass": f"{KEY_TEXT}-proxy"}}
    texts = [
        {"method": "fail", "params": {"how": "bug", "password": KEY_TEXT, "_platform_access_data": access}, "id": 1},
        {"method": "fail", "params": {"how": "cloud", "password": KEY_TEXT, "_platform_access_data": access}, "id": 2},
        {"method": "fail", "params": {"password": [KEY_TEXT], "_platform_access_data": access}, "id": 3},
        {"method": "fail", "params": {"password": {"x": KEY_TEXT}, "unknown": KEY_TEXT}, "id": 4},
        {"method": "fail", "params": {"_platform_access_data": KEY_TEXT}, "id": 5},
        {"method": "nothing", "params": {"password": KEY_TEXT, "_platform_access_data": access}, "id": 6},
        {"method": "work", "params": {"name": "w1", "secret": KEY_TEXT, "_platform_access_data": access}, "id": 7},
        {"method": "work", "params": {"name": "w2", "secret": KEY_TEXT, "how": "bug"}, "id": 8},
        {"method": "work", "params": {"name": "w3", "secret": KEY_TEXT, "how": "refuse"}, "id": 9},
        {"method": "work", "params": {"name": "w4", "secret": KEY_TEXT, "how": "die"}, "id": 10},
    ]
    key = ServerKey.from_file(trial_agent.key_file)
    for text in texts:
        for make in (founding_request, sealed_request):
            opened = ask(trial_agent.port, make(key, "/trial", text)).opened_text(key)
            assert KEY_TEXT.encode() not in opened and b"Traceback" not in opened, opened
    with trial_agent.client() as client:
        assert KEY_TEXT not in str(client.call("operation.list"))
    key_text = trial_agent.key_file.read_text().strip()
    log = trial_agent.wait_for_log("a bug that speaks of")
    assert "******" in log, "the log explains the bug, without the secret"
    trial_agent.stop()
    for path in [*trial_agent.state.rglob("*"), *trial_agent.logs.rglob("*")]:
        if path.is_file():
            content = path.read_bytes()
            assert KEY_TEXT.encode() not in content, path
            assert key_text.encode() not in content and key_text.encode()[:20] not in content, path
            assert path.stat().st_mode & 0o077 == 0, path


def test_the_log_tells_who_called_what_and_how_it_ended(trial_agent: RunningAgent) -> None:
    call(trial_agent, "/system", {"method": "load_average", "params": {}, "id": 1})
    call(trial_agent, "/system", {"method": "no\nsuch", "params": {}, "id": 1})
    call(trial_agent, "/trial", {"method": "sleep", "params": {"seconds": 0, "text": "shown"}, "id": 1})
    lines = trial_agent.wait_for_log("call method=trial.sleep").splitlines()
    good = next(line for line in lines if "method=system.load_average" in line)
    assert "from=127.0.0.1" in good and "took=" in good and good.endswith("ok") and " request=" in good
    assert any("method=system.no\\nsuch" in line and "error=-32601" in line for line in lines)
    identity = (
        next(line for line in lines if "method=trial.sleep" in line and "call" in line).split("request=")[1].split()[0]
    )
    assert any(f"request={identity} params method=trial.sleep" in line and "shown" in line for line in lines)


def test_discovery_describes_every_method(trial_agent: RunningAgent) -> None:
    with trial_agent.client() as client:
        document = client.call("rpc.discover")
        methods = {method["name"]: method for method in document["methods"]}
        assert document["openrpc"].startswith("1.3") and document["x-aliases"] == {
            "app": "apache",
            "www": "nginx",
            "sysinfo": "system",
        }
        assert len([name for name in methods if name.startswith("system.")]) == 22
        work = methods["trial.work"]
        assert {parameter["name"] for parameter in work["params"]} >= {"name", "async", "secret"}
        assert work["x-kind"] == "operation"
        hostname = client.call("rpc.describe", name="sysinfo.set_hostname")
        assert hostname["name"] == "system.set_hostname"
        assert {"_dry_run"} <= {parameter["name"] for parameter in hostname["params"]}
        assert all(method["summary"] for name, method in methods.items() if not name.startswith("trial."))


def test_a_client_with_another_key_or_without_an_agent_says_so(trial_agent: RunningAgent, tmp_path: Path) -> None:
    other_key = "HKjnlK/6PN2+u+c59JiUSaepOp4QfvBEM2vkWxRbrq/mS8+Ah1nOxg=="
    with Client(trial_agent.url, key=other_key) as client, pytest.raises(AuthenticationFailed):
        client.call("system.load_average")
    with Client("http://127.0.0.1:1", key_file=trial_agent.key_file) as client, pytest.raises(Unreachable):
        client.call("system.load_average")


def test_a_kept_connection_that_the_agent_closed_is_made_anew(make_trial_agent: Callable[[str], RunningAgent]) -> None:
    agent = make_trial_agent('[api]\nidle_timeout = "3 s"').start()
    process = psutil.Process(agent.pid())
    for envelope in ("sealed", "founding"):
        with agent.client(envelope=envelope) as client:
            client.call("system.load_average")
            kept = list(client._idle)
            client.call("system.load_average")
            assert client._idle == kept and len(kept) == 1, "it was used again"
            assert wait_until(lambda: not any(one.raddr for one in process.net_connections("tcp")), 60)
            assert len(client.call("system.load_average")) == 3


def test_an_answer_that_was_lost_is_told_and_the_call_is_not_made_twice(trial_agent: RunningAgent) -> None:
    """Somebody in between carries the first request over, and breaks the connection before its answer."""
    with socket.create_server(("127.0.0.1", 0)) as between:

        def carry() -> None:
            for loses in (True, False):
                near, _ = between.accept()
                with near, socket.create_connection(("127.0.0.1", trial_agent.port)) as far:
                    for turn in range(2 if loses else 1):
                        far.sendall(near.recv(65536))
                        answer = far.recv(65536)
                        if turn == 0:
                            near.sendall(answer)

        carrier = threading.Thread(target=carry)
        carrier.start()
        url = f"http://127.0.0.1:{between.getsockname()[1]}"
        with Client(url, key_file=trial_agent.key_file) as client:
            client.call("trial.command", note="first")
            with pytest.raises(Unreachable, match="its answer was lost"):
                client.call("trial.command", note="second")
        carrier.join()
    assert (trial_agent.state / "commands").read_text().count("end second") == 1


def test_after_a_kill_old_messages_are_refused_and_the_client_tries_again(trial_agent: RunningAgent) -> None:
    key = ServerKey.from_file(trial_agent.key_file)
    message = founding_request(key, "/system", {"method": "load_average", "params": {}, "id": 1})
    assert ask(trial_agent.port, message).status == 200
    trial_agent.kill()
    trial_agent.start()
    answer = ask(trial_agent.port, message)
    assert answer.status == 400 and b"sign it again" in answer.body
    with trial_agent.client() as client:
        assert len(client.call("system.load_average")) == 3


def test_a_clean_restart_remembers_what_was_accepted(trial_agent: RunningAgent) -> None:
    key = ServerKey.from_file(trial_agent.key_file)
    message = sealed_request(key, "/system", {"method": "load_average", "params": {}, "id": 1})
    assert ask(trial_agent.port, message).status == 200
    assert trial_agent.stop() == 0
    trial_agent.start()
    answer = ask(trial_agent.port, message)
    assert answer.status == 400 and answer.body.strip() == b"This request was seen before"
    assert (
        ask(trial_agent.port, sealed_request(key, "/system", {"method": "uname", "params": {}, "id": 1})).status == 200
    )
