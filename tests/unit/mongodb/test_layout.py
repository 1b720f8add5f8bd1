"""Recognising the two kinds of monitoring agents, and writing their configuration."""

import sys
from pathlib import Path

import pytest

from monitoring_package import CONFIGURATION, SETTINGS
from scalarizr.errors import NotSupported
from scalarizr.mongodb.layout import Keys, Layout, find_layout
from scalarizr.mongodb.place import Login
from scalarizr.secret import Secret

KEYS = Keys(Secret("group"), Secret("secret"))


def classic(text: str, login: Login | None = None, keys: Keys = KEYS) -> str:
    return Layout("classic", Path("/a/agent.py"), Path("/a/settings.py")).configured(text, keys, login, Path("/data"))


def values(text: str) -> dict[str, object]:
    found: dict[str, object] = {}
    exec(text, found)  # what the classic agent does with its settings
    return found


def test_the_classic_settings_keep_all_but_what_is_set() -> None:
    text = classic(SETTINGS, Login("scalr", Secret("pass'word\"\\")))
    assert {"mms_key": "group", "secret_key": "secret", "kept": 42}.items() <= values(text).items()
    assert values(text)["globalAuthUsername"] == "scalr" and values(text)["globalAuthPassword"] == "pass'word\"\\"
    assert text.startswith("# The agent's settings.\n") and "yourAdminUser" not in text and "@" not in text


def test_it_is_set_again_and_again_without_growing() -> None:
    once = classic(SETTINGS, Login("scalr", Secret("one")))
    assert classic(once, Login("scalr", Secret("one"))) == once
    again = classic(once, None, Keys(Secret("other"), Secret("another")))
    assert values(again)["mms_key"] == "other" and values(again)["globalAuthUsername"] is None
    assert again.count("\n") == once.count("\n")


@pytest.mark.parametrize("password", ["é" * 3, "\n", "'''", '"""', "\\", "# no comment", "${x}%s\0"])
def test_any_password_is_what_python_reads(password: str) -> None:
    text = classic(SETTINGS, Login("user\n", Secret(password)))
    assert values(text)["globalAuthPassword"] == password and values(text)["globalAuthUsername"] == "user\n"
    assert text.isascii()


def test_what_the_settings_did_not_name_is_added() -> None:
    assert values(classic("kept = 42"))["secret_key"] == "secret"
    assert values(classic(""))["mms_key"] == "group"


def test_a_later_assignment_does_not_win() -> None:
    assert values(classic('mms_key = "a"\nkept = 1\nmms_key = "b"\n'))["mms_key"] == "group"


def test_the_automation_configuration_keeps_all_but_what_is_set() -> None:
    layout = Layout("automation", Path("/p"), Path("/c"))
    text = layout.configured(CONFIGURATION, KEYS, Login("scalr", Secret("password")), Path("/data"))
    lines = text.splitlines()
    assert (
        "mmsGroupId=group" in lines
        and "mmsApiKey=secret" in lines
        and "mmsBaseUrl=https://api-agents.mongodb.com" in lines
    )
    assert "logFile=/data/automation-agent.log" in lines and "password" not in text
    assert layout.configured(text, KEYS, None, Path("/data")) == text
    assert layout.command() == ["/p", "-f", "/c"]


def make(directory: Path, *names: str) -> Path:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/usr/bin/env python3\n")
        path.chmod(0o755)
    return directory


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("mms-agent/agent.py", "mms-agent/settings.py"), "classic"),
        (("agent.py", "settings.py", "lib/agent.py"), "classic"),
        (("x/mongodb-mms-automation-agent", "x/automation-agent.config"), "automation"),
        (("x/mongodb-mms-automation-agent", "x/local.config"), "automation"),
        (("opt/a/bin/mongodb-mms-automation-agent", "etc/mongodb-mms/automation-agent.config"), "automation"),
    ],
)
def test_each_kind_is_recognised_by_its_files(tmp_path: Path, names: tuple[str, ...], kind: str) -> None:
    layout = find_layout(make(tmp_path, *names))
    assert layout.kind == kind and layout.program.is_file() and layout.configuration.is_file()


@pytest.mark.parametrize("names", [(), ("agent.py",), ("a/agent.py", "b/settings.py"), ("x/automation-agent.config",)])
def test_half_of_one_is_none(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(NotSupported, match="no monitoring agent of a known kind"):
        find_layout(make(tmp_path, *names))


def test_the_interpreter_is_the_one_that_the_script_names(tmp_path: Path) -> None:
    script = tmp_path / "agent.py"
    layout = Layout("classic", script, tmp_path / "settings.py")
    script.write_text(f"#!{sys.executable} -u\n")
    assert layout.command() == [sys.executable, str(script)]
    script.write_text("#!/usr/bin/env python3\n")
    assert Path(layout.command()[0]).name == "python3" or layout.command()[0] == sys.executable
    for text in ("", "import x\n", "#!/bin/sh\n", "#!\n"):
        script.write_text(text)
        assert "python" in Path(layout.command()[0]).name
