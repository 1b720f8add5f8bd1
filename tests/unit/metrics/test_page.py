"""The page of the figures: read back by the parser of another project, it says what was counted."""

import os
import time
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from scalarizr.metrics.figures import LATENCIES, Figures
from scalarizr.metrics.page import page_of


def samples(figures: Figures, **also: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    given: dict[str, Any] = {"running": 0, "queued": 0, "changes": {}, **also}
    page = page_of(figures, "1.2.3", **given).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_calls_are_counted_by_method_with_how_long_they_took() -> None:
    figures = Figures()
    for seconds in (0.0005, 0.001, 0.3, 99):
        figures.count_call("nginx.make_proxy", seconds)
    figures.count_call("system.uname", 0.1)
    read = samples(figures)
    method = ("method", "nginx.make_proxy")

    def up_to(bound: str) -> float:
        return read["scalarizr_call_duration_seconds_bucket", (("le", bound), method)]

    assert [up_to("0.001"), up_to("0.25"), up_to("0.5"), up_to("30.0"), up_to("+Inf")] == [2, 2, 3, 3, 4]
    assert read["scalarizr_call_duration_seconds_count", (method,)] == 4
    assert read["scalarizr_call_duration_seconds_sum", (method,)] == 0.0005 + 0.001 + 0.3 + 99
    assert read["scalarizr_call_duration_seconds_count", (("method", "system.uname"),)] == 1


def test_each_bucket_holds_what_took_at_most_its_bound() -> None:
    figures = Figures()
    for bound in LATENCIES:
        figures.count_call("system.uname", bound)
    assert figures.calls["system.uname"].buckets == [1] * len(LATENCIES) + [0]


def test_errors_refusals_operations_and_changes_are_counted_apart() -> None:
    figures = Figures()
    figures.count_call("nginx.make_proxy", 0.1, -32602)
    figures.count_call("nginx.make_proxy", 0.1, -32602)
    figures.count_call("nginx.make_proxy", 0.1, -32014)
    figures.count_refusal("signature")
    figures.count_operation("storage.create", "failed")
    read = samples(figures, running=3, queued=4, changes={("nginx", "waiting"): 5})
    method = ("method", "nginx.make_proxy")
    assert read["scalarizr_call_errors_total", (("code", "-32602"), method)] == 2
    assert read["scalarizr_call_errors_total", (("code", "-32014"), method)] == 1
    assert read["scalarizr_messages_refused_total", (("reason", "signature"),)] == 1
    assert read["scalarizr_operations_total", (("method", "storage.create"), ("status", "failed"))] == 1
    assert read["scalarizr_operations_running", ()] == 3 and read["scalarizr_operations_queued", ()] == 4
    assert read["scalarizr_changes_in_history", (("service", "nginx"), ("status", "waiting"))] == 5
    assert read["scalarizr_build_info", (("version", "1.2.3"),)] == 1


def test_the_process_is_this_one() -> None:
    read = samples(Figures())
    assert abs(read["process_resident_memory_bytes", ()] - _resident()) < 16 * 2**20
    assert 0 <= time.time() - read["process_start_time_seconds", ()] < 7 * 86400
    assert 3 <= read["process_open_fds", ()] < 10_000 and read["process_threads", ()] >= 1
    assert read["process_cpu_seconds_total", ()] <= sum(os.times()[:2]) + 0.1


def _resident() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))


def test_what_stands_in_a_label_cannot_leave_it() -> None:
    figures = Figures()
    figures.count_refusal('a"} 1\nx{y="\\')
    assert samples(figures)["scalarizr_messages_refused_total", (("reason", 'a"} 1\nx{y="\\'),)] == 1
