"""Running scripts one after the other, each under a keeper of its own, with progress and live lines.

This is the worker's side. A script's limits, logs and end are its keeper's (`script_keeper`).
"""

import contextlib
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from scalarizr.errors import Fact, OutsideFailure
from scalarizr.operations.progress import Running, current
from scalarizr.system import process_tree, script_logs
from scalarizr.system.kept_script import ENDING, KeptScript
from scalarizr.system.script_parameters import Account, Script, Variables

_PATH = {0: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_PATH_OF_OTHERS = "/usr/local/bin:/usr/bin:/bin"
# In the environment of a script and of all that it starts.
_MARK = "SCALR_EXECUTION_ID"
# What a keeper may take to its script's start, and beyond the script's limit.
_STARTING, _BEYOND = 60.0, 60.0
_ABANDONED = 60.0


class Places(msgspec.Struct, frozen=True):
    """Where scripts and their output lie, and how much of it.

    :param logs: directory of the logs.
    :param bodies: directory of scripts that came as text, while they run.
    :param keep: seconds that logs are kept.
    :param log_size: bytes of one log.
    :param logs_size: bytes of all logs.
    """

    logs: Path
    bodies: Path
    keep: float
    log_size: int
    logs_size: int


def run_scripts(
    scripts: Sequence[Script], variables: Variables, places: Places, event: str | None, role: str | None
) -> list[dict[str, Any]]:
    """Run scripts in their order. One that fails, or takes too long, does not keep the next one from running.

    :return: `[{execution_id, name, return_code, elapsed, timed_out}]`.
    :raises AlreadyExists: an execution id was used before; nothing was started.
    :raises OutsideFailure: logs or keepers cannot be had; the facts hold the results until then.
    """
    running = current()
    stems = {
        script.execution_id: script_logs.log_stem(event, role, script.name, script.execution_id) for script in scripts
    }
    with contextlib.suppress(OSError):
        script_logs.prune(places.logs, places.keep, places.logs_size)
    if any(script.body is not None for script in scripts):
        _make_ready(places.bodies)
    script_logs.reserve(places.logs, stems)
    process_tree.adopt_orphans()
    results: list[dict[str, Any]] = []
    waiting = list(scripts)
    try:
        for script in scripts:
            _show(running, len(results), len(scripts), script.name)
            waiting.remove(script)
            results.append(_run(script, stems[script.execution_id], variables, places, running))
        _show(running, len(results), len(scripts), "done")
    except OutsideFailure as failure:
        failure.facts["results"] = _facts(results)
        raise
    finally:
        script_logs.give_up(places.logs, [stems[script.execution_id] for script in waiting])
    return results


def end_execution(execution_id: str, directory: str | None) -> None:
    """End what is left of a script, and remove what it was read from: for an operation that cannot do it any more."""
    process_tree.end_marked(_MARK, execution_id, ENDING)
    if directory is not None:
        shutil.rmtree(directory, ignore_errors=True)


def _run(script: Script, stem: str, variables: Variables, places: Places, running: Running) -> dict[str, Any]:
    """Run one script to its end, or, if it is asynchronous, to its start."""
    own = str(places.bodies / f"{script.execution_id}.{uuid.uuid4().hex[:8]}") if script.body is not None else None
    note = running.before("scalarizr.system.scripts:end_execution", execution_id=script.execution_id, directory=own)
    task = keeper_task(script, own, script_logs.log_paths(places.logs, stem), variables, places.log_size)
    ended: dict[str, Any] = {"return_code": None, "elapsed": None, "timed_out": False}
    running.log(f"{script.name}: started as {script.account.name}, execution {script.execution_id}")
    with KeptScript(task, script.name) as keeper:
        for message in keeper.messages(_STARTING, script.timeout + _BEYOND):
            if "line" in message:
                running.log(f"{script.name}: {message['line']}")
            elif "failed" in message:
                raise OutsideFailure(
                    f"The script {script.name} cannot be run: {message['failed']}. It was not started."
                )
            elif "ended" in message:
                ended = message["ended"]
            elif script.asynchronous:
                keeper.let_go()
                break
    running.done_with(note)
    running.log(f"{script.name}: {_end_in_words(script, ended)}")
    return {"execution_id": script.execution_id, "name": script.name, **ended}


def keeper_task(
    script: Script, directory: str | None, logs: tuple[Path, Path], variables: Variables, log_size: int
) -> dict[str, Any]:
    """Give what a keeper is told: on its standard input, and nowhere else."""
    account = script.account
    return {
        "argv": [script.path],
        "body": script.body,
        "directory": directory,
        "file": "script",
        "uid": account.uid,
        "gid": account.gid,
        "groups": account.groups,
        "other_account": os.geteuid() == 0,
        "cwd": account.home,
        "environment": {**_environment(account), **variables.values, _MARK: script.execution_id},
        "timeout": script.timeout,
        "hidden": variables.private,
        "out": str(logs[0]),
        "err": str(logs[1]),
        "log_size": int(log_size),
        "attached": not script.asynchronous,
    }


def _environment(account: Account) -> dict[str, str]:
    variables = {name: os.environ[name] for name in ("LANG", "TZ") if name in os.environ}
    variables.setdefault("LANG", "C.UTF-8")
    return {
        **variables,
        "PATH": _PATH.get(account.uid, _PATH_OF_OTHERS),
        "HOME": account.home,
        "USER": account.name,
        "LOGNAME": account.name,
        "SHELL": account.shell,
    }


def _make_ready(directory: Path) -> None:
    """Make the directory of scripts' texts, which any account can go through and none look into; clean it up."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o711)
        status = os.lstat(directory)
        if status.st_uid not in (0, os.geteuid()) or not os.path.isdir(directory) or directory.is_symlink():
            raise OutsideFailure(f"{directory} is no directory of the agent's own. No script was started.")
        if status.st_mode & 0o777 != 0o711:
            os.chmod(directory, 0o711)  # noqa: S103  to go through to one's own, not to look
        _remove_abandoned(directory)
    except OSError as error:
        raise OutsideFailure(
            f"{directory}: scripts cannot be written there: {error.strerror}. No script was started; "
            "the setting [system] script_dir names another place.",
            {"directory": str(directory)},
        ) from error


def _remove_abandoned(directory: Path) -> None:
    """Remove what keepers left that were killed; a living one holds the lock of its directory."""
    for entry in os.scandir(directory):
        with contextlib.suppress(OSError):
            old = time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED
            if old and not _is_held(entry.path):
                shutil.rmtree(entry.path, ignore_errors=True)


def _is_held(directory: str) -> bool:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _show(running: Running, done: int, total: int, step: str) -> None:
    running.progress(done, total, "scripts", step)
    running.flush()


def _end_in_words(script: Script, ended: Mapping[str, Any]) -> str:
    if script.asynchronous:
        return "runs on by itself"
    if ended["timed_out"]:
        return f"ended at its limit of {script.timeout:g} s"
    code = ended["return_code"]
    how = f"signal {-code}" if code < 0 else f"status {code}"
    return f"ended with {how} after {ended['elapsed']:.1f} s"


def _facts(results: Sequence[Mapping[str, Any]]) -> list[Fact]:
    return [dict(result) for result in results]
