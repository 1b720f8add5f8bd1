"""A thousand clients at work while five thousand stall and one message in ten is hostile: nobody honest notices."""

import os
from pathlib import Path

import pytest

from crowd import Order, Report, crowd, raise_own_limit
from running_agent import RunningAgent
from scalarizr.host.processes import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


def proportional_size(pid: int) -> float:
    """Give the resident size, shared pages divided among their users (PSS), in MB of 10⁶ bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError("no Pss in smaps_rollup")


def under_load(directory: Path, settings: str, order: Order) -> tuple[Report, list[float], list[str]]:
    """Let a crowd come to an agent.

    :return: what it saw; the agent's size before, at its largest, and when all have gone, in MB; its log's errors.
    """
    raise_own_limit(16_000)
    with RunningAgent(directory, settings) as agent:
        order.port, order.key_file = agent.port, str(agent.key_file)
        with agent.client() as client:
            client.system.load_average()
            client.system.statvfs(mpoints=["/"])
        descriptors = len(os.listdir(f"/proc/{agent.pid()}/fd"))
        sizes = [proportional_size(agent.pid())]
        with crowd(order) as there:
            report = there.wait(lambda: sizes.append(proportional_size(agent.pid())))
        assert wait_until(lambda: len(os.listdir(f"/proc/{agent.pid()}/fd")) <= descriptors + 16, 120), "all are let go"
        with agent.client() as client:
            assert len(client.system.load_average()) == 3
        after = proportional_size(agent.pid())
        log = agent.log_text()
    errors = [line for line in log.splitlines() if "Traceback" in line or "internal error" in line or " ERROR " in line]
    return report, [sizes[0], max(sizes), after], errors


def check(report: Report, sizes: list[float], errors: list[str], order: Order) -> None:
    print(f"load {os.getloadavg()[0]:.1f}; {report}")
    print(f"PSS {sizes[0]:.1f} MB before, {sizes[1]:.1f} MB at most, {sizes[2]:.1f} MB afterwards")
    assert report.failed == {}, report
    assert report.answered == order.honest * (order.calls + 1)
    assert sum(report.hostile.values()) >= order.honest * order.calls * order.hostile * 0.9
    believed = {one for one in report.hostile if "200" in one or "204" in one}
    assert not believed, believed
    assert not errors, errors[:5]


def test_no_honest_call_fails_beside_five_thousand_stalled_clients_that_all_find_room(tmp_path: Path) -> None:
    # Nobody is turned out for being slow, so that all of them are there at once.
    patient = '[api]\nconnections = 8192\nhead_timeout = "20 min"\nbody_timeout = "20 min"\nidle_timeout = "20 min"\n'
    order = Order(0, "")
    report, sizes, errors = under_load(tmp_path, patient, order)
    check(report, sizes, errors, order)
    assert report.stalled_at_once == order.stalled, "they were all there at once"


def test_no_honest_call_fails_where_stalled_clients_are_many_more_than_there_is_room_for(tmp_path: Path) -> None:
    """With the settings as they come: whoever has proved who it is stays, and strangers push out strangers."""
    order = Order(0, "", honest=1000, calls=8)
    report, sizes, errors = under_load(tmp_path, "", order)
    check(report, sizes, errors, order)
    assert report.again == {}, "a kept connection was closed for a stranger"
