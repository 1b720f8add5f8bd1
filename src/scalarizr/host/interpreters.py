"""The Python interpreters of the host."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scalarizr.errors import ScalarizrError
from scalarizr.host.paths import HostPaths
from scalarizr.host.run import run

_NAME = re.compile(r"python(?:[23](?:\.[0-9]{1,3})?)?", re.ASCII)
_VERSION = re.compile(r"Python ([0-9]+(?:\.[0-9]+)*)")


def python_versions(host: HostPaths) -> list[str]:
    """Ask each interpreter in /usr/bin and /usr/local/bin for its version.

    :return: versions such as `["3.9.2", "3.11.7"]`, each once, sorted as numbers. One that does not answer within 5 s
        is left out.
    """
    found: set[Path] = set()
    for directory in (host.usr / "bin", host.usr / "local" / "bin"):
        if directory.is_dir():
            found |= {path.resolve() for path in directory.iterdir() if _NAME.fullmatch(path.name) and path.is_file()}
    if not found:
        return []
    with ThreadPoolExecutor(min(len(found), 8)) as pool:
        versions = {version for version in pool.map(_version, sorted(found)) if version}
    return sorted(versions, key=lambda version: [int(part) for part in version.split(".")])


def _version(path: Path) -> str | None:
    try:
        finished = run([path, "-V"], timeout=5, output_limit=4096)
    except ScalarizrError:
        return None
    # Python 2 says it on standard error.
    match = _VERSION.search((finished.stdout + finished.stderr).decode("utf-8", "replace"))
    return match[1] if match and finished.returncode == 0 else None
