"""What Red Hat's unit and init script give their Apache beside its configuration: the variables of
/etc/sysconfig/httpd, and of these the words of OPTIONS. Its configuration may mean another thing without them.

Red Hat 8 and newer do not read this file any more (httpd.service(8) there): it counts where the unit names it, or where
there is no unit.
"""

import contextlib
import re
import shlex
from pathlib import Path

_ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>.*)$", re.MULTILINE)
_UNITS = ("/etc/systemd/system/httpd.service", "/usr/lib/systemd/system/httpd.service")
# Those of a definition, and of a directive before or behind the files; the agent itself says which files these are.
_KEPT = ("-D", "-C", "-c")
# They say how the process runs, which is its supervisor's business.
_WAYS_TO_RUN = frozenset({"FOREGROUND", "NO_DETACH", "ONE_PROCESS", "DEBUG"})


def variables_beside(config_dir: Path) -> dict[str, str]:
    """Give the variables that the service is started with.

    :param config_dir: Apache's, `/etc/httpd`; one that was moved has its file beside it, too.
    """
    file = config_dir.parent / "sysconfig" / "httpd"
    with contextlib.suppress(OSError):
        text = file.read_text("utf-8", "replace")
        if str(file) != "/etc/sysconfig/httpd" or _is_read_by_the_unit():
            return {match["name"]: " ".join(_words(match["value"])) for match in _ASSIGNMENT.finditer(text)}
    return {}


def options_in(variables: dict[str, str]) -> list[str]:
    """Give the arguments that the service is started with, as far as they say what its configuration means."""
    found: list[str] = []
    words = iter(_words(variables.get("OPTIONS", "")))
    for word in words:
        if word.startswith(_KEPT):
            value = word[2:] or next(words, "")
            found += [word[:2], value] if value and value not in _WAYS_TO_RUN else []
    return found


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _is_read_by_the_unit() -> bool:
    for unit in _UNITS:
        with contextlib.suppress(OSError):
            return "/etc/sysconfig/httpd" in Path(unit).read_text("utf-8", "replace")
    return True
