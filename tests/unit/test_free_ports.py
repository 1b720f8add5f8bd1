"""The ports that tests are given: one for each, among all of their processes, and none that is taken in between."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

import free_ports

GIVE = "import sys, free_ports; print(*(free_ports.free_port() for _ in range(750)), flush=True); sys.stdin.read()"


def test_no_two_processes_are_given_the_same_port_while_both_live() -> None:
    start = [sys.executable, "-c", GIVE]
    here = Path(free_ports.__file__).parent
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen(start, cwd=here, **pipes) for _ in range(4)]  # type: ignore[call-overload]
    try:
        given = [int(word) for process in processes for word in process.stdout.readline().split()]
    finally:
        for process in processes:
            process.communicate()
    assert len(given) == len(set(given)) == 3000
    outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(given) < outgoing or outgoing <= free_ports.LOWEST + 10 * free_ports.BLOCK


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_one_on_which_somebody_listens_is_not_free(family: socket.AddressFamily, address: str) -> None:
    port = free_ports.free_port()
    try:
        listening = socket.create_server((address, port), family=family)
    except OSError:
        pytest.skip(f"LEFT OUT: there is no {address}")
    assert not free_ports.is_free(port)
    listening.close()
    assert free_ports.is_free(port)


def test_none_is_given_twice() -> None:
    given = [free_ports.free_port() for _ in range(120)]
    assert len(set(given)) == 120
