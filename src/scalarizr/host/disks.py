"""Block devices and what went through them, from /proc/diskstats.

Its layouts (Documentation/admin-guide/iostats.rst): 14 columns since Linux 2.6.0, 18 since 4.18, 20 since 5.5; and
7 for partitions before 2.6.25, which knew only reads, sectors read, writes and sectors written.
"""

from collections.abc import Iterator

from scalarizr.host.paths import HostPaths
from scalarizr.host.procfile import malformed, read_text

SECTOR = 512


def block_devices(host: HostPaths) -> list[str]:
    """Give the names of all block devices, as the kernel lists them."""
    return [columns[2] for columns in _rows(host)]


def disk_stats(host: HostPaths) -> dict[str, dict[str, dict[str, int]]]:
    """Give reads and writes of each device since boot: requests, sectors of 512 bytes, and bytes."""
    statistics = {}
    for columns in _rows(host):
        counts = [int(column) for column in columns[3:]]
        if len(counts) >= 11:
            reads, sectors_read, writes, sectors_written = counts[0], counts[2], counts[4], counts[6]
        else:
            reads, sectors_read, writes, sectors_written = counts[:4]
        statistics[columns[2]] = {
            "read": {"num": reads, "sectors": sectors_read, "bytes": sectors_read * SECTOR},
            "write": {"num": writes, "sectors": sectors_written, "bytes": sectors_written * SECTOR},
        }
    return statistics


def _rows(host: HostPaths) -> Iterator[list[str]]:
    path = host.proc / "diskstats"
    for line in read_text(path).splitlines():
        columns = line.split()
        if not columns:
            continue
        if len(columns) < 7 or not all(column.isdigit() for column in columns[3:]):
            raise malformed(path, line)
        if 7 < len(columns) < 14:
            raise malformed(path, line)
        yield columns
