"""A host of its own in a network namespace, and an outside that connects to it from a second one, for tests.

Nothing of it touches the rules of the machine that the tests run on, nor its settings: what firewalls keep in files is
in a mount namespace of the host's. All of it vanishes with the two processes that hold the namespaces.
"""

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from scalarizr.errors import OutsideFailure

ADDRESSES = {"ip": "10.77.0.1", "ip6": "fd77::1"}
CLIENT, OTHER_CLIENT = "10.77.0.2", "10.77.0.66"
OPEN, CLOSED = (True, True), (False, False)
_CLIENT6 = "fd77::2"
_CLONE_NEWNET = 0x40000000
# The connection either comes about at once or is refused or dropped: nothing lies between. So many looks of so many
# seconds are given it, each of them waited for: where the whole machine stands still meanwhile, that is one of them.
_LOOKS, _LOOK = 10, 0.04
# than the tests, however these end
_NOT_LONGER = ("setpriv", "--pdeathsig", "KILL", "--")
_PRIVATE = ("etc/ufw", "etc/default", "etc/firewalld")
_BUS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/>
    <allow send_type="method_call"/><allow send_type="signal"/>
    <allow receive_type="method_call"/><allow receive_type="signal"/>
    <allow receive_type="method_return"/><allow receive_type="error"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
  </policy>
</busconfig>
"""


def needs(program: str) -> pytest.MarkDecorator:
    """Leave a test out, loudly, where a program is not installed."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"LEFT OUT: there is no {program}")


class Host:
    """A host with one interface, `eth0`, by which the world comes in.

    :param directory: for the private copies of settings.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "host"
        self.directory.mkdir()
        self._listening: list[socket.socket] = []
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._held = [_held("--net", "--mount", "--propagation", "private"), _held("--net")]
        self._inside, self._outside = (process.pid for process in self._held)
        self.prefix = ["nsenter", "-t", str(self._inside), "-n", "-m", "--"]
        self._connect()
        self.run("mount", "-t", "tmpfs", "tmpfs", "/run")
        for place in _PRIVATE:
            if Path("/", place).is_dir():
                private = self.directory / place.replace("/", "-")
                shutil.copytree(f"/{place}", private, symlinks=True)
                self.run("mount", "--bind", str(private), f"/{place}")

    def _connect(self) -> None:
        self.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", str(self._outside))
        outside = ["nsenter", "-t", str(self._outside), "-n", "--"]
        inner, outer = (ADDRESSES["ip"], ADDRESSES["ip6"]), (CLIENT, _CLIENT6)
        for prefix, (address, address6) in ((self.prefix, inner), (outside, outer)):
            _run(*prefix, "ip", "link", "set", "lo", "up")
            _run(*prefix, "ip", "address", "add", f"{address}/24", "dev", "eth0")
            _run(*prefix, "ip", "address", "add", f"{address6}/64", "dev", "eth0", "nodad")
            _run(*prefix, "ip", "link", "set", "eth0", "up")
        _run(*outside, "ip", "address", "add", f"{OTHER_CLIENT}/24", "dev", "eth0")
        self.run("ip", "route", "add", "default", "via", CLIENT)

    def run(self, *command: str, text: str = "") -> str:
        """Run a program on it; gives what it prints."""
        return _run(*self.prefix, *command, text=text)

    def nft(self, text: str) -> None:
        """Load rules of nftables."""
        self.run("nft", "-f", "-", text=text)

    def nft_json(self, *commands: object) -> None:
        """Load rules of nftables from their JSON form, in which names may be any."""
        self.run("nft", "--json", "-f", "-", text=json.dumps({"nftables": commands}))

    def iptables(self, kind: str, *rules: str) -> None:
        """Load rules with iptables and ip6tables alike, in which ICMP stands for either's.

        :param kind: `nft` or `legacy`.
        """
        for program, icmp in ((f"iptables-{kind}", "icmp"), (f"ip6tables-{kind}", "ipv6-icmp")):
            self.run("sh", "-e", text="\n".join(f"{program} {rule.replace('ICMP', icmp)}" for rule in rules))

    @contextlib.contextmanager
    def table_of_another_program(self) -> Iterator[None]:
        """Have a program keep a table that drops, in which the kernel lets nobody else write (nft(8), flag `owner`)."""
        process = subprocess.Popen([*self.prefix, "nft", "-i"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(
            b"add table inet theirs { flags owner; }\n"
            b"add chain inet theirs entry { type filter hook input priority 0; policy drop; }\n"
            b"add rule inet theirs entry ct state established accept\n"
            b"add rule inet theirs entry iifname lo accept\n"
            b"add rule inet theirs entry meta l4proto { icmp, ipv6-icmp } accept\n"
        )
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while "ipv6-icmp } accept" not in self.rules().partition("table inet theirs")[2]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield
        process.kill()
        process.communicate()

    def rules(self) -> str:
        """Every rule that is in the kernel, without counts and handles."""
        legacy = "".join(self.run(f"{name}-legacy", "-S") for name in self.legacy())
        return self.run("nft", "--stateless", "--terse", "list", "ruleset") + legacy

    def legacy(self) -> list[str]:
        """The programs of legacy iptables that have rules."""
        names = {"iptables": "ip_tables_names", "ip6tables": "ip6_tables_names"}
        return [name for name, file in names.items() if self.run("cat", f"/proc/net/{file}")]

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Let this thread, and what it starts, be in the host's network, not among its mounts."""
        with self._in(self._inside):
            yield

    @contextlib.contextmanager
    def outside(self) -> Iterator[None]:
        """Let this thread be in the network that it is seen from."""
        with self._in(self._outside):
            yield

    @contextlib.contextmanager
    def _in(self, pid: int) -> Iterator[None]:
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        target = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(target)
            try:
                yield
            finally:
                _enter(before)
        finally:
            os.close(target)
            os.close(before)

    def listen(self, *ports: int) -> None:
        """Have somebody listen on ports of the host."""
        with self.inside():
            for port in ports:
                self._listening.append(
                    socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
                )

    def lets_through(self, port: int, family: str = "ip", source: str | None = None) -> bool:
        """Tell whether a connection from outside comes about.

        :param source: the outside's address; its first one when None.
        """
        return self._reached([(family, port, source)])[0]

    def open_to(self, port: int) -> tuple[bool, bool]:
        """Tell the same of both protocols."""
        first, second = self._reached([("ip", port, None), ("ip6", port, None)])
        return first, second

    def _reached(self, wanted: list[tuple[str, int, str | None]]) -> list[bool]:
        """Try several connections at the same time."""
        with contextlib.ExitStack() as stack, self.outside(), selectors.DefaultSelector() as selector:
            waiting = {}
            for number, (family, port, source) in enumerate(wanted):
                kind = socket.AF_INET if family == "ip" else socket.AF_INET6
                connection = stack.enter_context(socket.socket(kind))
                if source is not None:
                    connection.bind((source, 0))
                connection.setblocking(False)
                connection.connect_ex((ADDRESSES[family], port))
                selector.register(connection, selectors.EVENT_WRITE)
                waiting[connection] = number
            reached = [False] * len(wanted)
            in_vain = 0
            while waiting and in_vain < _LOOKS:
                found = selector.select(_LOOK)
                in_vain += not found
                for key, _events in found:
                    selector.unregister(key.fileobj)
                    connection = cast("socket.socket", key.fileobj)
                    reached[waiting.pop(connection)] = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        return reached

    def enable_ufw(self) -> None:
        """Put ufw in force, with the rules that it comes with."""
        self.run("ufw", "--force", "enable")
        # The first rule of all also completes chains of ufw's own.
        self.run("ufw", "allow", "1/tcp")
        self.run("ufw", "delete", "allow", "1/tcp")

    def start_firewalld(self) -> None:
        """Start firewalld on a bus of its own; `eth0` is in its default zone."""
        bus = self.directory / "bus.conf"
        bus.write_text(_BUS)
        self.run("mkdir", "/run/dbus", "/run/firewalld")
        self._daemon("dbus-daemon", f"--config-file={bus}", "--nofork", "--nopidfile")
        self._wait("test", "-S", "/run/dbus/system_bus_socket")
        log = self.directory / "firewalld.log"
        self.firewalld = self._daemon("firewalld", "--nofork", "--nopid", f"--log-file={log}")
        self._wait("firewall-cmd", "--state")

    def stop_firewalld(self) -> None:
        """Stop it as its service does."""
        self.firewalld.terminate()
        self.firewalld.wait(60)

    def _daemon(self, *command: str) -> "subprocess.Popen[bytes]":
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._daemons.append(subprocess.Popen([*_NOT_LONGER, *self.prefix, *command], **quiet))  # type: ignore[call-overload]
        return self._daemons[-1]

    def _wait(self, *command: str) -> None:
        deadline = time.monotonic() + 60
        while subprocess.run([*self.prefix, *command], capture_output=True).returncode != 0:
            assert time.monotonic() < deadline, f"waited in vain for {command}"
            time.sleep(0.05)

    def close(self) -> None:
        for listening in self._listening:
            listening.close()
        for process in (*reversed(self._daemons), *self._held):
            if process.poll() is None:
                process.kill()
            process.wait(60)


class FirewallThere:
    """The product's `Firewall` on such a host: a process there does what it is told.

    :param record: its file of opened ports.
    """

    def __init__(self, host: Host, record: Path) -> None:
        self.host = host
        self.record = record
        self.command = [*host.prefix, sys.executable, __file__, str(record)]
        self._process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def open(self, owner: str, *ports: int) -> None:
        self._call("open", owner, ports)

    def close_all_but(self, owner: str, *ports: int) -> None:
        self._call("close_all_but", owner, ports)

    def reopen(self) -> None:
        self._call("reopen")

    def recorded(self) -> dict[str, object]:
        """What is in its file: ports with owners and keepers."""
        return json.loads(self.record.read_text()) if self.record.exists() else {}  # type: ignore[no-any-return]

    def _call(self, *call: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()
        failure = json.loads(self._process.stdout.readline())
        if failure is not None:
            raise OutsideFailure(failure)

    def close(self) -> None:
        self._process.communicate()


def _held(*unshared: str) -> "subprocess.Popen[bytes]":
    """Start a process that does nothing but hold new namespaces."""
    process = subprocess.Popen([*_NOT_LONGER, "unshare", *unshared, "sleep", "infinity"])
    deadline = time.monotonic() + 60
    while Path(f"/proc/{process.pid}/comm").read_text().strip() != "sleep":
        assert time.monotonic() < deadline and process.poll() is None, "no namespace can be made"
        time.sleep(0.01)
    assert os.readlink(f"/proc/{process.pid}/ns/net") != os.readlink("/proc/self/ns/net")
    return process


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _run(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, f"{command}: {done.stderr or done.stdout}"
    return done.stdout


def _serve(record: Path) -> None:
    from scalarizr.host.firewall import Firewall

    firewall = Firewall(record)
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        failure = None
        try:
            getattr(firewall, method)(*arguments)
        except OutsideFailure as error:
            failure = error.message
        print(json.dumps(failure), flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
