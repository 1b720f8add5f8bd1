"""Which lines of the agent's log a caller may see who may not call everything: those about what it may call itself."""

import re
from collections.abc import Callable

# What the agent writes at the beginning of a line, and where one names the method that it is about.
_HEAD = re.compile(r"\S+ [A-Z]+ request=(\S+) (.*)")
_CALL = re.compile(r"(?:call|params) method=(\S+)")
_OPERATION = re.compile(r"operation id=\S+(?: name=(\S+))?")


def lines_about(text: str, shown: Callable[[str], bool]) -> str:
    """Leave out of a log what its reader may not see.

    A request's lines are kept where its call is named in this part of the log and may be seen; a line of no request
    where it names an operation that may. The lines of a traceback go with the one before them.

    :param text: whole lines of the log.
    :param shown: tells of a method whether what its calls did may be seen.
    """
    # By newlines alone: they are all that the agent never writes into the middle of a line.
    lines = text.split("\n")
    methods: dict[str, str] = {}
    for line in lines:
        head = _HEAD.match(line)
        called = head and head[1] != "-" and _CALL.match(head[2])
        if head and called:
            methods[head[1]] = called[1]
    decided: dict[str, bool] = {}

    def may(method: str | None) -> bool:
        if method is None:
            return False
        if method not in decided:
            decided[method] = shown(method)
        return decided[method]

    kept, keeping = [], False
    for line in lines:
        head = _HEAD.match(line)
        if head:
            # An operation may be begun or settled in the course of a request that has nothing to do with it.
            operation = _OPERATION.match(head[2])
            method = operation[1] if operation else methods.get(head[1])
            keeping = may(method)
        if keeping:
            kept.append(line)
    return "".join(f"{line}\n" for line in kept if line)
