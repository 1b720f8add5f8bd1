"""What a virtual host needs in the file system before Apache loads it: document roots and log directories.

Apache says yes to a log directory that is missing, and dies of it; so these are made, or refused, beforehand.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from scalarizr.apache.description import RunConfig
from scalarizr.apache.template import HostText
from scalarizr.errors import Refused
from scalarizr.host.files import write_file

_LOGS = {"errorlog": 0, "customlog": 0, "transferlog": 0, "forensiclog": 0, "scriptlog": 0}
_PAGE = b"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>It works</title></head>
<body><h1>It works</h1><p>This site has no content yet.</p></body></html>
"""


class Places:
    """The directories that a set of virtual hosts needs.

    :param configured: what Apache makes of its configuration.
    """

    def __init__(self, configured: RunConfig) -> None:
        self._configured = configured
        self._roots: set[Path] = set()
        self._logs: set[Path] = set()
        self._made: list[Path] = []

    def add(self, host: HostText, called: str) -> None:
        """Look through a virtual host's text.

        :raises Refused: a log is a directory.
        """
        for one in host.directives():
            if one.is_section or not one.words:
                continue
            if one.called("documentroot"):
                path = self._path(one.words[0])
                if path is not None and not path.exists():
                    self._roots.add(path)
            elif one.name.lower() in _LOGS:
                path = self._log_path(one.words[0])
                if path is None:
                    continue
                if path.is_dir():
                    raise Refused(f"In {called}: {one.name} {path} is a directory. Nothing was changed.")
                if not path.parent.is_dir():
                    self._logs.add(path.parent)

    @property
    def log_directories(self) -> list[Path]:
        """The log directories that are missing."""
        return sorted(self._logs)

    def make(self) -> None:
        """Make what is missing: log directories as root's, document roots with a page as the server's user's."""
        for path in sorted(self._roots):
            if not path.exists():
                owner = self._configured.user if os.geteuid() == 0 else None
                self._make_directory(path)
                page = path / "index.html"
                write_file(page, _PAGE, owner=owner)
                self._made.append(page)
                if owner is not None:
                    # The last: from here on the server's user may put something else in any place there.
                    os.chown(path, *owner, follow_symlinks=False)
        for path in sorted(self._logs):
            self._make_directory(path)

    def take_away(self) -> None:
        """Remove what was made and nobody has put anything into."""
        for path in reversed(self._made):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        self._made.clear()

    @property
    def steps(self) -> tuple[tuple[Callable[[], None], Callable[[], None]], ...]:
        """The making and its undoing; nothing where nothing is missing."""
        return ((self.make, self.take_away),) if self._roots or self._logs else ()

    def _make_directory(self, path: Path) -> None:
        missing = [one for one in (path, *path.parents) if not one.exists()]
        for one in reversed(missing):
            one.mkdir()
            one.chmod(0o755)  # whatever the agent's own mask is
            self._made.append(one)

    def _path(self, word: str) -> Path | None:
        if "$" in word or "%" in word:
            return None  # a variable that only Apache knows
        return self._configured.root / word

    def _log_path(self, word: str) -> Path | None:
        if word.startswith(("|", "syslog")):
            return None
        if self._configured.error_log is not None:
            word = word.replace("${APACHE_LOG_DIR}", str(self._configured.error_log.parent))
        return self._path(word)
