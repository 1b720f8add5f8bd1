"""A program that makes one call on a server's configuration and may die at its N-th step.

`reconfiguring_program.py ETC N CALLS`, where CALLS is JSON: `[["nginx.make_proxy", {…}], …]`, and `["recover", {}]`
is what an agent does first when it starts. A step is a call that changes the file system; the program kills itself
just before it makes the N-th. It prints how many steps there were.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

etc, limit, calls = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
steps = 0
armed = False
counting = threading.Lock()


def counted(function):  # type: ignore[no-untyped-def]
    def call(*arguments, **options):  # type: ignore[no-untyped-def]
        global steps
        if armed:
            with counting:
                steps += 1
                if steps == limit:
                    os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    return call


for name in (
    "rename",
    "fsync",
    "unlink",
    "mkdir",
    "fchmod",
    "rmdir",
    "ftruncate",
    "symlink",
    "link",
    "write",
    "fchown",
):
    setattr(os, name, counted(getattr(os, name)))

from scalarizr.api.apache import ApacheAPI  # noqa: E402
from scalarizr.api.nginx import NginxAPI  # noqa: E402
from scalarizr.assembly import build_parts  # noqa: E402
from scalarizr.logs import open_log  # noqa: E402
from scalarizr.settings.load import load_settings  # noqa: E402

settings = load_settings(etc)
parts = build_parts(etc, settings, open_log(settings, rotates=False), None)
namespaces = {"nginx": NginxAPI(parts), "apache": ApacheAPI(parts)}
print("ready", flush=True)
armed = True
for method, arguments in calls:
    if method == "recover":
        parts.changes.recover()
    else:
        namespace, _dot, name = method.partition(".")
        getattr(namespaces[namespace], name)(**arguments)
print(steps)
