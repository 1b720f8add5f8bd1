"""The ports of the agent's virtual hosts, in a file beside these: what Apache has to listen on for them, and which ones
their callers asked to be open in the firewall. It changes with the hosts, so that what is taken back comes back whole.
"""

import re
from collections.abc import Iterable

_OPEN = re.compile(rb"^# Open in the firewall:([ 0-9]*)$", re.MULTILINE)


def ports_text(listening: Iterable[int], opened: Iterable[int]) -> bytes:
    """Write the file.

    :param listening: ports that nothing else of the configuration listens on.
    :param opened: ports that are open in the firewall, as far as one is active.
    """
    lines = ["# Ports of the virtual hosts beside this file. Kept by scalarizr."]
    if shown := " ".join(map(str, sorted(opened))):
        lines.append(f"# Open in the firewall: {shown}")
    lines += [f"Listen {port}" for port in sorted(listening)]
    return "".join(f"{line}\n" for line in lines).encode()


def opened_ports_in(content: bytes | None) -> set[int]:
    """Give the ports that a file says are open in the firewall."""
    return {int(port) for found in _OPEN.findall(content or b"") for port in found.split()}
