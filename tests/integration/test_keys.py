"""Several keys of one agent: each may call what it is allowed and sees nothing else, by whatever way it tries."""

import base64
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from conftest import with_test_methods
from private_servers import PrivateApache, PrivateNginx
from running_agent import RunningAgent
from scalarizr.client import AgentError, AuthenticationFailed, Client
from scalarizr.envelope.key import ServerKey, make_key_text
from scalarizr.host.telling import have_settings_read
from wire import Connection, ask, founding_message, http_post, sealed_message, sealed_request

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


@pytest.fixture
def own_agent(tmp_path: Path) -> Iterator[RunningAgent]:
    made = with_test_methods(tmp_path)
    yield made
    made.__exit__()


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


def raw(agent: RunningAgent, key: ServerKey, kid: Any) -> bytes:
    return sealed_request(key, "/system", modern("load_average"), kid=kid)


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


# Operations and changes of others


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


class Web:
    """An agent with an nginx of its own, and keys for parts of it."""

    def __init__(self, directory: Path, more: str = "") -> None:
        self.nginx = PrivateNginx(directory)
        self.agent = RunningAgent(directory, self.nginx.settings + more)
        give_key(self.agent, "proxies", "nginx.make_proxy", "change.*")
        give_key(self.agent, "removes", "nginx.remove_proxy", "change.*")
        give_key(self.agent, "all_of_nginx", "nginx.*", "change.*", "operation.*")
        give_key(self.agent, "everything", "*")
        give_key(self.agent, "history", "change.*")
        self.agent.start()

    def end(self) -> None:
        self.agent.__exit__()
        self.nginx.stop()

    def holder(self, identity: str) -> Client:
        return holder(self.agent, identity)

    def files(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.nginx.directory.glob("*.include")}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    made = Web(tmp_path)
    yield made
    made.end()


@pytest.fixture
def web_with_any(tmp_path: Path) -> Iterator[Web]:
    made = Web(tmp_path, 'template_directives = "any"\n')
    yield made
    made.end()


def proxy(name: str = "a.example.com", **more: Any) -> dict[str, Any]:
    return {"hostname": name, "backends": [{"host": "127.0.0.1"}], "port": 18080, "reload_service": False, **more}


@pytest.mark.nginx
@pytest.mark.root
def test_changes_are_seen_and_taken_back_by_who_may_make_such(web: Web) -> None:
    with web.agent.client(timeout=60) as full:
        full.call("nginx.make_proxy", **proxy())
        made = full.call("change.list")[0]["id"]
    files = web.files()
    for identity in ("removes", "history"):
        with web.holder(identity) as other:
            assert other.call("change.list") == []
            absent = error_of(lambda: other.call("change.show", id="0123"))
            for method in ("change.show", "change.revert", "change.confirm"):
                error = error_of(lambda method=method: other.call(method, id=made))  # type: ignore[misc]
                assert error.code == absent.code == -32011
                assert str(error) == str(absent).replace("0123", made)
    assert web.files() == files != {}
    with web.holder("proxies") as proxies:
        assert [change["id"] for change in proxies.call("change.list")] == [made]
        assert proxies.call("change.show", id=made)["files"]
        reverted = proxies.call("change.revert", id=made, reload=False)
        assert web.files() != files
        assert [change["id"] for change in proxies.call("change.list")] == [made], (
            "what took it back could be any change"
        )
        error = error_of(lambda: proxies.call("change.revert", id=reverted["id"], reload=False))
        assert error.code == -32011
    with web.holder("all_of_nginx") as all_of_nginx:
        assert [change["id"] for change in all_of_nginx.call("change.list")] == [reverted["id"], made]


@pytest.mark.nginx
@pytest.mark.root
def test_a_change_of_several_calls_is_seen_by_who_may_make_them_all(web: Web) -> None:
    with web.agent.client(timeout=60) as full:
        full.call("nginx.make_proxy", **proxy("first.example.com"))
    calls: list[tuple[str, dict[str, Any]]] = [("nginx.make_proxy", proxy(f"n{n}.example.com")) for n in range(6)]
    calls += [("nginx.remove_proxy", {"hostname": "first.example.com", "reload_service": False})]

    def make(method: str, params: dict[str, Any]) -> None:
        with web.agent.client(timeout=60) as client:
            client.call(method, **params)

    threads = [threading.Thread(target=make, args=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with web.agent.client() as full, web.holder("proxies") as proxies:
        everything = full.call("change.list")
        merged = [change["id"] for change in everything if "remove_proxy" in change["method"]]
        assert merged, "the removal is named, be it alone or with others"
        seen = [change["id"] for change in proxies.call("change.list")]
        assert not set(seen) & set(merged)


@pytest.mark.nginx
@pytest.mark.root
def test_templates_of_a_limited_key_pass_the_list_even_where_any_is_set(web_with_any: Web) -> None:
    include = {"content": "include /etc/nginx/mime.types;", "location": "/"}
    for identity in ("all_of_nginx", "proxies"):
        with web_with_any.holder(identity) as limited:
            for more in ({}, {"_dry_run": True}, {"_confirm_within": 60}):
                error = error_of(
                    lambda limited=limited, more=more: limited.call(  # type: ignore[misc]
                        "nginx.make_proxy", **proxy(templates=[include]), **more
                    )
                )
                assert error.code == -32602 and "template" in str(error.data)
    with web_with_any.holder("all_of_nginx") as limited:
        for more in ({"async_": False}, {"_dry_run": True}):
            error = error_of(
                lambda: limited.call("nginx.reconfigure", proxies=[proxy(templates=[include])], **more)  # noqa: B023
            )
            assert "template" in str(error.data) or "template" in str(error)
    assert not web_with_any.nginx.proxies.exists()
    for identity in ("everything", "default"):
        with web_with_any.holder(identity) as unlimited:
            unlimited.call("nginx.make_proxy", **proxy(f"{identity}.example.com", templates=[include]))
            unlimited.call(
                "nginx.reconfigure", proxies=[proxy(f"{identity}.example.com", templates=[include])], async_=False
            )


@pytest.mark.apache2
@pytest.mark.root
def test_templates_of_apache_pass_the_list_as_well(tmp_path: Path) -> None:
    apache = PrivateApache(tmp_path)
    agent = RunningAgent(tmp_path, f'{apache.settings}template_directives = "any"\n')
    give_key(agent, "hosts", "apache.*")
    (tmp_path / "included").write_text("# nothing\n")
    template = f"<VirtualHost *:{apache.port}>\nServerName a.example.com\nInclude {tmp_path}/included\n</VirtualHost>\n"
    described = {"hostname": "a.example.com", "port": apache.port, "ssl": False, "template": template}
    with agent:
        with holder(agent, "hosts") as hosts:
            for more in ({}, {"_dry_run": True}):
                error = error_of(lambda more=more: hosts.call("apache.create_vhost", **described, **more))  # type: ignore[misc]
                assert error.code == -32602 and "template" in str(error.data)
        with agent.client(timeout=60) as full:
            shown = full.call("apache.create_vhost", **described, _dry_run=True)
            assert shown["valid"] and "included" in str(shown["changes"])
    apache.stop()


# Time, and what changes while the agent runs


def command(agent: RunningAgent, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "scalarizr", "--etc", str(agent.etc), *words],
        capture_output=True,
        text=True,
        timeout=120,
    )


def done(agent: RunningAgent, *words: str) -> Any:
    finished = command(agent, *words)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout) if finished.stdout.startswith(("{", "[")) else finished.stdout


def test_a_key_that_expires_is_refused_on_a_kept_connection(own_agent: RunningAgent) -> None:
    give_key(own_agent, "short", "*", lines=f"expires = {moment(time.time() + 3600)}")
    own_agent.start()
    key = key_of(own_agent, "short")
    with Connection(own_agent.port) as kept:
        assert "result" in kept.ask(raw(own_agent, key, "short")).opened(key)
        rules = own_agent.etc / "keys.toml"
        ends = int(time.time()) + 2
        rules.write_text(f'[short]\nallow = ["*"]\nexpires = {moment(ends)}\n')
        assert read_again(own_agent) == []
        while time.time() < ends:
            time.sleep(0.05)
        answer = kept.ask(raw(own_agent, key, "short"))
        assert (answer.status, answer.body) == (400, REFUSED)


def test_a_revoked_key_is_refused_at_once_on_a_kept_connection(agent_alone: RunningAgent) -> None:
    done(agent_alone, "key", "add", "guest", "--allow", "system.*")
    key = key_of(agent_alone, "guest")
    with Connection(agent_alone.port) as kept:
        assert "result" in kept.ask(raw(agent_alone, key, "guest")).opened(key)
        assert "is revoked" in done(agent_alone, "key", "revoke", "guest")
        answer = kept.ask(raw(agent_alone, key, "guest"))
        assert (answer.status, answer.body) == (400, REFUSED)
    assert not key_path(agent_alone, "guest").exists() and "guest" not in (agent_alone.etc / "keys.toml").read_text()


def test_what_waits_in_a_batch_is_refused_once_the_key_is_revoked(own_agent: RunningAgent) -> None:
    give_key(own_agent, "guest", "trial.*")
    own_agent.start()
    key = key_of(own_agent, "guest")
    batch = [
        {**modern("trial.hold", gate="batch"), "id": 1},
        {**modern("trial.command", note="after the end"), "id": 2},
    ]
    answers: list[Any] = []

    def send() -> None:
        answers.extend(ask(own_agent.port, sealed_request(key, "/", json.dumps(batch), kid="guest")).opened(key))

    sender = threading.Thread(target=send)
    sender.start()
    deadline = time.monotonic() + 60
    while not list(own_agent.state.glob("batch.*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (own_agent.etc / "keys.toml").write_text("")
    assert read_again(own_agent) == []
    (own_agent.state / "batch.open").touch()
    sender.join(60)
    assert answers[0]["result"] is True and answers[1]["error"]["code"] == NOT_ALLOWED
    assert not (own_agent.state / "commands").exists()


@pytest.fixture
def agent_alone(tmp_path: Path) -> Iterator[RunningAgent]:
    with RunningAgent(tmp_path) as running:
        yield running


def test_old_and_new_are_accepted_until_the_overlap_ends(agent_alone: RunningAgent) -> None:
    done(agent_alone, "key", "add", "guest", "--read-only")
    old = key_of(agent_alone, "guest")
    assert done(agent_alone, "key", "rotate", "guest")["state"] == "both"
    new = key_of(agent_alone, "guest")
    assert old.raw != new.raw
    for key in (old, new):
        assert "result" in ask(agent_alone.port, raw(agent_alone, key, "guest")).opened(key)
    finished = command(agent_alone, "key", "rotate", "guest")
    assert finished.returncode == 1 and "a key has one at most. Nothing was changed" in finished.stderr
    # The end of the overlap, by the clock, with no further word from anybody.
    rules = agent_alone.etc / "keys.toml"
    ends = int(time.time()) + 2
    line = next(line for line in rules.read_text().splitlines() if line.startswith("previous_until"))
    rules.write_text(rules.read_text().replace(line, f"previous_until = {moment(ends)}"))
    assert read_again(agent_alone) == []
    while time.time() < ends:
        time.sleep(0.05)
    answer = ask(agent_alone.port, raw(agent_alone, old, "guest"))
    assert (answer.status, answer.body) == (400, REFUSED)
    assert "result" in ask(agent_alone.port, raw(agent_alone, new, "guest")).opened(new)


def test_a_rotation_without_overlap_ends_both_old_keys(agent_alone: RunningAgent) -> None:
    done(agent_alone, "key", "add", "guest", "--read-only")
    first = key_of(agent_alone, "guest")
    done(agent_alone, "key", "rotate", "guest", "--overlap", "1 h")
    second = key_of(agent_alone, "guest")
    done(agent_alone, "key", "rotate", "guest", "--overlap", "0")
    third = key_of(agent_alone, "guest")
    for key, status in ((first, 400), (second, 400), (third, 200)):
        assert ask(agent_alone.port, raw(agent_alone, key, "guest")).status == status
    assert not (key_path(agent_alone, "guest.previous")).exists()


def test_the_default_key_is_rotated_and_revoked_like_any_other(agent_alone: RunningAgent) -> None:
    old = key_of(agent_alone)
    done(agent_alone, "key", "rotate", "default")
    new = key_of(agent_alone)
    for key in (old, new):
        assert "result" in ask(agent_alone.port, sealed_request(key, "/system", modern("load_average"))).opened(key)
    done(agent_alone, "key", "add", "admin", "--allow", "*")
    done(agent_alone, "key", "revoke", "default")
    for key in (old, new):
        answer = ask(agent_alone.port, sealed_request(key, "/system", modern("load_average")))
        assert (answer.status, answer.body) == (400, REFUSED)
    with holder(agent_alone, "admin") as admin:
        assert admin.call("system.load_average")
    agent_alone.stop()
    agent_alone.start()
    with holder(agent_alone, "admin") as admin:
        assert admin.call("system.load_average"), "an agent without a default key starts"


def test_rules_that_are_wrong_change_nothing_and_do_not_stop_what_runs(own_agent: RunningAgent) -> None:
    give_key(own_agent, "guest", "trial.sleep")
    own_agent.start()
    (own_agent.etc / "keys.toml").write_text('[guest]\nallow = ["tryal.*"]\n')
    (problem,) = read_again(own_agent)
    assert "keys.toml, line 2: [guest] allow: got 'tryal.*'" in problem and "trial, perhaps" in problem
    with holder(own_agent, "guest") as guest:
        assert guest.call("trial.sleep", seconds=0, text="x") == "x"
        assert error_of(lambda: guest.call("trial.command")).code == NOT_ALLOWED


def test_wrong_settings_do_not_keep_a_key_from_being_revoked(agent_alone: RunningAgent) -> None:
    done(agent_alone, "key", "add", "guest", "--allow", "*")
    key = key_of(agent_alone, "guest")
    settings = agent_alone.etc / "scalarizr.toml"
    right = settings.read_text()
    (agent_alone.etc / "keys.toml").write_text("")
    settings.write_text(f"{right}\n[nonsense]\n")
    assert "[nonsense] is no section" in read_again(agent_alone)[0]
    assert ask(agent_alone.port, raw(agent_alone, key, "guest")).status == 400


def test_rules_that_are_wrong_stop_the_start(own_agent: RunningAgent) -> None:
    give_key(own_agent, "guest", "system.uname")
    key_path(own_agent, "guest").unlink()
    own_agent.start(wait=False)
    assert own_agent.process is not None and own_agent.process.stdout is not None
    said = own_agent.process.stdout.read().decode()
    assert own_agent.process.wait(60) == 1 and "guest: the key cannot be read: No such file" in said


def test_a_restart_keeps_what_every_key_has_sent(own_agent: RunningAgent) -> None:
    give_key(own_agent, "guest", "system.*")
    own_agent.start()
    requests = [raw(own_agent, key_of(own_agent, identity), identity) for identity in ("default", "guest")]
    assert [ask(own_agent.port, request).status for request in requests] == [200, 200]
    own_agent.stop()
    own_agent.start()
    answers = [ask(own_agent.port, request) for request in requests]
    assert [(answer.status, answer.body) for answer in answers] == [(400, b"This request was seen before\n")] * 2


# The command line


def test_keys_are_made_and_listed_without_being_shown(agent_alone: RunningAgent) -> None:
    made = done(agent_alone, "key", "add", "guest", "--read-only", "--allow", "www.make_proxy", "--from", "127.0.0.1")
    text = key_path(agent_alone, "guest").read_text().strip()
    assert made["file"] == str(key_path(agent_alone, "guest")) and made["id"] == "guest"
    assert made["allow"] == ["read-only", "nginx.make_proxy"] and made["from"] == ["127.0.0.1/32"]
    assert key_path(agent_alone, "guest").stat().st_mode & 0o777 == 0o600
    assert (agent_alone.etc / "keys.toml").stat().st_mode & 0o777 == 0o600
    listed = command(agent_alone, "key", "list").stdout
    assert [one["id"] for one in json.loads(listed)] == ["default", "guest"]
    assert text not in listed and text not in json.dumps(made) and text not in agent_alone.log_text()
    shown = done(agent_alone, "key", "rotate", "guest", "--show")
    assert shown["key"] == key_path(agent_alone, "guest").read_text().strip() != text


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["add", "guest"], 2, "Say what the key may call"),
        (["add", "a/b", "--read-only"], 2, "1 to 64 letters"),
        (["add", "default", "--read-only"], 1, "is there already"),
        (["add", "guest", "--allow", "system.unam"], 2, "expected system.uname, perhaps"),
        (["add", "guest", "--allow", "sistem.*"], 1, "--allow: got 'sistem.*', expected a namespace"),
        (["add", "guest", "--read-only", "--from", "10.0.0.1/8"], 1, "host bits set"),
        (["add", "guest", "--read-only", "--expires", "soon"], 2, "expected 2027-01-31"),
        (["add", "guest", "--read-only", "--expires", "2020-01-01"], 2, "lies in the past"),
        (["rotate", "nobody"], 1, "There is no key nobody; there are: default."),
        (["rotate", "default", "--overlap", "-1"], 2, "expected a duration"),
        (["revoke", "../default"], 1, "There is no key ../default"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_changed(
    agent: RunningAgent, tmp_path: Path, words: list[str], status: int, said: str
) -> None:
    etc = tmp_path / "etc"
    assert command_in(etc, "init").returncode == 0
    before = {path: path.read_bytes() for path in etc.rglob("*") if path.is_file()}
    finished = command_in(etc, "key", *words)
    assert finished.returncode == status and said in finished.stderr and "Traceback" not in finished.stderr
    after = {path: path.read_bytes() for path in etc.rglob("*") if path.is_file() and path.name != "keys.lock"}
    assert before == after


def command_in(etc: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "scalarizr", "--etc", str(etc), *words], capture_output=True, text=True, timeout=120
    )


def test_without_an_agent_keys_are_changed_for_its_next_start(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    assert command_in(etc, "init").returncode == 0
    settings = etc / "scalarizr.toml"
    settings.write_text(f'[paths]\nstate = "{tmp_path}/state"\n')
    finished = command_in(etc, "key", "add", "guest", "--allow", "*", "--expires", "90 d")
    assert finished.returncode == 0 and "it is in force from its next start" in finished.stderr


def test_the_command_line_calls_with_a_key_of_its_own(agent_alone: RunningAgent) -> None:
    done(agent_alone, "key", "add", "guest", "--read-only")
    url = ("--url", agent_alone.url)
    assert len(done(agent_alone, "call", *url, "--key-id", "guest", "system.load_average")) == 3
    refused = command(agent_alone, "call", *url, "--key-id", "guest", "system.set_hostname", "hostname=x.example.com")
    assert refused.returncode == 1 and "This key may not call system.set_hostname" in refused.stderr
    unknown = command(
        agent_alone, "call", *url, "--key-id", "other", "--key", str(agent_alone.key_file), "system.uname"
    )
    assert unknown.returncode == 4
    assert command(agent_alone, "call", *url, "--key-id", "../x", "system.uname").returncode == 2
    names = {one["name"] for one in done(agent_alone, "methods", *url, "--key-id", "guest")}
    assert "system.uname" in names and "system.set_hostname" not in names


def test_a_client_with_a_wrong_id_is_not_authenticated(agent: RunningAgent) -> None:
    for envelope in ("sealed", "founding"):
        with agent.client(key_id="reader", envelope=envelope) as client, pytest.raises(AuthenticationFailed):
            client.call("system.load_average")
    with pytest.raises(ValueError, match="is no id of a key"):
        agent.client(key_id="a\r\nX-Evil: 1")
