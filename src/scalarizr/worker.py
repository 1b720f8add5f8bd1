"""A worker process: one operation, from its job on standard input to its record in the store.

It builds the same parts as the agent, imports what the method needs, and takes that memory with it when it ends.
"""

import sys
from pathlib import Path
from typing import Any

from scalarizr.operations.record import Job
from scalarizr.operations.worker import run


def perform(name: str, job: Job) -> Any:
    """Run the method of a job.

    :param name: `namespace.method`.
    :param job: what the agent handed over; its parameters were checked there, and are checked again here, which also
        makes secrets of them again.
    :return: the method's result.
    """
    from scalarizr.api.namespaces import ALIASES
    from scalarizr.assembly import build_parts
    from scalarizr.changes.mode import confirmable
    from scalarizr.logs import open_log
    from scalarizr.rpc.registry import Registry
    from scalarizr.settings.load import load_settings

    settings = load_settings(Path(job.extra["etc"]))
    parts = build_parts(Path(job.extra["etc"]), settings, open_log(settings, rotates=False), None)
    registry = Registry(job.extra["namespaces"], ALIASES, lambda kind: kind(parts))
    method = registry.find(name)
    arguments = method.arguments(job.params)
    within = job.extra.get("confirm_within")
    if within is None:
        return method.function(**arguments)
    return confirmable(within, lambda: method.function(**arguments))


if __name__ == "__main__":
    sys.exit(run(perform))
