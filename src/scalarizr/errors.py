"""The errors that may cross a layer: each says what was wrong, what was left unchanged and what to do next.

Domain code raises these, once, where the fact is known; `rpc` turns them into JSON-RPC error objects. The code carries
the class (WIRE.md, "JSON-RPC"): programs read the code, people the message.
"""

import errno
from collections.abc import Iterable, Mapping

UNCHANGED = "Nothing was changed."
Fact = str | int | float | bool | None | list["Fact"] | dict[str, "Fact"]


class ScalarizrError(Exception):
    """A failure that a caller may read.

    :param message: a full sentence for people; never holds a secret.
    :param facts: the same for programs: JSON values by name; they become `error.data`.
    """

    code: int = -32603

    def __init__(self, message: str, facts: Mapping[str, Fact] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.facts: dict[str, Fact] = dict(facts or {})

    def say_further(self, sentence: str) -> None:
        """Add a sentence to the message: for whoever knows more on the way up."""
        self.message = f"{self.message.rstrip()} {sentence}"
        self.args = (self.message,)

    def begin_with(self, words: str) -> None:
        """Put words before the message: for whoever knows on the way up what it is about."""
        self.message = f"{words}{self.message}"
        self.args = (self.message,)

    def facts_as_text(self) -> str | None:
        """Give the facts as one line of text, which is what clients of the founding dialect print; None without any."""
        return "; ".join(f"{name}: {fact}" for name, fact in self.facts.items()) or None


class InvalidParameter(ScalarizrError):
    """A parameter is unknown, missing or ill-typed, or its value cannot be accepted.

    :param parameter: its name, with a path into it where it is structured (`vhosts[2].port`).
    :param got: what came, shown short; None where that would show a secret, or where nothing came.
    :param expected: what was expected, in words.
    """

    code = -32602

    def __init__(self, parameter: str, got: str | None, expected: str) -> None:
        super().__init__(
            "Invalid params", {"parameter": parameter, "got": got, "expected": expected, "note": UNCHANGED}
        )

    def facts_as_text(self) -> str:
        """Name the parameter, what came and what was expected, in one sentence."""
        came = f"got {self.facts['got']}, " if self.facts["got"] is not None else ""
        return f"{self.facts['parameter']}: {came}expected {self.facts['expected']}. {UNCHANGED}"

    def __str__(self) -> str:
        return f"{self.message}: {self.facts_as_text()}"


class Busy(ScalarizrError):
    """Somebody else is at work on the same thing; the facts name who."""

    code = -32010


class NotFound(ScalarizrError):
    """What was named does not exist."""

    code = -32011


class AlreadyExists(ScalarizrError):
    """What was to be made is there already."""

    code = -32012


class NotSupported(ScalarizrError):
    """This method, host or device cannot do that."""

    code = -32013


class Refused(ScalarizrError):
    """It could be done, and would be wrong: data would be lost, or somebody's work overwritten."""

    code = -32014


class Interrupted(ScalarizrError):
    """It was cut off before its end: a crash, a restart, a cancellation."""

    code = -32015


class TimedOut(ScalarizrError):
    """It took longer than its limit."""

    code = -32016


class PermissionRefused(ScalarizrError):
    """The caller, or the agent itself, may not do that."""

    code = -32017


class OutsideFailure(ScalarizrError):
    """Something outside the agent failed: a program, a server, a disk; the message carries its own words, trimmed."""

    code = -32018


class NotConfigured(ScalarizrError):
    """A setting is missing without which this cannot be done; the message names it."""

    code = -32019


# What a server may run out of, or a disk refuse, anywhere: no bug of the program's.
_LACK = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
)


def lack_of_resources(error: OSError) -> OutsideFailure | None:
    """Give what a caller reads of an error of the system that crossed all layers; None where it is a bug."""
    if error.errno not in _LACK:
        return None
    where = f" {error.filename}:" if error.filename else ""
    return OutsideFailure(
        f"The call was broken off:{where} {error.strerror}. Look at what came of it, and call again once that is "
        "mended.",
        {"reason": error.strerror},
    )


def nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """Give the known name that was perhaps meant by one that is none; None where no one is near.

    :param likeness: how alike they must be, 0 to 1.
    """
    import difflib  # which an agent whose callers make no mistake never needs

    return next(iter(difflib.get_close_matches(name[:100], list(known), 1, likeness)), None)
