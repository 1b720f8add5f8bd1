"""The load average."""

from scalarizr.errors import OutsideFailure
from scalarizr.host.paths import HostPaths


def load_average(host: HostPaths) -> list[float]:
    """Give the load over 1, 5 and 15 minutes, from /proc/loadavg (proc(5))."""
    path = f"{host.root}/proc/loadavg"
    try:
        with open(path, "rb", buffering=0) as file:
            one, five, fifteen = file.read(100).split()[:3]
        return [float(one), float(five), float(fifteen)]
    except OSError as error:
        raise OutsideFailure(f"{path} cannot be read: {error.strerror}.", {"file": path}) from error
    except ValueError as error:
        raise OutsideFailure(f"{path} is not of the form that proc(5) describes.", {"file": path}) from error
