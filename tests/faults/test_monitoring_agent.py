"""The monitoring agent of MongoDB: installed from packages good and bad, kept running whatever dies, kept stopped."""

import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from monitoring_package import Package, without_systemd
from running_agent import RunningAgent
from scalarizr.client import AgentError
from scalarizr.host.processes import wait_until

API_KEY, SECRET_KEY = "planted-api-key", "planted-secret-key"
Make = Callable[..., "Setup"]

pytestmark = without_systemd


class Setup:
    """An agent whose settings name a package."""

    def __init__(self, directory: Path, kind: str = "classic", how: str = "gz") -> None:
        self.package = Package(directory, kind, how)
        self.agent = RunningAgent(directory, self.package.setting())
        self.directory = directory / "state-mongodb-monitoring"

    def enable(self, api_key: str = API_KEY, secret_key: str = SECRET_KEY) -> Any:
        with self.agent.client() as client:
            return client.call("mongodb.enable_mms", api_key=api_key, secret_key=secret_key)

    def disable(self) -> Any:
        with self.agent.client() as client:
            return client.call("mongodb.disable_mms")

    def fails(self, words: str) -> None:
        """It says why it cannot, and no package was unpacked."""
        answer = self.enable()
        assert answer["status"] == "Fail" and words in answer["error"], answer
        assert "planted" not in answer["error"]
        assert not self.package.starts() and not list((self.directory / "programs").glob("*"))
        assert not list(self.directory.glob(".*"))

    def configuration(self) -> Path:
        found = [*self.directory.rglob("settings.py"), *self.directory.rglob("automation-agent.config")]
        assert len(found) == 1
        return found[0]

    def close(self) -> None:
        if self.agent.process is None or self.agent.process.poll() is not None:
            self.agent.start()
        try:
            self.disable()
        finally:
            self.agent.__exit__()
            self.package.end()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Setup] = []

    def make_one(kind: str = "classic", how: str = "gz", directory: Path | None = None) -> Setup:
        made.append(Setup(directory or tmp_path, kind, how))
        made[-1].agent.start()
        return made[-1]

    yield make_one
    for one in made:
        one.close()


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every account can reach, which pytest's own are not."""
    directory = Path(tempfile.mkdtemp(prefix="scalarizr-monitoring-", dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


OK = {"status": "Ok", "error": None}


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("classic", "gz"),
        ("automation", "xz"),
        ("debian", "zst"),
    ],
)
def test_either_kind_is_installed_configured_and_started(make: Make, kind: str, how: str) -> None:
    setup = make(kind, how)
    assert setup.enable() == OK
    start = setup.package.started_again(1)
    assert (start["api_key"], start["secret_key"]) == (API_KEY, SECRET_KEY)
    assert start["kept"] in (42, "https://api-agents.mongodb.com")
    assert setup.package.running() == [start["pid"]]
    assert setup.configuration().stat().st_mode & 0o777 == 0o600
    command = Path(f"/proc/{start['pid']}/cmdline").read_bytes() + Path(f"/proc/{start['pid']}/environ").read_bytes()
    assert b"planted" not in command
    assert not Path(f"{setup.package.report}.postinst").exists()
    with setup.agent.client() as client:
        records = json.dumps([client.call("operation.list"), client.call("change.list")])
    state = "".join(path.read_text(errors="replace") for path in setup.agent.state.rglob("*.json"))
    assert "planted" not in setup.agent.log_text() + records + state
    holding = [
        path
        for path in setup.directory.rglob("*")
        if path.is_file() and SECRET_KEY.encode() in path.read_bytes() and path != setup.configuration()
    ]
    assert holding == []


def test_what_the_classic_agent_logs_in_with_is_the_agents_user(make: Make) -> None:
    setup = make()
    assert setup.enable() == OK
    start = setup.package.started_again(1)
    assert start["user"] is None and start["password"] is None
    passwords = setup.agent.etc / "private.d" / "mongodb.json"
    passwords.write_text(json.dumps({"user": "scalr", "passwords": ["planted-password"]}))
    assert setup.enable() == OK
    start = setup.package.started_again(2)
    assert (start["user"], start["password"]) == ("scalr", "planted-password")
    assert "planted" not in setup.agent.log_text()


def test_the_same_again_touches_nothing_and_other_keys_start_it_anew(make: Make) -> None:
    setup = make()
    assert setup.enable() == OK
    setup.package.started_again(1)
    stamp = setup.configuration().stat().st_mtime_ns
    assert setup.enable() == OK
    assert len(setup.package.starts()) == 1 and setup.configuration().stat().st_mtime_ns == stamp
    assert setup.enable("planted-other", "planted-other-secret") == OK
    setup.package.started_again(2)
    first, second = setup.package.starts()
    assert setup.package.running() == [second["pid"]] and second["pid"] != first["pid"]
    assert (second["api_key"], second["secret_key"], second["kept"]) == ("planted-other", "planted-other-secret", 42)
    assert API_KEY not in setup.configuration().read_text()


def test_another_package_with_the_same_configuration_takes_the_place_of_the_first(make: Make) -> None:
    setup = make()
    assert setup.enable() == OK
    first = setup.package.started_again(1)
    setup.package.path.write_bytes(setup.package.content[:4] + b"\1" + setup.package.content[5:])
    setup.package.content = setup.package.path.read_bytes()  # another time stamp in the gzip header
    configured(setup, setup.package.setting())
    assert setup.enable() == OK
    second = setup.package.started_again(2)
    assert setup.package.running() == [second["pid"]] and second["cwd"] != first["cwd"]
    assert len(list((setup.directory / "programs").iterdir())) == 1


def test_one_that_does_not_run_is_told_and_what_ran_before_runs_again(make: Make) -> None:
    setup = make("shell")
    answer = setup.enable("ends")
    assert answer["status"] == "Fail" and "it ended with status 3" in answer["error"], answer
    assert "this key is not known" in (setup.directory / "output.log").read_text()
    assert setup.package.running() == [] and setup.enable() == OK
    answer = setup.enable("ends")
    assert answer["status"] == "Fail" and "What was in force before is again" in answer["error"], answer
    setup.package.started_again(4)
    assert [start["api_key"] for start in setup.package.starts()] == ["ends", API_KEY, "ends", API_KEY]
    assert setup.package.running() == [setup.package.starts()[-1]["pid"]]
    assert API_KEY in setup.configuration().read_text()


@pytest.mark.parametrize("key", ["", "a b", 'a"', "a'", "a\\", "a\nb", "a#", "%s", "é", "x" * 257])
def test_a_key_that_could_be_more_than_a_key_is_refused_and_not_shown(shared_agent: RunningAgent, key: str) -> None:
    with shared_agent.client() as client:
        for api_key, secret_key in ((key, SECRET_KEY), (SECRET_KEY, key)):
            with pytest.raises(AgentError) as caught:
                client.call("mongodb.enable_mms", api_key=api_key, secret_key=secret_key)
            assert caught.value.code == -32602 and caught.value.data["got"] is None
            assert "planted" not in str(caught.value.data)


@pytest.mark.root
def test_it_runs_as_an_account_that_owns_its_configuration_and_nothing_of_its_program(
    open_directory: Path, make: Make
) -> None:
    from scalarizr.mongodb.account import find_account

    setup = make("automation", "gz", open_directory)
    setup.package.report.touch()
    setup.package.report.chmod(0o666)
    assert setup.enable() == OK
    account = find_account(open_directory)
    assert account.name and account.uid != 0 and setup.package.started_again(1)["uid"] == account.uid
    status = setup.configuration().stat()
    assert (status.st_uid, status.st_mode & 0o777) == (account.uid, 0o600)
    program = next(setup.directory.rglob("mongodb-mms-automation-agent"))
    for path in (program, program.parent, setup.directory, setup.directory / "programs"):
        assert path.stat().st_uid == 0 and not path.stat().st_mode & 0o022
    assert (setup.directory / "data" / "automation-agent.log").read_text() == "begins\n"


class _Served(BaseHTTPRequestHandler):
    content = b""

    def do_GET(self) -> None:
        if self.path == "/redirected":
            self.send_response(302)
            self.send_header("Location", "/package")
            self.end_headers()
        elif self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
        elif self.path.partition("?")[0] in ("/package", "/cut-off"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.content)))
            self.end_headers()
            self.wfile.write(self.content[:100] if self.path == "/cut-off" else self.content)
        else:
            self.send_error(404)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[tuple[str, type[_Served]]]:
    handler = type("Served", (_Served,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler
    server.shutdown()
    thread.join()
    server.server_close()


def configured(setup: Setup, text: str) -> Setup:
    setup.agent.stop()
    setup.agent.write_settings(text)
    setup.agent.start()
    return setup


@pytest.mark.parametrize("path", ["/redirected", "/package?token=planted"])
def test_a_package_comes_from_a_url(make: Make, web: tuple[str, type[_Served]], path: str) -> None:
    setup, (url, handler) = make(), web
    handler.content = setup.package.content
    configured(setup, setup.package.setting(url + path))
    assert setup.enable() == OK and setup.package.running()
    assert "planted" not in setup.agent.log_text()


def test_a_package_that_cannot_be_trusted_or_had_is_not_opened(make: Make, web: tuple[str, type[_Served]]) -> None:
    setup, (url, handler) = make(), web
    handler.content = setup.package.content
    other = "0" * 64
    cases = [
        (setup.package.setting(f"{url}/package?token=planted", other), "is not the one that the settings name"),
        (setup.package.setting(f"{url}/nothing"), "it answered 404"),
        (setup.package.setting(f"{url}/cut-off"), "is not the one that the settings name"),
        (setup.package.setting(f"{url}/elsewhere"), "cannot be fetched"),
        (setup.package.setting("http://127.0.0.1:1/"), "Connection refused"),
    ]
    for text, words in cases:
        configured(setup, text)
        setup.fails(words)


def test_an_archive_that_is_no_monitoring_agent_leaves_nothing(make: Make) -> None:
    from monitoring_package import tar

    setup = make()
    for content, words in (
        (tar({"x/y": (0o644, "z")}), "no monitoring agent of a known kind"),
        (tar({"../y": (0o644, "z")}), "leads out of its directory"),
    ):
        setup.package.content = content
        setup.package.path.write_bytes(content)
        configured(setup, setup.package.setting())
        setup.fails(words)


@pytest.mark.root
def test_a_disk_that_is_too_small_leaves_nothing_and_what_ran_runs_on(make: Make) -> None:
    from monitoring_package import SETTINGS, classic_files, tar

    setup = make()
    setup.directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", setup.directory], check=True)
    try:
        setup.directory.chmod(0o755)
        assert setup.enable() == OK
        start = setup.package.started_again(1)
        small = setup.package.setting()
        # The first fits as a package and not unpacked, the second not even as a package.
        for size in (100_000, 400_000):
            files = {**classic_files(setup.package.report), "filler": (0o644, SETTINGS * (size // len(SETTINGS)))}
            setup.package.path.write_bytes(tar(files))
            setup.package.content = setup.package.path.read_bytes()
            configured(setup, setup.package.setting())
            answer = setup.enable()
            assert answer["status"] == "Fail" and "No space left on device" in answer["error"], answer
            assert setup.package.running() == [start["pid"]]
            assert len(list((setup.directory / "programs").glob("*"))) == 1 and not list(setup.directory.glob(".*"))
        configured(setup, small)
        setup.disable()
    finally:
        subprocess.run(["umount", "-l", setup.directory], check=True)


def test_killed_it_comes_back_after_pauses_that_grow(make: Make) -> None:
    setup = make()
    assert setup.enable() == OK
    for count in (1, 2, 3):
        os.kill(setup.package.started_again(count)["pid"], signal.SIGKILL)
    assert setup.package.started_again(4)["api_key"] == API_KEY
    log = (setup.agent.logs / "scalarizr.log").read_text()
    pauses = [line.rpartition(" again in ")[2] for line in log.splitlines() if "started again in" in line]
    assert pauses == ["1 s", "2 s", "4 s"] and "ended by SIGKILL" in log


def test_it_outlives_the_agent_which_finds_it_again(make: Make) -> None:
    setup = make()
    assert setup.enable() == OK
    start = setup.package.started_again(1)
    assert setup.agent.stop() == 0 and setup.package.running() == [start["pid"]]
    setup.agent.start()
    assert setup.enable() == OK and setup.package.running() == [start["pid"]]
    setup.agent.kill()
    assert setup.package.running() == [start["pid"]]
    setup.agent.start()
    os.kill(start["pid"], signal.SIGKILL)
    start = setup.package.started_again(2)
    assert setup.package.running() == [start["pid"]]


def test_one_that_died_while_the_agent_was_away_is_started_by_the_next(make: Make) -> None:
    setup = make()
    assert setup.enable() == OK
    setup.package.started_again(1)
    setup.agent.kill()
    os.kill(setup.package.running()[0], signal.SIGKILL)
    # Another process has its number now; what is left alone is told by more than that.
    path = setup.agent.state / "mongodb" / "monitoring-process.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pid": os.getpid()}))
    setup.agent.start()
    start = setup.package.started_again(2)
    assert setup.package.running() == [start["pid"]]


def test_one_that_was_started_and_not_recorded_is_found(make: Make) -> None:
    setup = make()
    assert setup.enable() == OK
    setup.package.started_again(1)
    setup.agent.kill()
    (setup.agent.state / "mongodb" / "monitoring-process.json").unlink()
    setup.agent.start()
    setup.package.started_again(2)
    assert wait_until(lambda: setup.package.running() == [setup.package.starts()[-1]["pid"]], 60)


def test_disabled_it_stays_stopped_over_restarts_and_enabled_it_runs_again(make: Make) -> None:
    setup = make()
    assert setup.disable() == OK
    assert setup.enable() == OK
    setup.package.started_again(1)
    assert setup.disable() == OK and setup.package.running() == []
    assert setup.disable() == OK
    for end in (setup.agent.stop, setup.agent.kill):
        end()
        setup.agent.start()
    time.sleep(1.5)  # longer than the first pause: what should not start has had its time
    assert len(setup.package.starts()) == 1 and setup.package.running() == []
    assert setup.enable("planted-other") == OK
    start = setup.package.started_again(2)
    assert start["api_key"] == "planted-other" and setup.package.running() == [start["pid"]]


def test_an_agent_that_died_while_stopping_it_stops_it_at_the_next_start(make: Make) -> None:
    setup = make()
    assert setup.enable() == OK
    setup.agent.kill()
    path = setup.agent.state / "mongodb" / "monitoring.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "enabled": False}))
    setup.agent.start()
    assert wait_until(lambda: setup.package.running() == [], 60)


@pytest.mark.long  # it is given ten seconds to listen
def test_one_that_does_not_listen_is_stopped_all_the_same(make: Make) -> None:
    setup = make()
    assert setup.enable("deaf") == OK
    setup.package.started_again(1)
    assert setup.disable() == OK and setup.package.running() == []


def storm(setup: Setup, seed: int, rounds: int) -> None:
    """Kill agent and monitoring agent at random instants; then one runs, and one alone, with the last keys."""
    rng = random.Random(seed)
    print(f"seed={seed}")
    for number in range(rounds):
        key = f"planted-{number}"
        killer = threading.Timer(rng.uniform(0, 0.6), setup.agent.kill)
        killer.start()
        try:
            setup.enable(key)
        except Exception:
            pass
        killer.join()
        if rng.random() < 0.5:
            setup.package.end()
        setup.agent.start()
    assert setup.enable("planted-last") == OK
    assert wait_until(lambda: setup.package.starts()[-1]["api_key"] == "planted-last", 60)
    assert setup.package.running() == [setup.package.starts()[-1]["pid"]]


def test_kills_at_random_instants_leave_exactly_one(make: Make) -> None:
    storm(make(), random.randrange(1 << 32), 4)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_hundreds_of_kills_leave_exactly_one(make: Make) -> None:
    storm(make(), random.randrange(1 << 32), 150)
