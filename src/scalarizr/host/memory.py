"""Memory."""

from scalarizr.host.paths import HostPaths
from scalarizr.host.procfile import malformed, read_text


def mem_info(host: HostPaths) -> dict[str, int]:
    """Give memory and swap in kB, from /proc/meminfo.

    `available` is the kernel's own estimate (MemAvailable, since Linux 3.14); before that free memory and page cache,
    as free(1) reckoned then. `shared` is Shmem (since 2.6.32), else 0.
    """
    path = host.proc / "meminfo"
    figures = {}
    for line in read_text(path).splitlines():
        name, colon, value = line.partition(":")
        words = value.split()
        if colon and words and words[0].isdigit():
            figures[name] = int(words[0])
    if "MemTotal" not in figures or "MemFree" not in figures:
        raise malformed(path, "neither MemTotal nor MemFree")
    free, buffers, cached = figures["MemFree"], figures.get("Buffers", 0), figures.get("Cached", 0)
    return {
        "total_swap": figures.get("SwapTotal", 0),
        "avail_swap": figures.get("SwapFree", 0),
        "total_real": figures["MemTotal"],
        "total_free": free,
        "shared": figures.get("Shmem", figures.get("MemShared", 0)),
        "buffer": buffers,
        "cached": cached,
        "available": figures.get("MemAvailable", free + buffers + cached),
    }
