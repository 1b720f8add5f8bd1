"""What Apache makes of its live configuration, asked while a change is planned after what it said the last time.

Asking takes as long as its configuration test. Most of the time nobody edited anything since: then both run at once,
and the plan holds. Else it is made anew after what Apache says now.
"""

import threading
from collections.abc import Callable

import msgspec

from scalarizr.apache.program import Description
from scalarizr.changes.journal import PlannedFile
from scalarizr.errors import ScalarizrError

_READ = (".conf", ".load")


class Outdated(Exception):
    """A plan rests on what is no longer so.

    :ivar described: how it is now.
    """

    def __init__(self, described: Description) -> None:
        super().__init__("edited meanwhile")
        self.described = described


class Expectation:
    """A description that a plan is made after, while a thread asks whether it still holds.

    :param expected: what was said the last time.
    :param describe: asks.
    """

    def __init__(self, expected: Description, describe: Callable[[], Description]) -> None:
        self.described = expected
        self._said: Description | None = None
        self._failure: ScalarizrError | None = None

        def ask() -> None:
            try:
                self._said = describe()
            except ScalarizrError as failure:
                self._failure = failure

        self._thread = threading.Thread(target=ask, name="apache-describe")
        self._thread.start()

    def confirm(self) -> None:
        """Wait for the answer.

        :raises Outdated: it is another one.
        :raises ScalarizrError: there is none: the live configuration is not valid.
        """
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        assert self._said is not None
        if not _same(self._said, self.described):
            raise Outdated(self._said)


class Known:
    """The same where Apache was asked just now."""

    def __init__(self, described: Description) -> None:
        self.described = described

    def confirm(self) -> None:
        """It holds."""


def after(described: Description, modules: frozenset[str], files: list[PlannedFile]) -> Description:
    """Give what Apache will say once a change is made, as far as that can be foreseen."""
    read = set(described.files)
    for file in files:
        if file.new.absent:
            read.discard(file.path)
        elif file.path.suffix in _READ:
            read.add(file.path)
    return msgspec.structs.replace(described, files=tuple(sorted(read)), modules=modules)


def _same(one: Description, other: Description) -> bool:
    return one.run == other.run and one.conditions == other.conditions and set(one.files) == set(other.files)
