"""How full a mount that may not answer is: asked once for all who want to know it at the same time."""

import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scalarizr.host import capacity
from scalarizr.host.capacity import Capacity
from scalarizr.host.mounts import Mount
from scalarizr.host.paths import HostPaths
from scalarizr.host.processes import wait_until


def test_two_who_ask_at_once_get_the_one_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote, asked, go_on = tmp_path / "remote", tmp_path / "asked", tmp_path / "go-on"
    remote.mkdir()
    os.mkfifo(go_on)
    programs = tmp_path / "programs"
    programs.mkdir()
    stat = programs / "stat"
    stat.write_text(f'#!/bin/sh\necho x >> "{asked}"\nread word < "{go_on}"\nexec {shutil.which("stat")} "$@"\n')
    stat.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(capacity, "PATIENCE", 60.0)
    monkeypatch.setattr(capacity, "mounts", lambda _host: [Mount(str(remote), "server:/x", "nfs4", "rw")])
    made = Capacity(HostPaths(), logging.getLogger("test"))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(made.of, [str(remote)])
        assert wait_until(asked.exists, 30)
        second = pool.submit(made.of, [str(remote)])
        assert not wait_until(second.done, 0.3), "it waits for the answer to the first"
        go_on.write_text("word\n")
        assert first.result(60) == second.result(60)
    (space,) = first.result().values()
    assert space is not None and space["total"] >= space["free"] > 0
    assert asked.read_text() == "x\n"
