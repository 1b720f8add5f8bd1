"""Processors: what they are and what their time went into."""

from scalarizr.host.paths import HostPaths
from scalarizr.host.procfile import malformed, read_text

# proc(5): the columns of the `cpu` line, in the order in which kernels added them.
_TIMES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")


def cpu_info(host: HostPaths) -> list[dict[str, str]]:
    """Give one dict a processor, keys and values as in /proc/cpuinfo.

    On ARM the file also holds blocks that describe no processor (`Processor`, `Hardware`, `Serial` …): what stands
    there is common to all, and no processor of its own.
    """
    processors: list[dict[str, str]] = []
    for block in read_text(host.proc / "cpuinfo").split("\n\n"):
        described: dict[str, str] = {}
        for line in block.splitlines():
            name, colon, value = line.partition(":")
            name = name.strip()
            if not colon or not name:
                continue
            if name == "processor" and "processor" in described:
                processors.append(described)  # some ARM kernels put no empty line between two
                described = {}
            described[name] = value.strip()
        if "processor" in described:
            processors.append(described)
        elif not processors and described and any(key.startswith("processor ") for key in described):
            # s390x: `processor 0: version = FF, …`, all in one block
            processors += [
                {"processor": key.split()[1], "processor data": value}
                for key, value in described.items()
                if key.startswith("processor ")
            ]
    return processors


def cpu_stat(host: HostPaths) -> dict[str, int]:
    """Give the jiffies of all processors together, from the `cpu` line of /proc/stat."""
    path = host.proc / "stat"
    for line in read_text(path).splitlines():
        if line.startswith("cpu "):
            try:
                times = [int(column) for column in line.split()[1:]]
            except ValueError:
                raise malformed(path, line) from None
            if len(times) >= 4:
                return dict(zip(_TIMES, times, strict=False))
    raise malformed(path, "no line that begins with `cpu `")
