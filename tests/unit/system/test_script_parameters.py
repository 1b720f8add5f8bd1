"""What a caller says of scripts: every value that cannot be right is refused by name, before anything runs."""

import os
import pwd
from typing import Any

import pytest

from scalarizr.errors import InvalidParameter
from scalarizr.secret import Secret
from scalarizr.system.script_parameters import Script, read_scripts, read_variables

BODY = "#!/bin/sh\ntrue\n"


def script(**given: Any) -> Script:
    return read_scripts([{"name": "job", "body": BODY, **given}], 1200)[0]


def refused(given: list[dict[str, Any]]) -> str:
    with pytest.raises(InvalidParameter) as caught:
        read_scripts(given, 1200)
    return str(caught.value)


def refused_variable(given: list[dict[str, Any]]) -> str:
    with pytest.raises(InvalidParameter) as caught:
        read_variables(given)
    return str(caught.value)


def test_what_is_not_said_has_a_default() -> None:
    one = script()
    assert one.timeout == 1200 and not one.asynchronous and len(one.execution_id) == 36
    assert one.account.uid == os.geteuid() and one.account.name == pwd.getpwuid(os.geteuid()).pw_name
    assert script(name=None).name == "script"
    assert read_scripts([{"path": "/opt/x.sh"}], 5)[0].name == "x.sh"
    assert script().execution_id != script().execution_id


@pytest.mark.parametrize("value", [True, 1, "1", "true"])
def test_booleans_and_numbers_come_as_control_planes_send_them(value: Any) -> None:
    one = script(asynchronous=value, timeout="1.5", execution_id=77)
    assert one.asynchronous and one.timeout == 1.5 and one.execution_id == "77"
    assert read_variables([{"name": "A", "value": "secret", "private": value}]).private == ["secret"]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"body": "echo hi"}, "scripts[0].body"),
        ({"body": "#!/bin/sh\r\ntrue\r\n"}, "CR LF"),
        ({"body": "#!sh\n"}, "absolute path of an interpreter"),
        ({"body": None}, "either `body` or `path`"),
        ({"path": "/bin/true"}, "either `body` or `path`"),
        ({"body": None, "path": "bin/true"}, "scripts[0].path"),
        ({"run_as": "nobody-of-that-name"}, "scripts[0].run_as"),
        ({"run_as": 0}, "scripts[0].run_as"),
        ({"timeout": 0}, "scripts[0].timeout"),
        ({"timeout": -1}, "scripts[0].timeout"),
        ({"timeout": float("inf")}, "scripts[0].timeout"),
        ({"timeout": True}, "scripts[0].timeout"),
        ({"timeout": "soon"}, "scripts[0].timeout"),
        ({"asynchronous": "maybe"}, "scripts[0].asynchronous"),
        ({"execution_id": "../../etc/passwd"}, "scripts[0].execution_id"),
        ({"execution_id": "a.b"}, "scripts[0].execution_id"),
        ({"execution_id": "x" * 65}, "scripts[0].execution_id"),
        ({"execution_id": ""}, "scripts[0].execution_id"),
        ({"name": "a\nb"}, "scripts[0].name"),
        ({"name": ""}, "scripts[0].name"),
        ({"shell": True}, "scripts[0].shell"),
    ],
)
def test_what_cannot_be_right_is_named(given: dict[str, Any], named: str) -> None:
    assert named in refused([{"name": "job", "body": BODY, **given}])


def test_two_scripts_have_two_ids() -> None:
    one = {"name": "job", "body": BODY, "execution_id": "7"}
    assert "scripts[1].execution_id" in refused([one, one])
    assert "1 to 100" in refused([]) and "1 to 100" in refused([{"body": BODY}] * 101)


@pytest.mark.parametrize(
    "name", ["LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "BASH_ENV", "ENV", "IFS", "HOME", "PYTHONPATH", "GLIBC_TUNABLES"]
)
def test_variables_that_change_how_programs_start_are_refused(name: str) -> None:
    assert name in refused_variable([{"name": name, "value": "x"}])
    assert read_variables([{"name": f"MY_{name}", "value": "x"}]).values


@pytest.mark.parametrize(
    "given",
    [
        {"name": "BASH_FUNC_ls%%", "value": "planted"},
        {"name": "A=B", "value": "planted"},
        {"name": "1A", "value": "planted"},
        {"name": "Ä", "value": "planted"},
        {"value": "planted"},
        {"name": "A", "value": "planted\0more"},
        {"name": "A", "value": ["planted"]},
        {"name": "A", "value": None},
        {"name": "A", "value": "planted" * 30_000},
        {"name": "A", "value": "planted", "private": "perhaps"},
        {"name": "A", "value": "planted", "secret": True},
        {"name": "A", "value": "planted\ud800"},
    ],
)
def test_a_variable_that_is_none_is_refused_without_showing_its_value(given: dict[str, Any]) -> None:
    assert "planted" not in refused_variable([given])


def test_variables_are_the_same_plain_or_as_secrets() -> None:
    plain = [{"name": "A", "value": "one", "private": "1"}, {"name": "B", "value": 5, "private": False}]
    hidden = [{"name": Secret("A"), "value": Secret("one"), "private": Secret("1")}, {"name": Secret("B"), "value": 5}]
    assert read_variables(plain) == read_variables(hidden)
    assert read_variables(plain).values == {"A": "one", "B": "5"} and read_variables(plain).private == ["one"]
    assert "B" in refused_variable([plain[1], plain[1]])


def test_an_environment_that_no_program_could_get_is_refused() -> None:
    assert "bytes in all" in refused_variable([{"name": f"V{n}", "value": "x" * 120_000} for n in range(9)])
