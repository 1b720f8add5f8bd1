"""Scripts that a real agent runs: in order, as whom, with what, for how long, and what is kept of it."""

import base64
import os
import pwd
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from running_agent import RunningAgent
from scalarizr.client import AgentError, Client
from scalarizr.host.processes import is_alive, wait_until
from script_calls import pid_in, sh, started

TOKEN = "planted-token-5f2a"


@pytest.fixture
def agent(tmp_path: Path, bodies: Path) -> Iterator[RunningAgent]:
    with RunningAgent(tmp_path, f'[system]\nscript_dir = "{bodies}"\n') as running:
        yield running


@pytest.fixture
def client(agent: RunningAgent) -> Iterator[Client]:
    with agent.client() as opened:
        yield opened


def output(client: Client, execution_id: str) -> tuple[str, str]:
    logs = client.system.get_script_logs(exec_script_id=execution_id)
    return base64.b64decode(logs["stdout"]).decode(), base64.b64decode(logs["stderr"]).decode()


def run(client: Client, text: str, **given: Any) -> tuple[dict[str, Any], str, str]:
    """Run one script; gives its result and what it printed."""
    (result,) = client.system.execute_scripts(scripts=[sh(text, **given)])
    return (result, *output(client, result["execution_id"]))


def ends(pid: int) -> bool:
    return wait_until(lambda: not is_alive(pid), 30)


def test_scripts_run_in_their_order_and_one_that_fails_stops_nobody(
    client: Client, tmp_path: Path, agent: RunningAgent
) -> None:
    note = tmp_path / "note"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho second >> {note}; echo oops >&2; exit 3\n")
    program.chmod(0o755)
    results = client.system.execute_scripts(
        scripts=[
            sh(f"sleep 0.3; echo first >> {note}; echo out", name="one", execution_id="a-1"),
            {"name": "two", "path": str(program), "execution_id": "a-2"},
            sh(f"echo third >> {note}; kill -USR1 $$", name="three", execution_id="a-3"),
        ],
        event_name="HostUp",
        role_name="app/../front end",
    )
    assert note.read_text() == "first\nsecond\nthird\n"
    assert [(one["execution_id"], one["name"], one["return_code"]) for one in results] == [
        ("a-1", "one", 0),
        ("a-2", "two", 3),
        ("a-3", "three", -10),
    ]
    assert all(not one["timed_out"] and 0 <= one["elapsed"] < 60 for one in results)
    assert set(results[0]) == {"execution_id", "name", "return_code", "elapsed", "timed_out"}
    assert output(client, "a-1") == ("out\n", "") and output(client, "a-2") == ("", "oops\n")
    files = sorted(path for path in (agent.logs / "scripting").iterdir() if not path.name.startswith("."))
    assert [path.name for path in files[:2]] == [
        "HostUp.app_front_end.one.a-1-err.log",
        "HostUp.app_front_end.one.a-1-out.log",
    ]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)


def test_a_script_gets_a_clean_place_to_run_in(client: Client) -> None:
    mine = pwd.getpwuid(os.geteuid())
    result, out, err = run(
        client,
        "pwd; cat; umask; ls /proc/self/fd | wc -l; env | cut -d= -f1 | sort; echo $HOME\n"
        "grep -E '^Sig(Ign|Blk)' /proc/self/status >&2",
    )
    lines = out.splitlines()
    assert result["return_code"] == 0
    blocked, ignored = (int(line.split()[1], 16) for line in err.splitlines())
    # Signals 32 and 33 are the C library's own (signal(7)): no program can set them, and each inherits what there was.
    assert (blocked, ignored & ~(3 << 31)) == (0, 0), "every signal does what a program expects"
    assert lines[:3] == [os.path.realpath(mine.pw_dir), "0022", "4"], "0, 1, 2, and that of ls itself"
    assert set(lines[3:-1]) - {"TZ"} == {
        "HOME",
        "LANG",
        "LOGNAME",
        "PATH",
        "PWD",
        "SCALR_EXECUTION_ID",
        "SHELL",
        "USER",
    }
    assert lines[-1] == mine.pw_dir


@pytest.mark.root
def test_a_script_runs_as_another_account_with_its_groups(client: Client, bodies: Path) -> None:
    subprocess.run(["groupadd", "--force", "scriptgroup"], check=True)
    subprocess.run(["useradd", "-r", "-m", "-s", "/bin/bash", "-G", "scriptgroup", "scriptuser"], check=True)
    try:
        result, out, err = run(
            client,
            'id -un; id -Gn; echo "$HOME $USER $SHELL"; pwd; cat "$0" | head -1; stat -c %a:%U "$0"',
            run_as="scriptuser",
        )
        assert result["return_code"] == 0 and err == ""
        account = pwd.getpwnam("scriptuser")
        lines = out.splitlines()
        assert lines[0] == "scriptuser" and "scriptgroup" in lines[1].split() and "root" not in lines[1].split()
        assert lines[2:] == [f"{account.pw_dir} scriptuser /bin/bash", account.pw_dir, "#!/bin/sh", "700:scriptuser"]
        assert list(bodies.iterdir()) == []
    finally:
        subprocess.run(["userdel", "--remove", "--force", "scriptuser"], check=True, capture_output=True)
        subprocess.run(["groupdel", "--force", "scriptgroup"], check=False, capture_output=True)


def test_what_cannot_be_right_starts_nothing(client: Client, agent: RunningAgent, tmp_path: Path) -> None:
    def refusal(*scripts: dict[str, Any], **given: Any) -> AgentError:
        with pytest.raises(AgentError) as caught:
            client.system.execute_scripts(scripts=[sh(f"touch {tmp_path}/ran"), *scripts], **given)
        return caught.value

    refused = refusal(sh("true", run_as="no-such-account"))
    assert refused.code == -32602 and refused.data["parameter"] == "scripts[1].run_as"
    assert refusal({"name": "x", "body": "echo hi"}).data["parameter"] == "scripts[1].body"
    bad = refusal(global_variables=[{"name": "LD_PRELOAD", "value": TOKEN, "private": True}])
    assert bad.data["parameter"] == "global_variables[0].name" and TOKEN not in str(bad.data)
    assert refusal(sh("true", execution_id="../x")).code == -32602
    assert not (tmp_path / "ran").exists() and not (agent.logs / "scripting").exists()


def test_a_variable_without_a_value_is_refused(client: Client) -> None:
    with pytest.raises(AgentError) as caught:
        client.system.execute_scripts(scripts=[sh("true")], global_variables=[{"name": "A"}])
    assert caught.value.data["parameter"] == "global_variables[0].value"
    with pytest.raises(AgentError) as caught:
        client.system.execute_scripts(scripts=[sh("true", nmae="x")])
    assert caught.value.data["parameter"] == "scripts[0].nmae"


def test_lists_may_come_as_objects(client: Client) -> None:
    results = client.call(
        "system.execute_scripts",
        scripts={"1": sh("echo $B", execution_id="b"), "0": sh("echo $A", execution_id="a")},
        global_variables={"0": {"name": "A", "value": "1"}, "1": {"name": "B", "value": "2", "private": "0"}},
    )
    assert [one["execution_id"] for one in results] == ["a", "b"]
    assert output(client, "a")[0] == "1\n" and output(client, "b")[0] == "2\n"


def test_private_values_are_masked_wherever_they_come_out(client: Client, agent: RunningAgent, tmp_path: Path) -> None:
    text = (
        'echo "plain $PLAIN"; echo "token $TOKEN" >&2\n'
        'printf %s "${TOKEN%????}"; sleep 0.2; echo "${TOKEN#??????????????}"\n'
        f'[ "$TOKEN" = "{TOKEN[:7]}""{TOKEN[7:]}" ] && echo "it is right"\n'
        'cat /proc/$PPID/cmdline | tr "\\0" " "'
    )
    operation = started(
        client,
        sh(text, execution_id="m"),
        global_variables=[
            {"name": "PLAIN", "value": "seen-by-all"},
            {"name": "TOKEN", "value": TOKEN, "private": True},
        ],
    )
    result = operation.wait()
    out, err = output(client, "m")
    assert "plain seen-by-all\n" in out and "it is right" in out and err == "token ******\n"
    record = operation.record()
    assert "job: token ******" in record.logs and "job: plain seen-by-all" in record.logs
    for seen in (out, err, str(result), str(record), str(client.operation.list()), agent.log_text()):
        assert TOKEN not in seen
    assert "it is right" not in agent.log_text(), "the text of a script is in no log of the agent's"
    everything = [path for path in tmp_path.rglob("*") if path.is_file() and "etc" not in path.parts]
    assert len(everything) > 5 and not [path for path in everything if TOKEN.encode() in path.read_bytes()]


@pytest.mark.parametrize("told", ["dies of it", "is deaf"])
def test_at_its_limit_a_script_ends_with_all_that_it_started(client: Client, tmp_path: Path, told: str) -> None:
    daemon, background = tmp_path / "daemon", tmp_path / "background"
    trap = "trap '' TERM; " if told == "is deaf" else ""
    text = (
        f"{trap}rm -f {daemon} {background}\n"
        f"(setsid sh -c '(setsid sh -c \"exec >/dev/null 2>&1; echo \\$\\$ > {daemon}; exec sleep 600\" &)' &)\n"
        f"sh -c 'echo $$ > {background}; exec sleep 600' &\n"
        f"while [ ! -s {daemon} ] || [ ! -s {background} ]; do sleep 0.05; done; echo ready; exec sleep 600"
    )
    for limit in (2, 10, 50):  # a slow machine gets another try
        result, out, _err = run(client, text, timeout=limit)
        if out == "ready\n":
            break
    assert out == "ready\n" and result["timed_out"] and result["elapsed"] >= limit
    assert result["return_code"] == (-9 if told == "is deaf" else -15)
    assert not is_alive(pid_in(daemon)) and not is_alive(pid_in(background))


def test_what_a_script_leaves_at_its_output_ends_with_it_and_a_daemon_goes_on(client: Client, tmp_path: Path) -> None:
    held, daemon = tmp_path / "held", tmp_path / "daemon"
    result, out, _err = run(
        client,
        f"setsid sh -c 'echo $$ > {held}; exec sleep 600' &\n"
        f"setsid sh -c 'echo $$ > {daemon}; exec sleep 600' >/dev/null 2>&1 &\n"
        f"while [ ! -s {held} ] || [ ! -s {daemon} ]; do sleep 0.05; done; echo done",
    )
    assert out == "done\n" and result["return_code"] == 0 and not result["timed_out"]
    assert ends(pid_in(held))
    assert is_alive(pid_in(daemon))
    os.kill(pid_in(daemon), 9)


def test_output_through_a_program_that_ends_a_little_later_is_kept(client: Client, tmp_path: Path) -> None:
    _result, out, _err = run(client, "(sleep 0.3; echo late) &\necho early")
    assert out == "early\nlate\n"


def test_a_script_that_prints_for_ever_fills_no_disk(agent: RunningAgent, bodies: Path) -> None:
    agent.stop()
    agent.write_settings(f'[system]\nscript_dir = "{bodies}"\nscript_log_size = "100 KiB"\n')
    with agent.start().client() as client:
        result, out, _err = run(client, "yes planted", timeout=2)
        assert result["timed_out"]
        assert len(out) < 110 * 1024 and out.endswith("[cut: more than 102400 bytes are not kept]\n")


def test_asynchronous_scripts_run_on_after_the_answer_and_after_the_agent(
    client: Client, agent: RunningAgent, tmp_path: Path, bodies: Path
) -> None:
    go, pid = tmp_path / "go", tmp_path / "pid"
    os.mkfifo(go)
    first, second, third = client.system.execute_scripts(
        scripts=[
            sh(f"echo $$ > {pid}; cat {go}; echo done; exit 4", asynchronous=True, execution_id="x"),
            sh("sleep 600", asynchronous=True, execution_id="y", timeout=4),
            sh("echo next", execution_id="z"),
        ]
    )
    assert first == {"execution_id": "x", "name": "job", "return_code": None, "elapsed": None, "timed_out": False}
    assert second["return_code"] is None and third["return_code"] == 0
    script = pid_in(pid)
    assert is_alive(script) and client.operation.has_in_progress() is False
    agent.kill()
    assert is_alive(script)
    with open(go, "w") as file:
        file.write("word\n")
    assert ends(script)
    log = agent.logs / "scripting" / "none.none.job.x-out.log"
    assert wait_until(lambda: log.read_text() == "word\ndone\n", 30)
    assert wait_until(lambda: list(bodies.iterdir()) == [], 30), "the second one ended at its limit"
    with agent.start().client() as again:
        assert output(again, "x") == ("word\ndone\n", "")


def test_an_operation_shows_its_lines_and_is_cancelled_with_all_that_it_started(
    client: Client, tmp_path: Path, bodies: Path
) -> None:
    daemon = tmp_path / "daemon"
    operation = started(
        client,
        sh("echo hello from the first", name="first"),
        sh(
            f"(setsid sh -c 'echo $$ > {daemon}; exec sleep 600' &); echo at it; sleep 600",
            name="second",
            execution_id="s",
        ),
        sh(f"touch {tmp_path}/third", name="third", execution_id="t"),
    )
    pid = pid_in(daemon)
    assert wait_until(lambda: "second: at it" in operation.record().logs, 30)
    record = operation.record()
    assert "first: hello from the first" in record.logs
    assert record.progress["done"] == 1 and record.progress["total"] == 3 and record.progress["step"] == "second"
    assert output(client, "s") == ("at it\n", ""), "a script that runs can be read"
    operation.cancel()
    assert wait_until(lambda: operation.record().status == "canceled", 60)
    assert not is_alive(pid) and not (tmp_path / "third").exists() and list(bodies.iterdir()) == []
    assert "there never was one" in output(client, "t")[0]


def test_an_execution_id_is_used_once(client: Client) -> None:
    run(client, "echo one", execution_id="7")
    with pytest.raises(AgentError, match="execution id 7 before") as caught:
        run(client, "echo two", execution_id="7", name="other")
    assert caught.value.code == -32012
    assert output(client, "7")[0] == "one\n"


def test_the_same_call_made_again_while_it_runs_starts_nothing(client: Client, tmp_path: Path) -> None:
    operation = started(client, sh(f"echo $$ > {tmp_path}/pid; sleep 600", execution_id="7"))
    pid_in(tmp_path / "pid")
    with pytest.raises(AgentError) as caught:
        started(client, sh("true", execution_id="7"))
    assert caught.value.code == -32010 and caught.value.data["operation_id"] == operation.id
    run(client, "echo others go on")
    operation.cancel()
    assert wait_until(lambda: operation.record().status == "canceled", 60)


def test_what_cannot_be_started_ends_as_a_shell_says_it(client: Client, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\n")
    results = client.system.execute_scripts(
        scripts=[
            {"name": "gone", "path": "/no/such/file", "execution_id": "1"},
            {"name": "plain", "path": str(plain), "execution_id": "2"},
            {"name": "interpreter", "body": "#!/no/such/interpreter\n", "execution_id": "3"},
        ]
    )
    assert [one["return_code"] for one in results] == [127, 126, 127]
    assert "/no/such/file: No such file" in output(client, "1")[1]
    assert "Permission denied" in output(client, "2")[1]
    assert "/no/such/interpreter: No such file" in output(client, "3")[1]


@pytest.mark.root
def test_scripts_run_from_file_systems_that_are_mounted_noexec(client: Client, bodies: Path) -> None:
    bodies.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec", "none", bodies], check=True)
    try:
        bodies.chmod(0o711)
        file = bodies / "file"
        file.write_text("#!/bin/sh -e\necho file; false; echo never\n")
        file.chmod(0o755)
        with pytest.raises(PermissionError):
            subprocess.run([file], check=False)
        result, out, _err = run(client, "echo body", run_as="nobody")
        assert (result["return_code"], out) == (0, "body\n")
        (result,) = client.system.execute_scripts(scripts=[{"path": str(file), "execution_id": "f"}])
        assert result["return_code"] == 1 and result["name"] == "file" and output(client, "f")[0] == "file\n"
    finally:
        subprocess.run(["umount", bodies], check=True)


def test_logs_are_kept_for_their_time(agent: RunningAgent, client: Client) -> None:
    run(client, "echo old", execution_id="old")
    for path in (agent.logs / "scripting").glob("*.log"):
        os.utime(path, (time.time() - 86_300,) * 2)
    assert output(client, "old")[0] == "old\n"
    for path in (agent.logs / "scripting").glob("*.log"):
        os.utime(path, (time.time() - 86_500,) * 2)
    assert "rotated away" in output(client, "old")[0]
    assert list((agent.logs / "scripting").glob("*.log")) == []


def test_scripts_are_described(client: Client) -> None:
    described: Callable[..., Any] = client.rpc.discover
    methods = {method["name"]: method for method in described()["methods"]}
    assert methods["system.execute_scripts"]["x-kind"] == "operation"
    assert [one["name"] for one in methods["system.execute_scripts"]["params"]][:2] == ["scripts", "global_variables"]
