"""A thousand clients at work beside five thousand that stall, one message in ten hostile: latencies and memory."""

import sys
from pathlib import Path

from benchmarks.subjects import installation, proportional_size, running

# The crowd is the one that the tests let come.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from crowd import Order, Report, crowd, raise_own_limit

_PATIENT = 'connections = 8192\nhead_timeout = "20 min"\nbody_timeout = "20 min"\nidle_timeout = "20 min"\n'


def load() -> list[tuple[str, str, str, str]]:
    """Honest calls without a crowd, in one that all finds room, and in one that is larger than the settings' limit."""
    raise_own_limit(16_000)
    alone, sizes_alone = _under_load(Order(0, "", stalled=0, hostile=0.0, calls=10), _PATIENT)
    crowded, sizes_crowded = _under_load(Order(0, ""), _PATIENT)
    pushed, sizes_pushed = _under_load(Order(0, "", calls=10), "")
    beside = _latency(alone)
    return [
        _row("1,000 kept clients alone", alone, sizes_alone, "–"),
        _row("beside 5,000 stalled ones, 10 % hostile", crowded, sizes_crowded, beside),
        _row("the same with room for 1,024 connections", pushed, sizes_pushed, beside),
    ]


def _under_load(order: Order, settings: str) -> tuple[Report, list[float]]:
    with installation() as place:
        file = place.etc / "scalarizr.toml"
        file.write_text(file.read_text().replace("[paths]", f"{settings}[paths]"))
        with running(place.start(), place.port) as agent:
            order.port, order.key_file = place.port, str(place.key_file)
            sizes = [proportional_size(agent.pid)]
            with crowd(order) as there:
                report = there.wait(lambda: sizes.append(proportional_size(agent.pid)))
            sizes.append(proportional_size(agent.pid))
    return report, [sizes[0], max(sizes), sizes[-1]]


def _latency(report: Report) -> str:
    return f"p50 {report.p50 * 1000:.1f} ms, p99 {report.p99 * 1000:.0f} ms"


def _row(name: str, report: Report, sizes: list[float], beside: str) -> tuple[str, str, str, str]:
    before, largest, after = sizes
    failed = sum(report.failed.values())
    return (
        f"{name}: {report.answered:,} calls, {report.answered / report.seconds:,.0f}/s",
        f"{_latency(report)}; {failed} failed (goal: none)",
        beside,
        f"PSS {before:.1f} MB before, {largest:.1f} at most, {after:.1f} afterwards",
    )
