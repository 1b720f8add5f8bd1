"""What a caller says of scripts, checked: each value against what it may be, all of them before anything runs."""

import os
import pwd
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from scalarizr.errors import InvalidParameter
from scalarizr.rpc.types import as_boolean
from scalarizr.secret import Secret

MOST_SCRIPTS = 100
LONGEST_TIMEOUT = 30 * 86400.0
_KEYS = ("name", "body", "path", "run_as", "timeout", "asynchronous", "execution_id")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_DECIMAL = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?", re.ASCII)
# A string of the environment may have 131,072 bytes with its name and the zero at its end (execve(2)).
_LONGEST_VALUE = 130_000
_LARGEST_ENVIRONMENT = 1_000_000
# The account's own, and what changes which code a program loads before it has begun. A script that wants another PATH
# sets it in a line of its own.
_REFUSED = re.compile(
    r"LD_\w+|GLIBC_TUNABLES|GCONV_PATH|BASH_ENV|ENV|BASHOPTS|SHELLOPTS|IFS|PS4|PROMPT_COMMAND"
    r"|PATH|HOME|USER|LOGNAME|SHELL|PWD|SCALR_EXECUTION_ID"
    r"|PYTHON(?:PATH|HOME|STARTUP|INSPECT)|PERL5?(?:LIB|OPT|DB)|RUBY(?:LIB|OPT)|NODE_OPTIONS|JAVA_TOOL_OPTIONS",
    re.ASCII,
)


class Account(msgspec.Struct, frozen=True):
    """Whom a script runs as.

    :param name: of the account.
    :param uid: its number.
    :param gid: its group.
    :param groups: all groups that it is in.
    :param home: its home directory.
    :param shell: its login shell.
    """

    name: str
    uid: int
    gid: int
    groups: list[int]
    home: str
    shell: str


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """A script to be run.

    :param name: for people, and in the name of its logs.
    :param execution_id: of this run of it.
    :param body: its text; None where `path` names a file.
    :param path: the file.
    :param account: whom it runs as.
    :param timeout: seconds.
    :param asynchronous: nobody waits for its end.
    """

    name: str
    execution_id: str
    body: str | None
    path: str | None
    account: Account
    timeout: float
    asynchronous: bool


class Variables(msgspec.Struct, frozen=True):
    """The variables that scripts get.

    :param values: by name.
    :param private: the values that must not be seen.
    """

    values: dict[str, str]
    private: list[str]


def read_scripts(given: Sequence[Mapping[str, Any]], timeout: float) -> list[Script]:
    """Check scripts.

    :param given: as they came.
    :param timeout: seconds for those that bring no limit of their own.
    :raises InvalidParameter: naming the first value that cannot be accepted.
    """
    if not 1 <= len(given) <= MOST_SCRIPTS:
        raise InvalidParameter("scripts", f"{len(given)} scripts", f"1 to {MOST_SCRIPTS} scripts")
    scripts = [_script(one, f"scripts[{index}]", timeout) for index, one in enumerate(given)]
    seen: set[str] = set()
    for index, script in enumerate(scripts):
        if script.execution_id in seen:
            raise InvalidParameter(
                f"scripts[{index}].execution_id",
                repr(script.execution_id),
                "an id that no other script of this call has",
            )
        seen.add(script.execution_id)
    return scripts


def read_variables(given: Sequence[Mapping[str, Any]]) -> Variables:
    """Check global variables.

    :param given: as they came; values may be secrets already.
    :raises InvalidParameter: naming the first one that cannot be accepted; it never shows a value.
    """
    values: dict[str, str] = {}
    private: list[str] = []
    for index, one in enumerate(given):
        path = f"global_variables[{index}]"
        _only_known(one, ("name", "value", "private"), path)
        name, value = _plain(one.get("name")), _plain(one.get("value"))
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise InvalidParameter(f"{path}.name", None, "a letter or `_`, then letters, digits and `_`, at most 128")
        if _REFUSED.fullmatch(name):
            raise InvalidParameter(
                f"{path}.name", name, "a variable that does not change how programs are found, loaded or started"
            )
        if name in values:
            raise InvalidParameter(f"{path}.name", name, "a name that no other variable of this call has")
        if type(value) is int:
            value = str(value)
        if not isinstance(value, str) or "\0" in value or len(_encoded(value, f"{path}.value")) > _LONGEST_VALUE:
            raise InvalidParameter(f"{path}.value", None, f"a string without NUL, at most {_LONGEST_VALUE} bytes")
        values[name] = value
        if _boolean(_plain(one.get("private", False)), f"{path}.private"):
            private.append(value)
    if sum(len(name) + len(_encoded(value, name)) for name, value in values.items()) > _LARGEST_ENVIRONMENT:
        raise InvalidParameter("global_variables", None, f"at most {_LARGEST_ENVIRONMENT} bytes in all")
    return Variables(values, private)


def _script(given: Mapping[str, Any], path: str, default_timeout: float) -> Script:
    _only_known(given, _KEYS, path)
    body, file = _plain(given.get("body")), given.get("path")
    if (body is None) == (file is None):
        raise InvalidParameter(path, "both" if body is not None else "neither", "either `body` or `path`")
    if body is not None:
        _check_body(body, f"{path}.body")
    elif not isinstance(file, str) or not os.path.isabs(file) or "\0" in file:
        raise InvalidParameter(f"{path}.path", _shown(file), "the absolute path of a file")
    name = given.get("name")
    if name is None:
        name = os.path.basename(file) if isinstance(file, str) else "script"
    if not isinstance(name, str) or not 1 <= len(name) <= 255 or not name.isprintable():
        raise InvalidParameter(f"{path}.name", _shown(name), "1 to 255 printable characters")
    identity = given.get("execution_id")
    if type(identity) is int:
        identity = str(identity)
    if identity is None:
        identity = str(uuid.uuid4())
    if not isinstance(identity, str) or not _ID.fullmatch(identity):
        raise InvalidParameter(
            f"{path}.execution_id", _shown(identity), "letters, digits, `-` and `_`, at most 64 of them"
        )
    return Script(
        name=name,
        execution_id=identity,
        body=body,
        path=file,
        account=_account(given.get("run_as"), f"{path}.run_as"),
        timeout=_timeout(given.get("timeout"), f"{path}.timeout", default_timeout),
        asynchronous=_boolean(given.get("asynchronous", False), f"{path}.asynchronous"),
    )


def _check_body(body: Any, path: str) -> None:
    if not isinstance(body, str) or not body.startswith("#!"):
        raise InvalidParameter(path, None, "the text of a script whose first line names its interpreter (`#!/bin/sh`)")
    first = body.split("\n", 1)[0]
    if first.endswith("\r"):
        raise InvalidParameter(path, None, "lines that end with LF: the first one ends with CR LF")
    if not first[2:].strip(" \t").startswith("/"):
        raise InvalidParameter(path, None, "the absolute path of an interpreter in the first line")
    _encoded(body, path)


def _account(name: Any, path: str) -> Account:
    try:
        if name is None or name == "":
            entry = pwd.getpwuid(os.geteuid())
        elif isinstance(name, str) and "\0" not in name:
            entry = pwd.getpwnam(name)
        else:
            raise KeyError
    except KeyError:
        raise InvalidParameter(path, _shown(name), "the name of an account of this host") from None
    if os.geteuid() != 0 and entry.pw_uid != os.geteuid():
        raise InvalidParameter(
            path, _shown(name), f"{pwd.getpwuid(os.geteuid()).pw_name}: the agent does not run as root"
        )
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir, entry.pw_shell or "/bin/sh")


def _timeout(value: Any, path: str, default: float) -> float:
    if value is None:
        return float(default)
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LONGEST_TIMEOUT:
        raise InvalidParameter(path, _shown(value), f"seconds, more than 0 and at most {LONGEST_TIMEOUT:.0f}")
    return float(value)


def _boolean(value: Any, path: str) -> bool:
    found = as_boolean(value)
    if found is None:
        raise InvalidParameter(path, None, "a boolean")
    return found


def _only_known(given: Mapping[str, Any], known: Sequence[str], path: str) -> None:
    for key in given:
        if key not in known:
            raise InvalidParameter(f"{path}.{str(key)[:60]}", "a key that is not known", "one of " + ", ".join(known))


def _plain(value: Any) -> Any:
    return value.reveal() if isinstance(value, Secret) else value


def _encoded(text: str, path: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidParameter(path, None, "text that UTF-8 can hold") from None


def _shown(value: Any) -> str:
    return repr(value)[:60]
