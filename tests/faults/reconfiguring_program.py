"""A program that makes one call on a server's configuration and may die at its N-th step.

`reconfiguring_program.py ETC N CALLS`, where CALLS is JSON: `[["nginx.make_proxy", {…}], …]`, and `["recover", {}]`
is what an agent does first when it starts. A step is a call that changes the file system; the program kills itself
just before it makes the N-th. It prints how many steps there were.
"""

import json
import sys
from pathlib import Path

from dying_at_a_step import WHATEVER_CHANGES_FILES, Steps

etc, calls = Path(sys.argv[1]), json.loads(sys.argv[3])
steps = Steps(int(sys.argv[2]), armed=False)
steps.count_calls_of(*WHATEVER_CHANGES_FILES, "write", "fchown")

from scalarizr.api.apache import ApacheAPI  # noqa: E402
from scalarizr.api.nginx import NginxAPI  # noqa: E402
from scalarizr.assembly import build_parts  # noqa: E402
from scalarizr.logs import open_log  # noqa: E402
from scalarizr.settings.load import load_settings  # noqa: E402

settings = load_settings(etc)
parts = build_parts(etc, settings, open_log(settings, rotates=False), None)
namespaces = {"nginx": NginxAPI(parts), "apache": ApacheAPI(parts)}
print("ready", flush=True)
steps.armed = True
for method, arguments in calls:
    if method == "recover":
        parts.changes.recover()
    else:
        namespace, _dot, name = method.partition(".")
        getattr(namespaces[namespace], name)(**arguments)
print(steps.count)
