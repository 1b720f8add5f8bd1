"""What Apache makes of its live configuration, asked while a change is planned after what it said the last time.

Asking takes as long as its configuration test. Most of the time nobody edited anything since: then both run at once,
and the plan holds. Else it is made anew after what Apache says now.
"""

from collections.abc import Callable
from types import TracebackType

import msgspec

from scalarizr.apache.description import Description
from scalarizr.changes.journal import PlannedFile
from scalarizr.host.side_thread import SideThread

_READ = (".conf", ".load")


class Outdated(Exception):
    """A plan rests on what is no longer so.

    :ivar described: how it is now.
    """

    def __init__(self, described: Description) -> None:
        super().__init__("edited meanwhile")
        self.described = described


class Expectation:
    """A description that a plan is made after, while a thread asks whether it still holds: for as long as the block.

    :param expected: what was said the last time.
    :param describe: asks.
    """

    def __init__(self, expected: Description, describe: Callable[[], Description]) -> None:
        self.described = expected
        self._asking = SideThread(describe, "apache-describe")

    def __enter__(self) -> "Expectation":
        self._asking.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._asking.wait()

    def confirm(self) -> None:
        """Wait for the answer.

        :raises Outdated: it is another one.
        :raises ScalarizrError: there is none: the live configuration is not valid.
        """
        said = self._asking.result()
        if not _same(said, self.described):
            raise Outdated(said)


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
