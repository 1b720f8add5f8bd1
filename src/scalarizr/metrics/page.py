"""The page of the figures, in the text format of OpenMetrics 1.0
(https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md)."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from scalarizr.metrics.figures import LATENCIES, Durations, Figures

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def page_of(figures: Figures, version: str, running: int, queued: int, changes: Mapping[tuple[str, str], int]) -> bytes:
    """Write the page.

    :param version: of the agent.
    :param running: operations that run now.
    :param queued: operations that wait for their turn.
    :param changes: (service, status) → changes of configuration in the history.
    """
    lines = [
        *_family("scalarizr_build", "info", "The agent.", [("_info", {"version": version}, 1)]),
        *_family("scalarizr_call_duration_seconds", "histogram", "How long calls took.", _durations(figures.calls)),
        *_family(
            "scalarizr_call_errors",
            "counter",
            "Calls that ended with an error, by its code.",
            (
                ("_total", {"method": method, "code": str(code)}, count)
                for (method, code), count in sorted(figures.errors.items())
            ),
        ),
        *_family(
            "scalarizr_messages_refused",
            "counter",
            "Messages of which no call was made: not signed by a key of ours, too old, seen before.",
            (("_total", {"reason": reason}, count) for reason, count in sorted(figures.refusals.items())),
        ),
        *_family(
            "scalarizr_tls_handshakes_refused",
            "counter",
            "Handshakes of TLS that failed: too old, no certificate, too slow.",
            (("_total", {"reason": reason}, count) for reason, count in sorted(figures.handshakes.items())),
        ),
        *_family("scalarizr_operations_running", "gauge", "Operations that run now.", [("", {}, running)]),
        *_family("scalarizr_operations_queued", "gauge", "Operations that wait their turn.", [("", {}, queued)]),
        *_family(
            "scalarizr_operations",
            "counter",
            "Operations that ended, by how.",
            (
                ("_total", {"method": method, "status": status}, count)
                for (method, status), count in sorted(figures.operations.items())
            ),
        ),
        *_family(
            "scalarizr_changes_in_history",
            "gauge",
            "Changes of configuration that the history keeps, by what became of them.",
            (
                ("", {"service": service, "status": status}, count)
                for (service, status), count in sorted(changes.items())
            ),
        ),
        *_process(),
        "# EOF\n",
    ]
    return "".join(lines).encode()


Sample = tuple[str, Mapping[str, str], float]


def _family(name: str, kind: str, meaning: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# TYPE {name} {kind}\n"
    yield f"# HELP {name} {meaning}\n"
    for suffix, labels, value in samples:
        inside = ",".join(f'{label}="{text.translate(_ESCAPES)}"' for label, text in labels.items())
        yield f"{name}{suffix}{{{inside}}} {value}\n" if inside else f"{name}{suffix} {value}\n"


def _durations(calls: Mapping[str, Durations]) -> Iterator[Sample]:
    for method, durations in sorted(calls.items()):
        up_to = 0
        for bound, count in zip((*LATENCIES, None), durations.buckets, strict=True):
            up_to += count
            yield "_bucket", {"method": method, "le": "+Inf" if bound is None else str(float(bound))}, up_to
        yield "_count", {"method": method}, up_to
        yield "_sum", {"method": method}, durations.seconds


def _process() -> Iterator[str]:
    """Give the process's own figures, under the names that all exporters use (proc(5))."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started = int(fields[19]) / _TICKS - time.clock_gettime(time.CLOCK_BOOTTIME) + time.time()
    for name, kind, meaning, suffix, value in (
        ("process_cpu_seconds", "counter", "Processor time.", "_total", (int(fields[11]) + int(fields[12])) / _TICKS),
        ("process_resident_memory_bytes", "gauge", "Resident memory.", "", int(fields[21]) * _PAGE),
        ("process_start_time_seconds", "gauge", "When it started, in Unix seconds.", "", started),
        ("process_threads", "gauge", "Threads.", "", int(fields[17])),
        ("process_open_fds", "gauge", "Open files.", "", len(os.listdir("/proc/self/fd")) - 1),
    ):
        yield from _family(name, kind, meaning, [(suffix, {}, value)])
