"""Several keys of one agent: each may call what it is allowed and sees nothing else, by whatever way it tries."""

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import with_test_methods
from running_agent import RunningAgent
from scalarizr.client import AuthenticationFailed
from scalarizr.envelope.key import ServerKey
from several_keys import NOT_ALLOWED, REFUSED, error_of, give_key, holder, key_of, key_path, modern, post, raw
from wire import Connection, ask, founding_message, http_post, sealed_message


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    """An agent with the test methods and keys for them, which no test here changes."""
    made = with_test_methods(tmp_path_factory.mktemp("keys"))
    give_key(made, "reader", "read-only")
    give_key(made, "worker", "trial.work", "operation.*", "change.*")
    give_key(made, "follower", "operation.*", "change.*", "system.get_log", "system.get_debug_log", "trial.sleep")
    give_key(made, "web", "www.*")
    give_key(made, "nothing")
    give_key(made, "elsewhere", "*", lines='from = ["10.0.0.0/8", "2001:db8::/32"]')
    give_key(made, "here", "*", lines='from = ["10.0.0.0/8", "127.0.0.0/8"]')
    give_key(made, "expired", "*", lines="expires = 2020-01-01T00:00:00Z")
    give_key(made, "off", "*", lines="enabled = false")
    with made as running:
        yield running


# Who is let in


@pytest.mark.parametrize("envelope", ["sealed", "founding"])
def test_a_key_calls_what_it_is_allowed_and_nothing_else(agent: RunningAgent, envelope: str) -> None:
    with holder(agent, "reader", envelope=envelope) as reader:
        assert len(reader.call("system.load_average")) == 3
        for method in ("system.set_hostname", "trial.command", "trial.work", "nginx.make_proxy", "operation.cancel"):
            error = error_of(lambda method=method: reader.call(method))  # type: ignore[misc]
            assert error.code == NOT_ALLOWED and str(error).startswith(f"This key may not call {method}.")
    with holder(agent, "nothing", envelope=envelope) as nothing:
        assert error_of(lambda: nothing.call("system.load_average")).code == NOT_ALLOWED
    assert not (agent.state / "commands").exists()


def test_the_default_key_is_the_one_that_needs_no_name(agent: RunningAgent) -> None:
    for options in ({}, {"key_id": "default"}, {"envelope": "founding"}, {"envelope": "founding", "key_id": "default"}):
        with agent.client(**options) as client:
            assert client.call("trial.sleep", seconds=0, text="x") == "x"


@pytest.mark.parametrize(
    "identity", ["expired", "elsewhere", "off", "unknown", "reader/../default", "keys/default", ""]
)
def test_a_key_that_is_not_accepted_meets_the_one_text(agent: RunningAgent, identity: str) -> None:
    with Connection(agent.port) as connection:
        known = key_path(agent, identity) if identity in ("expired", "elsewhere", "off") else agent.key_file
        key = ServerKey.from_file(known)
        answer = connection.ask(raw(agent, key, identity))
        assert (answer.status, answer.body) == (400, REFUSED)
        body, headers = founding_message(key, modern("load_average"))
        answer = connection.ask(http_post("/system", body, {**headers, "X-Key-Id": identity or "-"}))
        assert (answer.status, answer.body) == (400, REFUSED)


@pytest.mark.parametrize("kid", [None, 1, ["default"], {"id": "default"}, True])
def test_an_id_that_is_no_text_meets_the_one_text(agent: RunningAgent, kid: Any) -> None:
    answer = ask(agent.port, raw(agent, key_of(agent), kid))
    assert (answer.status, answer.body) == (400, REFUSED)


def test_two_ids_of_a_founding_message_meet_the_one_text(agent: RunningAgent) -> None:
    body, headers = founding_message(key_of(agent), modern("load_average"))
    request = http_post("/system", body, {**headers, "X-Key-Id": "default", "x-key-id": "default"})
    answer = ask(agent.port, request)
    assert (answer.status, answer.body) == (400, REFUSED)


def test_a_header_beside_a_sealed_message_meets_the_one_text(agent: RunningAgent) -> None:
    key = key_of(agent, "reader")
    for kid, header in (("reader", "reader"), ("reader", "default"), ("default", "reader")):
        body = sealed_message(key, "/system", modern("load_average"), kid=kid)
        answer = ask(agent.port, http_post("/system", body, {"Content-Type": "application/jose", "X-Key-Id": header}))
        assert (answer.status, answer.body) == (400, REFUSED)


def test_a_key_is_accepted_from_its_networks(agent: RunningAgent) -> None:
    with holder(agent, "here") as here:
        assert here.call("trial.sleep", seconds=0, text="x") == "x"


def test_an_address_that_a_proxy_names_is_nothing(agent: RunningAgent) -> None:
    body = sealed_message(key_of(agent, "elsewhere"), "/system", modern("load_average"), kid="elsewhere")
    headers = {"Content-Type": "application/jose", "X-Forwarded-For": "10.0.0.1", "Forwarded": "for=10.0.0.1"}
    answer = ask(agent.port, http_post("/system", body, headers))
    assert (answer.status, answer.body) == (400, REFUSED)


def test_the_log_tells_of_refusals_what_the_sender_may_not_know(agent: RunningAgent) -> None:
    ask(agent.port, raw(agent, key_of(agent, "expired"), "expired"))
    ask(agent.port, raw(agent, key_of(agent), "unknown"))
    ask(agent.port, raw(agent, key_of(agent, "elsewhere"), "elsewhere"))
    with holder(agent, "reader") as reader:
        error_of(lambda: reader.call("trial.command"))
    log = agent.wait_for_log("This key may not call trial.command")
    assert "key=expired verified=False reason=Signature doesn't match (the key has expired)" in log
    assert "key=- verified=False reason=Signature doesn't match (no such key)" in log
    assert "key=elsewhere verified=False reason=Signature doesn't match (the key is not accepted from this addr" in log
    assert "call method=trial.command from=127.0.0.1 key=reader envelope=sealed" in log and "error=-32017" in log


def test_a_client_with_a_wrong_id_is_not_authenticated(agent: RunningAgent) -> None:
    for envelope in ("sealed", "founding"):
        with agent.client(key_id="reader", envelope=envelope) as client, pytest.raises(AuthenticationFailed):
            client.call("system.load_average")
    with pytest.raises(ValueError, match="is no id of a key"):
        agent.client(key_id="a\r\nX-Evil: 1")


# Ways around


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/nginx", "make_proxy"),
        ("/www", "make_proxy"),
        ("/", "nginx.make_proxy"),
        ("/", "www.make_proxy"),
        ("/trial", "command"),
        ("/", "trial.command"),
        ("/system", "call_auth_shutdown_hook"),
        ("/sysinfo", "call_auth_shutdown_hook"),
        ("/", "sysinfo.call_auth_shutdown_hook"),
    ],
)
def test_no_other_spelling_of_a_method_is_allowed(agent: RunningAgent, path: str, method: str) -> None:
    canonical = (f"{path[1:]}.{method}" if path != "/" else method).replace("www.", "nginx.")
    canonical = canonical.replace("sysinfo.", "system.")
    for extra in ({}, {"_dry_run": True}, {"_confirm_within": 60}, {"_platform_access_data": {"key": "x"}}):
        error = post(agent, "reader", path, modern(method, **extra))["error"]
        assert error["code"] == NOT_ALLOWED and error["data"] == {"method": canonical}


@pytest.mark.parametrize(
    "method", ["Nginx.make_proxy", "nginx.make_proxy ", "nginx..make_proxy", "nginx.MAKE_PROXY", "nginx.make_proxy\0"]
)
def test_a_name_that_is_none_finds_nothing(agent: RunningAgent, method: str) -> None:
    assert post(agent, "web", "/", modern(method))["error"]["code"] in (-32601, NOT_ALLOWED)


def test_the_alias_of_an_allowed_namespace_is_allowed_and_others_are_not(agent: RunningAgent) -> None:
    for path, method in (("/nginx", "list_proxies"), ("/", "www.list_proxies"), ("/www", "list_proxies")):
        answer = post(agent, "web", path, modern(method, unknown=1))
        assert answer["error"]["code"] in (-32601, -32602), "it is let in, and then told what is wrong"
    assert post(agent, "web", "/app", modern("list_vhosts"))["error"]["code"] == NOT_ALLOWED


def test_a_batch_is_looked_at_call_by_call(agent: RunningAgent) -> None:
    batch = [
        {**modern("trial.command", note="through a batch"), "id": 1},
        {**modern("trial.sleep", seconds=0, text="x"), "id": 2},
        {"jsonrpc": "2.0", "method": "trial.command", "params": {"note": "told by a notification"}},
        {**modern("system.set_hostname", hostname="x"), "id": 3},
    ]
    answers = post(agent, "reader", "/", batch)
    assert [answer.get("error", {}).get("code") for answer in answers] == [NOT_ALLOWED, None, NOT_ALLOWED]
    assert not (agent.state / "commands").exists()


def test_what_else_exists_is_not_told(agent: RunningAgent) -> None:
    said = json.dumps(
        [
            post(agent, "web", "/", modern("trial.comand")),
            post(agent, "web", "/", modern("nowhere.at_all")),
            post(agent, "web", "/", modern("comand")),
            post(agent, "web", "/trial", modern("x")),
        ]
    )
    assert "trial.command" not in said and "storage" not in said and "apache" not in said


def test_a_key_is_described_what_it_may_call(agent: RunningAgent) -> None:
    with holder(agent, "worker") as worker:
        document = worker.call("rpc.discover")
        names = {method["name"] for method in document["methods"]}
        assert {name for name in names if not name.startswith(("operation.", "change."))} == {
            "rpc.describe",
            "rpc.discover",
            "trial.work",
        }
        assert document["x-namespaces"] == ["operation", "change", "rpc", "trial"] and document["x-aliases"] == {}
        assert worker.call("rpc.describe", name="trial.work")["name"] == "trial.work"
        for name in ("trial.command", "sysinfo.uname", "nowhere.at_all"):
            assert error_of(lambda name=name: worker.call("rpc.describe", name=name)).code == NOT_ALLOWED  # type: ignore[misc]
    with holder(agent, "reader") as reader:
        kinds = {method["x-kind"] for method in reader.call("rpc.discover")["methods"]}
        assert kinds == {"query"}


# Operations of others


def test_operations_are_seen_by_who_may_begin_such(agent: RunningAgent) -> None:
    with agent.client(timeout=60) as full, holder(agent, "worker") as worker, holder(agent, "follower") as follower:
        begun = full.call("trial.work", name="seen", until_told=True, async_=True)
        try:
            assert begun.id in [record["id"] for record in worker.call("operation.list")]
            assert worker.call("operation.result", operation_id=begun.id)["name"] == "trial.work"
            assert worker.call("operation.has_in_progress") is True
            assert follower.call("operation.list") == follower.call("operation.list", name="trial.work") == []
            assert follower.call("operation.has_in_progress") is False
            absent = error_of(lambda: follower.call("operation.result", operation_id="0123456789abcdef"))
            for method in ("operation.result", "operation.cancel"):
                error = error_of(lambda method=method: follower.call(method, operation_id=begun.id))  # type: ignore[misc]
                assert error.code == absent.code == -32011
                assert str(error) == str(absent).replace("0123456789abcdef", begun.id)
            assert full.call("operation.result", operation_id=begun.id)["status"] in ("new", "in-progress")
        finally:
            (agent.state / "work").mkdir(exist_ok=True)
            (agent.state / "work" / "seen.enough").touch()
        begun.wait(timeout=60)


def test_a_key_follows_and_cancels_what_it_began(agent: RunningAgent) -> None:
    with holder(agent, "worker") as worker:
        begun = worker.call("trial.work", name="own", until_told=True, async_=True)
        begun.cancel()
        deadline = time.monotonic() + 60
        while worker.call("operation.result", operation_id=begun.id)["status"] != "canceled":
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_the_log_shows_a_key_what_it_may_call(agent: RunningAgent) -> None:
    with agent.client() as full, holder(agent, "follower") as follower:
        full.call("trial.sleep", seconds=0, text="for-anybody")
        full.call("trial.command", note="not-for-followers")
        agent.wait_for_log("not-for-followers")
        for method in ("system.get_log", "system.get_debug_log"):
            shown = base64.b64decode(follower.call(method)).decode()
            assert "method=trial.sleep" in shown
            assert "trial.command" not in shown and "not-for-followers" not in shown and "started pid=" not in shown
            assert "refused from=" not in shown and "method=rpc." not in shown
            assert "started pid=" in base64.b64decode(full.call(method)).decode()
