"""Which files a configuration is made of, for an Apache that does not say so itself (before `-D DUMP_INCLUDES`).

The rules are those of `Include` (https://httpd.apache.org/docs/2.4/mod/core.html#include): relative to ServerRoot, with
wildcards in any part of the path, a directory means all files below it.
"""

import contextlib
import glob
import os
from collections.abc import Iterator
from pathlib import Path

from scalarizr.apache.conditions import Conditions
from scalarizr.apache.syntax import BadSyntax, parse

_MOST = 2000


def included_files(main: Path, root: Path, conditions: Conditions) -> tuple[Path, ...]:
    """Give a main configuration's own files in the order in which they are first read, itself the first.

    :param root: the ServerRoot.
    :param conditions: which parts of it are read.
    """
    found: dict[Path, None] = {}
    waiting = [main]
    while waiting and len(found) < _MOST:
        path = waiting.pop(0)
        if path in found:
            continue
        found[path] = None
        with contextlib.suppress(OSError, BadSyntax):
            directives = parse(path.read_text("utf-8", "surrogateescape"))
            waiting[:0] = [
                file
                for one in directives
                if one.called("include", "includeoptional") and one.words and conditions.hold_around(one)
                for file in _meant(root / one.words[0])
            ]
    return tuple(found)


def _meant(path: Path) -> Iterator[Path]:
    for name in sorted(glob.glob(str(path))):
        if not os.path.isdir(name):
            yield Path(name)
            continue
        for directory, _directories, files in sorted(os.walk(name)):
            yield from (Path(directory, file) for file in sorted(files))
