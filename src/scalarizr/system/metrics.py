"""Scaling metrics: what the scripts and files of the environment's metrics say now."""

import math
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from scalarizr.environment.source import Metric
from scalarizr.errors import ScalarizrError
from scalarizr.host.run import run

AT_ONCE = 128
_LONGEST_LINE = 4096
_LONGEST_ERROR = 255


class MetricFailed(Exception):
    """A metric has no value; the text says why."""


def read_metrics(metrics: Sequence[Metric], limit: float) -> list[dict[str, Any]]:
    """Read all metrics, 128 at once, each within `limit` seconds.

    :return: `[{id, name, value, error}]` in the order of the environment; `value` a float or None, `error` a text of
        255 characters at most or None.
    """
    if not metrics:
        return []
    with ThreadPoolExecutor(min(len(metrics), AT_ONCE)) as pool:
        return list(pool.map(lambda metric: _read_metric(metric, limit), metrics))


def _read_metric(metric: Metric, limit: float) -> dict[str, Any]:
    value, error = None, None
    try:
        path = Path(metric.path)
        if not path.is_absolute():
            raise MetricFailed(f"{metric.path} is no absolute path")
        output = _executed(path, limit) if metric.retrieve_method == "execute" else _first_line(path, limit)
        value = _number(output)
    except MetricFailed as failure:
        error = str(failure)
    except ScalarizrError as failure:
        error = failure.message
    except OSError as failure:
        error = f"{metric.path}: {failure.strerror}"
    if error is not None and len(error) > _LONGEST_ERROR:
        error = error[: _LONGEST_ERROR - 1] + "…"
    return {"id": metric.id, "name": metric.name, "value": value, "error": error}


def _executed(path: Path, limit: float) -> str:
    real = _trusted(path)
    finished = run([real], timeout=limit, output_limit=65536)
    if finished.returncode != 0:
        how = f"exit status {finished.returncode}" if finished.returncode > 0 else f"signal {-finished.returncode}"
        words = finished.last_words(160)
        raise MetricFailed(f"{path} ended with {how}" + (f": {words}" if words else ""))
    return finished.stdout.decode("utf-8", "replace")


def _trusted(path: Path) -> Path:
    """Refuse to run as root what somebody else could have written: the file and each directory above it."""
    try:
        real = path.resolve(strict=True)
    except OSError as error:
        raise MetricFailed(f"{path}: {error.strerror}") from None
    for place in (real, *real.parents):
        status = os.stat(place)
        owners = {0, os.geteuid()}
        writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        if status.st_uid not in owners or (writable and not sticky):
            raise MetricFailed(f"{path} is not run: {place} may be written by others than root")
    if not stat.S_ISREG(os.stat(real).st_mode) or not os.access(real, os.X_OK):
        raise MetricFailed(f"{path} is no executable file")
    return real


def _first_line(path: Path, limit: float) -> str:
    """Read a first line. Read by a child, so that a dead mount keeps a process waiting and no thread of the agent's."""
    finished = run(["head", "-c", str(_LONGEST_LINE), "--", path], timeout=limit, output_limit=_LONGEST_LINE)
    if finished.returncode != 0:
        words = finished.last_words(160).removeprefix("head: ")
        raise MetricFailed(words or f"{path} cannot be read")
    line = finished.stdout.partition(b"\n")[0]
    if len(line) >= _LONGEST_LINE:
        raise MetricFailed(f"{path}: its first line is longer than {_LONGEST_LINE} bytes")
    return line.decode("utf-8", "replace")


def _number(text: str) -> float:
    words = text.strip()
    try:
        value = float(words)
    except ValueError:
        raise MetricFailed(f"no number: {words[:60]!r}" if words else "no number: the output is empty") from None
    if not math.isfinite(value):
        raise MetricFailed(f"no finite number: {words[:60]!r}")
    return value
