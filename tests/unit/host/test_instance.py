"""One agent on one state directory: who holds it, and its word that it has read its settings again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scalarizr.host.instance import Word, hold, now, say
from scalarizr.host.telling import NoWord, have_settings_read

AGENT = """
import signal, sys
from pathlib import Path
from scalarizr.host.instance import Word, hold, now, say

state = Path(sys.argv[1])
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
assert hold(state) is not None
print("holds", flush=True)
while True:
    signal.sigwait([signal.SIGHUP])
    if sys.argv[2] == "ends":
        sys.exit()
    if sys.argv[2] == "says":
        say(state, Word(now(), ["a line is wrong"]))
"""


def start(state: Path, how: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", AGENT, str(state), how], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"holds\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(30)
    assert process.stdout is not None
    process.stdout.close()


def test_where_nobody_holds_it_nobody_is_told(tmp_path: Path) -> None:
    assert have_settings_read(tmp_path) is None
    descriptor = os.open(tmp_path / "lock", os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, str(os.getppid()).encode())
    os.close(descriptor)
    assert have_settings_read(tmp_path) is None, "what a file says of a process is nothing"


def test_the_agent_is_told_and_its_word_is_waited_for(tmp_path: Path) -> None:
    process = start(tmp_path, "says")
    try:
        assert hold(tmp_path) is None, "one agent on one directory"
        say(tmp_path, Word(now(), ["an earlier word"]))
        before = now()
        word = have_settings_read(tmp_path, patience=60)
        assert word is not None and word.problems == ["a line is wrong"] and word.began >= before
    finally:
        end(process)
    assert have_settings_read(tmp_path) is None


def test_an_agent_that_ends_meanwhile_is_none(tmp_path: Path) -> None:
    process = start(tmp_path, "ends")
    try:
        assert have_settings_read(tmp_path, patience=60) is None
    finally:
        end(process)


def test_an_agent_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    process = start(tmp_path, "is silent")
    try:
        with pytest.raises(NoWord, match="did not say within"):
            have_settings_read(tmp_path, patience=0.2)
    finally:
        end(process)
