"""The command line as people and scripts meet it: output, exit statuses, a terminal with a progress bar."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from running_agent import RunningAgent, free_port
from scalarizr.cli.output import print_file_changes
from scalarizr.host.processes import sleeps
from scalarizr.settings.model import Settings

PROGRAM = [sys.executable, "-m", "scalarizr"]


def run(agent: RunningAgent, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, "--etc", str(agent.etc), words[0]]
    if words[0] in ("call", "methods", "operations", "changes") and "--url" not in words:
        nested = words[0] in ("operations", "changes")
        command += [*(words[1:2] if nested else ()), "--url", agent.url]
        words = (words[0], *words[2:]) if nested else words
    return subprocess.run([*command, *words[1:]], capture_output=True, text=True, timeout=100, **options)


def terminal(agent: RunningAgent, *words: str, send: dict[str, bytes] | None = None, **more: str) -> tuple[int, str]:
    """Run it at a terminal; where a text of `send` appears, type what belongs to it."""
    command = [*PROGRAM, "--etc", str(agent.etc), *words]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40", **more}
    environment.pop("NO_COLOR", None) if "NO_COLOR" not in more else None
    child, master = pty.fork()
    if child == 0:
        os.execve(sys.executable, command, environment)
    seen, todo, deadline = b"", dict(send or {}), time.monotonic() + 100
    seen_at: dict[str, float] = {}
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.1)[0]:
            try:
                data = os.read(master, 65536)
            except OSError:
                break
            if not data:
                break
            seen += data
        for text in list(todo):
            # A key that comes in the instant between a prompt and the reading behind it may be lost: people are slower.
            late = text.encode() in seen and time.monotonic() > seen_at.setdefault(text, time.monotonic()) + 0.3
            if late and sleeps(child):
                os.write(master, todo.pop(text))
    os.close(master)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), seen.decode("utf-8", "replace")


def test_pipes_get_one_line_of_json(shared_agent: RunningAgent) -> None:
    finished = run(shared_agent, "call", "system.disk_stats")
    assert finished.returncode == 0 and finished.stdout.count("\n") == 1 and "\x1b" not in finished.stdout
    assert json.loads(finished.stdout) and finished.stderr == ""
    assert json.loads(run(shared_agent, "call", "system.statvfs", 'mpoints=["/"]', "--json").stdout)["/"]["total"] > 0


def test_people_get_tables_with_human_sizes_and_colour(shared_agent: RunningAgent) -> None:
    status, text = terminal(shared_agent, "call", "--url", shared_agent.url, "system.mem_info")
    assert status == 0 and "GiB" in text and "available" in text
    status, text = terminal(shared_agent, "call", "--url", shared_agent.url, "system.disk_stats")
    assert "read bytes" in text.replace("\x1b[0m", "").replace("\x1b[1m", "") or "bytes" in text
    assert "\x1b" not in terminal(shared_agent, "call", "--url", shared_agent.url, "system.disk_stats", NO_COLOR="1")[1]
    text = terminal(shared_agent, "call", "--url", shared_agent.url, "system.load_average")[1]
    assert re.fullmatch(r"\[[\d.]+, [\d.]+, [\d.]+\]\r\n", text), "as the guide shows it"
    text = terminal(shared_agent, "call", "--url", shared_agent.url, "system.pythons")[1]
    assert re.fullmatch(r"(3\.[\d.]+\r\n)+", text), "texts stand on a line each"
    status, text = terminal(shared_agent, "call", "--url", shared_agent.url, "system.get_log")
    assert "started pid=" in text, "a log is shown as text"
    status, text = terminal(
        shared_agent, "call", "--url", shared_agent.url, "system.set_hostname", "hostname=x.example.com", "--dry-run"
    )
    assert "\x1b[32m+x.example.com" in text and "/etc/hosts" in text
    words = ("call", "--url", shared_agent.url, "system.set_hostname", "hostname=x.example.com", "--dry-run")
    assert "\x1b[32m" not in terminal(shared_agent, *words, NO_COLOR="1")[1]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["system.load_avarage"], 1, "Did you mean load_average?"),
        (["sistem.load_average"], 1, "Did you mean system?"),
        (["system.statvfs", "mpoints=5"], 1, "mpoints: got 5, expected a list"),
        (["system.statvfs"], 1, "mpoints: got nothing"),
        (["system.statvfs", "mpoint=[]"], 1, "mpoint"),
        (["load_average"], 2, "no NAMESPACE.METHOD"),
        (["system.uname", "word"], 2, "write name=value"),
        (["system.uname", "--params", "["], 2, "not JSON"),
        (["system.uname", "--params", "[]"], 2, "no JSON object"),
        (["system.uname", "a=1", "--params", '{"a": 2}'], 2, "given twice"),
        (["system.uname", "a=@/nothing"], 2, "No such file"),
        (["system.uname", "--url", "http://127.0.0.1:1"], 3, "cannot be reached"),
        (["system.uname", "--url", "nonsense://x"], 2, "is no URL"),
        (["system.uname", "--key", "/nothing"], 4, "No such file or directory. Is this the agent's directory?"),
        (["system.set_hostname", "hostname=a_b"], 1, "RFC 1123"),
        (["system.load_average", "--dry-run"], 1, "knows no dry run"),
    ],
)
def test_exit_statuses_and_one_readable_paragraph(
    shared_agent: RunningAgent, words: list[str], status: int, said: str
) -> None:
    finished = run(shared_agent, "call", *words)
    assert (finished.returncode, finished.stdout) == (status, ""), finished
    assert said in finished.stderr and "Traceback" not in finished.stderr


def test_another_key_is_status_4(shared_agent: RunningAgent, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("HKjnlK/6PN2+u+c59JiUSaepOp4QfvBEM2vkWxRbrq/mS8+Ah1nOxg==")
    for envelope in ("sealed", "founding"):
        words = ("system.uname", "--key", str(tmp_path / "key"), "--envelope", envelope)
        finished = run(shared_agent, "call", *words)
        assert finished.returncode == 4 and "Signature doesn't match" in finished.stderr


def test_parameters_from_files_and_standard_input(shared_agent: RunningAgent, tmp_path: Path) -> None:
    (tmp_path / "points.json").write_text('["/"]')
    for words, data in (
        (["mpoints=@" + str(tmp_path / "points.json")], None),
        (["--params", "-"], '{"mpoints": ["/"]}'),
        (["--params", '{"mpoints": {"0": "/"}}'], None),
    ):
        finished = run(shared_agent, "call", "system.statvfs", *words, input=data)
        assert list(json.loads(finished.stdout)) == ["/"], finished.stderr


def test_a_secret_is_asked_for_without_echo(make_trial_agent: Callable[[str], RunningAgent]) -> None:
    agent = make_trial_agent("").start()
    words = ("call", "--url", agent.url, "trial.work", "name=z", "--ask", "secret")
    status, text = terminal(agent, *words, send={"secret:": b"hunter2hunter2\n"})
    assert status == 0 and "hunter2" not in text and "******" in text


def test_methods_are_listed_and_explained(shared_agent: RunningAgent) -> None:
    words = ("--url", shared_agent.url)
    status, text = terminal(shared_agent, "methods", *words)
    assert status == 0 and text.count("system.") >= 19
    status, text = terminal(shared_agent, "methods", *words, "system.get_script_logs")
    assert (
        "exec_script_id (string)" in text
        and "default 2097152" in text
        and "scalarizr call system.get_script_logs" in text
    )
    assert json.loads(run(shared_agent, "methods", "system.uname").stdout)["name"] == "system.uname"
    assert len(json.loads(run(shared_agent, "methods", "sysinfo").stdout)) == 22
    assert run(shared_agent, "methods", "nothing").returncode == 1


def test_an_operation_is_followed_to_its_end(make_trial_agent: Callable[[str], RunningAgent]) -> None:
    agent = make_trial_agent("").start()
    finished = run(agent, "call", "trial.work", "name=a", "seconds=0.5")
    assert finished.returncode == 0 and json.loads(finished.stdout)["name"] == "a"
    assert "working on a" in finished.stderr and "\x1b" not in finished.stderr
    status, text = terminal(agent, "call", "--url", agent.url, "trial.work", "name=b", "seconds=3")
    assert status == 0 and "working on b" in text and "step" in text and "━" in text
    finished = run(agent, "call", "trial.work", "name=c", "how=refuse")
    assert finished.returncode == 1 and "c is refused" in finished.stderr and finished.stdout == ""
    identity = json.loads(run(agent, "call", "trial.work", "name=d", "seconds=0.5", "--no-wait").stdout)
    assert json.loads(run(agent, "operations", "follow", identity).stdout)["name"] == "d"
    assert json.loads(run(agent, "operations", "show", identity).stdout)["status"] == "completed"
    assert identity in run(agent, "operations", "list").stdout
    status, text = terminal(agent, "operations", "list", "--url", agent.url)
    assert "completed" in text and "trial.work" in text
    assert run(agent, "operations", "show", "nothing").returncode == 1


def test_ctrl_c_asks_whether_to_cancel(make_trial_agent: Callable[[str], RunningAgent]) -> None:
    agent = make_trial_agent("").start()
    words = ("call", "--url", agent.url, "trial.work", "name=e", "seconds=90")
    status, text = terminal(agent, *words, send={"working on e": b"\x03", "Cancel the operation": b"y\n"})
    assert status == 1 and "The operation was cancelled" in text
    words = ("call", "--url", agent.url, "trial.work", "name=f", "seconds=90")
    status, text = terminal(agent, *words, send={"working on f": b"\x03", "Cancel the operation": b"\x03"})
    assert status == 130 and "It goes on" in text and "scalarizr operations follow" in text
    with agent.client() as client:
        assert [record["name"] for record in client.call("operation.list", status="in-progress")] == ["trial.work"]
        for record in client.call("operation.list", status="in-progress"):
            client.call("operation.cancel", operation_id=record["id"])


def with_a_host_of_its_own(agent: RunningAgent) -> Path:
    """Start an agent whose host is a tree of files."""
    root = agent.etc.parent / "root"
    (root / "proc/sys/kernel").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (root / "proc/sys/kernel/hostname").write_text("old\n")
    agent.write_settings("", f'root = "{root}"')
    agent.start()
    return root


def test_the_history_of_changes_is_shown_and_taken_back(make_trial_agent: Callable[[str], RunningAgent]) -> None:
    agent = make_trial_agent("")
    root = with_a_host_of_its_own(agent)
    hosts, kernel = root / "etc/hosts", root / "proc/sys/kernel/hostname"
    assert json.loads(run(agent, "changes", "list").stdout) == []
    run(agent, "call", "system.set_hostname", "hostname=one.example.com")
    run(agent, "call", "system.set_hostname", "hostname=two.example.com")
    second, first = json.loads(run(agent, "changes", "list").stdout)
    assert second["status"] == "applied" and str(hosts) in second["files"]
    assert second["method"] == "system.set_hostname"
    status, text = terminal(agent, "changes", "show", "--url", agent.url, first["id"])
    assert status == 0 and "\x1b[32m+127.0.1.1" in text and "one.example.com one" in text
    finished = run(agent, "changes", "revert", first["id"])
    assert finished.returncode == 1 and second["id"] in finished.stderr
    assert run(agent, "changes", "revert", second["id"]).returncode == 0
    assert kernel.read_text() == "one.example.com\n" and "two" not in hosts.read_text()
    assert run(agent, "changes", "revert", second["id"]).returncode == 1
    assert run(agent, "changes", "revert", first["id"]).returncode == 0
    assert hosts.read_text() == "127.0.0.1 localhost\n" and kernel.read_text() == "old\n"
    assert not (root / "etc/hostname").exists()
    statuses = [change["status"] for change in json.loads(run(agent, "changes", "list").stdout)]
    assert statuses == ["reverted"] * 4
    run(agent, "call", "system.set_hostname", "hostname=three.example.com")
    hosts.write_text("127.0.0.1 localhost  # a person\n")
    (third, *_) = json.loads(run(agent, "changes", "list").stdout)
    finished = run(agent, "changes", "revert", third["id"])
    assert finished.returncode == 1 and f"{hosts} was edited since" in finished.stderr
    assert "a person" in hosts.read_text() and kernel.read_text() == "three.example.com\n"
    assert run(agent, "changes", "show", "nothing").returncode == 1


def test_a_person_reads_the_history_of_changes_in_words_and_local_time(
    make_trial_agent: Callable[[str], RunningAgent],
) -> None:
    agent = make_trial_agent("")
    with_a_host_of_its_own(agent)
    url = ("--url", agent.url)

    def said(*words: str, **more: str) -> str:
        status, text = terminal(agent, "changes", *words, COLUMNS="80", **more)
        assert status == 0, text
        return text.replace("\r\n", "\n")

    assert said("list", *url) == "There are no changes.\n"
    for name in ("one", "two"):
        run(agent, "call", "system.set_hostname", f"hostname={name}.example.com")
    second, first = json.loads(run(agent, "changes", "list").stdout)
    text = said("list", *url, NO_COLOR="1", TZ="XXX-11:30")
    here = time.gmtime(second["time"] + 11.5 * 3600)
    head, *rows = text.splitlines()
    assert head.split() == ["id", "when", "status", "files", "method"] and "\x1b" not in text
    assert [row.split()[0] for row in rows] == [second["id"], first["id"]] and max(map(len, rows)) < 80
    assert time.strftime("%b %e %H:%M  applied", here) in rows[0] and rows[0].endswith("3  system.set_hostname")
    text = said("show", *url, first["id"], NO_COLOR="1", TZ="XXX-11:30")
    here = time.gmtime(first["time"] + 11.5 * 3600)
    assert text.startswith(time.strftime("system.set_hostname on %Y-%m-%d %H:%M:%S\n", here))
    assert "It created 1 file and modified 2. It is in force" in text and "\x1b" not in text
    assert "\n-old\n+one.example.com\n" in text and "\n--- " not in text
    text = said("revert", *url, second["id"])
    assert text == f"The change {second['id']} was taken back. Its 3 files are as they were before it.\n"
    assert "It was taken back." in said("show", *url, second["id"])
    back = json.loads(run(agent, "changes", "list").stdout)[0]
    assert "It took another change back." in said("show", *url, back["id"])
    rows = said("list", *url, NO_COLOR="1").splitlines()[1:]
    assert [row.split()[4] for row in rows] == ["done", "reverted", "applied"]


def test_a_change_that_waits_names_the_command_that_keeps_it(
    make_trial_agent: Callable[[str], RunningAgent],
) -> None:
    agent = make_trial_agent("")
    with_a_host_of_its_own(agent)
    words = ("call", "--url", agent.url, "system.set_hostname", "hostname=a.example.com", "--confirm-within", "100")
    status, text = terminal(agent, *words)
    assert status == 0 and re.search(r"is taken back at .*\((9\d|100) s\) unless you confirm it:", text)
    _scalarizr, *command = text.splitlines()[-1].split()
    assert command[:2] == ["changes", "confirm"]
    assert "waits for its confirmation until" in terminal(agent, "changes", "list", "--url", agent.url)[1]
    finished = subprocess.run([*PROGRAM, *command], capture_output=True, text=True)
    assert json.loads(finished.stdout)["status"] == "applied", finished.stderr
    status, text = terminal(agent, *words)
    assert status == 0 and "this call left nothing to confirm" in text
    status, text = terminal(agent, "call", "--url", agent.url, "system.set_hostname", "hostname=b", *words[-2:])
    assert status == 0
    identity = text.splitlines()[-1].split()[3]
    status, text = terminal(agent, "changes", "confirm", identity, "--url", agent.url)
    assert (status, text) == (0, f"The change {identity} (system.set_hostname) is kept.\r\n")
    status, text = terminal(agent, "changes", "confirm", identity, "--url", agent.url)
    assert status == 1 and "waits for nothing" in text


def test_a_dry_run_says_in_words_what_it_comes_to(make_trial_agent: Callable[[str], RunningAgent]) -> None:
    agent = make_trial_agent("")
    root = with_a_host_of_its_own(agent)
    words = ("call", "--url", agent.url, "system.set_hostname", "hostname=one.example.com", "--dry-run")
    status, text = terminal(agent, *words, NO_COLOR="1")
    assert status == 0 and f"\nmodify {root}/etc/hosts\r\n@@ " in text and "\x1b" not in text
    assert "Nothing was changed. The result is valid; the call would create 1 file and modify 2." in text
    run(agent, *words[:1], *words[3:-1])
    assert "Nothing would change: everything is so already." in terminal(agent, *words)[1]
    (root / "etc/hosts").write_text("10.0.0.1 \x1b[31mred\n")
    status, text = terminal(agent, *words, NO_COLOR="1")
    assert status == 0 and "\\x1b[31mred" in text and "\x1b" not in text


def test_of_a_very_long_diff_the_rest_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    added = "".join(f"+line {number}\n" for number in range(5000))
    diff = f"--- /dev/null\n+++ /etc/long\n@@ -0,0 +1,5000 @@\n{added}"
    print_file_changes([{"path": "/etc/long", "action": "create", "diff": diff}])
    printed = capsys.readouterr().out
    assert "+line 100\n" in printed and "… 4701 more lines; --json prints them all.\n" in printed
    assert printed.count("\n") == 303


def test_init_writes_once_and_never_over(tmp_path: Path) -> None:
    etc = tmp_path / "a" / "etc"
    for word in ("written", "left as it is"):
        finished = subprocess.run([*PROGRAM, "init", "--etc", etc], capture_output=True, text=True)
        assert finished.returncode == 0 and finished.stdout.count(word) == 2
        key = etc / "private.d" / "keys" / "default"
        content = key.read_bytes()
        assert key.stat().st_mode & 0o777 == 0o600 and len(content.split()) == 1
    sections = {line for line in (etc / "scalarizr.toml").read_text().splitlines() if line.startswith("[")}
    assert sections == {f"[{name}]" for name in Settings.__struct_fields__} and key.read_bytes() == content
    assert sorted(path.name for path in etc.iterdir()) == ["private.d", "scalarizr.toml"]


def start_fails(agent: RunningAgent, *words: str) -> str:
    finished = subprocess.run(
        [*PROGRAM, "serve", "--etc", str(agent.etc), *words], capture_output=True, text=True, timeout=100
    )
    assert finished.returncode == 1 and "Traceback" not in finished.stderr
    assert finished.stderr.startswith("Error: ") and finished.stderr.count("\n") == 1, finished.stderr
    return finished.stderr


def test_what_stops_the_start_is_one_line(tmp_path: Path) -> None:
    agent = RunningAgent(tmp_path)
    key = agent.key_file.read_bytes()
    agent.key_file.write_bytes(b"c2hvcnQ=")
    assert f"{agent.key_file}: the key has 5 bytes" in start_fails(agent)
    agent.key_file.unlink()
    assert f"{agent.key_file}: the key cannot be read: No such file" in start_fails(agent)
    agent.key_file.mkdir()
    assert "the key cannot be read: Is a directory" in start_fails(agent)
    agent.key_file.rmdir()
    agent.key_file.write_bytes(key)
    agent.write_settings("[api]\nlisten = 1\n")
    assert "scalarizr.toml, line 7: [api] listen" in start_fails(agent)
    agent.write_settings('[environment]\nsource = "queryenv"\n')
    assert "[environment] url is missing" in start_fails(agent)
    agent.write_settings()
    agent.logs.rename(tmp_path / "away")
    agent.logs.write_text("a file in the way")
    assert str(agent.logs) in start_fails(agent)
    agent.logs.unlink()
    with agent:
        assert "another agent runs on this state" in start_fails(agent, "--listen", f"127.0.0.1:{free_port()}")
        other = RunningAgent(tmp_path / "other")
        other.port = agent.port
        assert f"cannot listen on 127.0.0.1:{agent.port}" in start_fails(other, "--listen", f"127.0.0.1:{agent.port}")
        assert "address" in start_fails(other, "--listen", "nonsense")


def test_sighup_re_reads_the_settings_and_says_what_needs_a_restart(agent: RunningAgent) -> None:
    assert agent.process is not None
    agent.write_settings('[api]\nmax_body = "10 KiB"\nthreads = 3\n')
    agent.process.send_signal(signal.SIGHUP)
    agent.wait_for_log("settings re-read changed=api.max_body needs-restart=api.threads")
    with agent.client() as client, pytest.raises(Exception, match="413"):
        client.call("system.statvfs", mpoints=["x" * 20_000])
    agent.write_settings("[api]\nmax_body = 1.5\n")
    agent.process.send_signal(signal.SIGHUP)
    agent.wait_for_log("the old ones stay in force")
    with agent.client() as client:
        assert len(client.call("system.load_average")) == 3


def test_systemd_is_told_when_the_agent_is_ready(tmp_path: Path) -> None:
    import socket

    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(place))
        notify.settimeout(90)
        agent = RunningAgent(tmp_path / "agent")
        os.environ["NOTIFY_SOCKET"] = str(place)
        try:
            agent.start(wait=False)
        finally:
            del os.environ["NOTIFY_SOCKET"]
        assert notify.recv(100) == b"READY=1"
        assert agent.stop() == 0
        assert notify.recv(100) == b"STOPPING=1"


def test_completion_knows_commands_methods_and_parameters(shared_agent: RunningAgent) -> None:
    shared_agent.write_settings(f'[api]\nlisten = "127.0.0.1:{shared_agent.port}"\n')

    def words(*line: str) -> list[str]:
        command = [*PROGRAM, "--etc", str(shared_agent.etc), "completion", "words", "--", *line]
        return subprocess.run(command, capture_output=True, text=True).stdout.split()

    assert words("c") == ["call", "changes", "completion"]
    assert words("call", "system.get_h") == ["system.get_hostname"]
    assert words("call", "system.get_log", "ma") == ["maxsize="]
    assert words("operations", "") == ["list", "show", "cancel", "follow"]
    assert "--no-wait" in words("call", "--")
    for shell in ("bash", "zsh", "fish"):
        script = subprocess.run([*PROGRAM, "completion", shell], capture_output=True, text=True).stdout
        assert "scalarizr completion words" in script
    check = subprocess.run(["bash", "-n"], input=script if shell == "bash" else "", capture_output=True, text=True)
    assert check.returncode == 0


def test_make_run_starts_calls_and_stops(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "scalarizr.cli.trial", str(tmp_path / "var")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    (tmp_path / "seen").write_text("")
    seen = ""
    while "Ctrl-C stops it" not in seen:
        line = process.stdout.readline()
        if not line:
            break
        seen += line
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=90)[0]
    if process.returncode == 1:
        pytest.skip("LEFT OUT: something listens on 127.0.0.1:8010 already")
    assert process.returncode == 0 and "system.load_average" in seen and "The agent has stopped." in rest
    assert (tmp_path / "var" / "private.d" / "keys" / "default").stat().st_mode & 0o777 == 0o600
