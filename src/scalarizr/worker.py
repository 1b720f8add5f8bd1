"""A worker process: one operation, from its job on standard input to its record in the store.

It builds the same parts as the agent, imports what the method needs, and takes that memory with it when it ends.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from scalarizr.operations.record import Job

# What an import makes stays: looking through all of it for garbage at every 700 new objects is a tenth of the start.
_AT_THE_START = 50_000
_USUAL = gc.get_threshold()


def perform(name: str, job: Job) -> Any:
    """Run the method of a job.

    :param name: `namespace.method`.
    :param job: what the agent handed over; its parameters were checked there, and are checked again here, which also
        makes secrets of them again.
    :return: the method's result.
    """
    from pathlib import Path

    from scalarizr.api.namespaces import ALIASES
    from scalarizr.assembly import build_parts
    from scalarizr.changes.mode import confirmable
    from scalarizr.logs import open_log
    from scalarizr.rpc.registry import Registry
    from scalarizr.rpc.rights import FULL_RIGHTS, NO_RIGHTS, set_rights
    from scalarizr.settings.load import load_settings

    settings = load_settings(Path(job.extra["etc"]))
    parts = build_parts(Path(job.extra["etc"]), settings, open_log(settings, rotates=False), None)
    # Whether the call was allowed was decided in the agent; what only full rights bring along is decided by this.
    set_rights(FULL_RIGHTS if job.extra.get("full_rights") is True else NO_RIGHTS)
    registry = Registry(job.extra["namespaces"], ALIASES, lambda kind: kind(parts))
    method = registry.find(name)
    arguments = method.arguments(job.params)
    gc.freeze()
    gc.set_threshold(*_USUAL)
    within = job.extra.get("confirm_within")
    if within is None:
        return method.function(**arguments)
    return confirmable(within, lambda: method.function(**arguments))


def main() -> NoReturn:
    """Work from the job to the record, and end at once."""
    gc.set_threshold(_AT_THE_START)
    import logging

    from scalarizr.operations.worker import run

    status = run(perform)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Its record is written, and the agent waits for its end. The interpreter would take all its objects apart one by
    # one first, and wait for threads that nobody waits for any more.
    os._exit(status)


if __name__ == "__main__":
    main()
