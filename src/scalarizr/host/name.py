"""What the host is called."""

from scalarizr.errors import ScalarizrError
from scalarizr.host.paths import HostPaths
from scalarizr.host.procfile import read_text
from scalarizr.host.run import run

_RESOLVER_PATIENCE = 2.0


def fully_qualified_name(host: HostPaths) -> str:
    """Give the FQDN: the kernel's name where it has a dot; else the name that /etc/hosts puts first for it; else what
    the resolver makes of it within 2 s; else the short name."""
    name = read_text(host.proc / "sys" / "kernel" / "hostname").strip()
    if "." in name:
        return name
    for line in _lines(host):
        names = line.partition("#")[0].split()[1:]
        if name in names:
            canonical = next((other for other in names if other.startswith(f"{name}.")), None)
            if canonical is not None:
                return canonical
    if host.live and name:
        # The resolver may wait for a name server for minutes, and cannot be stopped: a child of its own can.
        try:
            finished = run(["getent", "ahosts", name], timeout=_RESOLVER_PATIENCE, output_limit=65536)
        except ScalarizrError:
            return name
        for row in finished.stdout.decode("utf-8", "replace").splitlines():
            words = row.split()
            if len(words) == 3 and words[2].startswith(f"{name}."):
                return words[2].rstrip(".")
    return name


def _lines(host: HostPaths) -> list[str]:
    try:
        return read_text(host.etc / "hosts").splitlines()
    except ScalarizrError:
        return []
