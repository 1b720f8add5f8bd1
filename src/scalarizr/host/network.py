"""Network interfaces."""

from scalarizr.host.paths import HostPaths
from scalarizr.host.procfile import malformed, read_text


def net_stats(host: HostPaths) -> dict[str, dict[str, dict[str, int]]]:
    """Give bytes, packets and errors of each interface since boot, from /proc/net/dev.

    Old kernels print the first number right behind the colon (`eth0:1234`). An alias (`eth0:1`) has one in its name.
    """
    path = host.proc / "net" / "dev"
    statistics = {}
    for line in read_text(path).splitlines()[2:]:
        name, colon, rest = line.rpartition(":")
        columns = rest.split()
        if not colon:
            if line.strip():
                raise malformed(path, line)
            continue
        if len(columns) < 16 or not all(column.isdigit() for column in columns):
            raise malformed(path, line)
        counts = [int(column) for column in columns]
        statistics[name.strip()] = {
            "receive": {"bytes": counts[0], "packets": counts[1], "errors": counts[2]},
            "transmit": {"bytes": counts[8], "packets": counts[9], "errors": counts[10]},
        }
    return statistics
