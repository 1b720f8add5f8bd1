"""Each check of `scalarizr doctor`, seen to find what it looks for."""

import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scalarizr.cli import checks
from scalarizr.envelope.key import make_key_text
from scalarizr.settings.load import load_settings
from scalarizr.settings.model import Settings


def settings(tmp_path: Path, text: str = "") -> Settings:
    (tmp_path / "scalarizr.toml").write_text(f'[paths]\nstate = "state"\nlogs = "logs"\n{text}')
    return load_settings(tmp_path)


def verdicts(check: object, given: Settings) -> list[tuple[str, str]]:
    return [(finding.verdict, finding.words) for finding in check(given)]  # type: ignore[operator]


def test_the_key(tmp_path: Path) -> None:
    given = settings(tmp_path)
    key = tmp_path / "private.d" / "keys" / "default"

    def found() -> list[tuple[str, str]]:
        return [(finding.verdict, finding.words) for finding in checks.check_keys(tmp_path, given)]

    assert found()[0][0] == "fail" and "scalarizr init" in found()[0][1]
    key.parent.mkdir(parents=True)
    key.write_bytes(make_key_text())
    key.chmod(0o644)
    assert "readable by others" in found()[0][1]
    key.chmod(0o600)
    assert found() == [("ok", str(key))]
    key.write_bytes(b"c2hvcnQ=")
    assert found()[0][0] == "fail"


def test_every_key_that_is_accepted(tmp_path: Path) -> None:
    given = settings(tmp_path)
    key = tmp_path / "private.d" / "keys" / "deploy"
    key.parent.mkdir(parents=True)
    key.write_bytes(make_key_text())
    key.chmod(0o600)
    soon = datetime.now(UTC) + timedelta(days=3)
    rules = tmp_path / "keys.toml"

    def found(text: str) -> dict[str, str]:
        rules.write_text(text)
        rules.chmod(0o600)
        return {
            finding.words.split()[0].split("/")[-1]: finding.verdict for finding in checks.check_keys(tmp_path, given)
        }

    off = "[default]\nenabled = false\n"
    assert found(f'{off}[deploy]\nallow = ["*"]\n') == {"default": "ok", "deploy": "ok"}
    assert found(f'{off}[deploy]\nallow = ["*"]\nexpires = {soon.isoformat()}\n')["deploy"] == "warn"
    assert found(f'{off}[deploy]\nallow = ["*"]\nexpires = 2020-01-01T00:00:00Z\n')["deploy"] == "warn"
    assert list(found(f'{off}[absent]\nallow = ["*"]\n').values()) == ["ok", "fail"]
    assert list(found("[deploy]\nnonsense = 1\n").values()) == ["fail"]


def test_the_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        given = settings(tmp_path, f'[api]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\n')
        assert verdicts(checks.check_agent, given)[0][0] == "warn"
        taken.listen()
        key = tmp_path / "private.d" / "keys" / "default"
        key.parent.mkdir(parents=True)
        key.write_bytes(make_key_text())
        ((verdict, words),) = verdicts(checks.check_agent, given)
        assert verdict == "fail" and "ss -ltnp" in words


def test_directories(tmp_path: Path) -> None:
    given = settings(tmp_path)
    assert all("GiB free" in words for _, words in verdicts(checks.check_directories, given))
    (tmp_path / "logs").write_text("in the way")
    assert verdicts(checks.check_directories, given)[1][0] == "fail"


@pytest.mark.root
def test_a_disk_that_is_full_or_nearly(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    for size, verdict in (("10m", "fail"), ("200m", "warn")):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", tmp_path / "state"], check=True)
        try:
            assert verdicts(checks.check_directories, settings(tmp_path))[0][0] == verdict
        finally:
            subprocess.run(["umount", tmp_path / "state"], check=True)


def test_the_clock_and_who_keeps_it(tmp_path: Path) -> None:
    ((verdict, words),) = verdicts(checks.check_clock, settings(tmp_path))
    assert verdict in ("ok", "warn") and ("kept by" in words or "300 s" in words)
    script = tmp_path / "chronyd"
    script.symlink_to(sys.executable)
    keeper = subprocess.Popen(
        [script, "-c", "import time; print(1, flush=True); time.sleep(30)"], stdout=subprocess.PIPE
    )
    assert keeper.stdout and keeper.stdout.read(1) == b"1"
    try:
        if Path(f"/proc/{keeper.pid}/comm").read_text().strip() == "chronyd":
            assert verdicts(checks.check_clock, settings(tmp_path))[0][0] == "ok"
    finally:
        keeper.kill()
        keeper.communicate()


def test_programs_and_their_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = settings(tmp_path)
    (tmp_path / "nginx").write_text("#!/bin/sh\necho nginx version: nginx/9.9 >&2\n")
    (tmp_path / "mongod").write_text("#!/bin/sh\nexit 3\n")
    for name in ("nginx", "mongod"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = {finding.check: finding for finding in checks.check_programs(given)}
    assert found["nginx"].words.endswith("nginx version: nginx/9.9") and found["mongodb"].verdict == "warn"
    assert set(found) == {"nginx", "apache", "postgresql", "mongodb"}


def test_the_service_manager(tmp_path: Path) -> None:
    assert verdicts(checks.check_service_manager, settings(tmp_path))[0][0] in ("ok", "warn")


def test_doctor_ends_with_1_where_something_failed(tmp_path: Path) -> None:
    settings(tmp_path)
    command = [sys.executable, "-m", "scalarizr", "doctor", "--etc", tmp_path]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 1 and '"check": "key", "verdict": "fail"' in finished.stdout
    (tmp_path / "scalarizr.toml").write_text("[api]\nlisten = 5\n")
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 1 and "expected text or a list" in finished.stdout
