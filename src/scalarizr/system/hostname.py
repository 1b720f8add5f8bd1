"""Giving the server a name: the kernel's, the static one, and the line in /etc/hosts, in one transaction."""

import contextlib
import re
import socket
from pathlib import Path

from scalarizr.changes.changes import Changes
from scalarizr.changes.transaction import Transaction
from scalarizr.errors import InvalidParameter
from scalarizr.host.hosts_file import map_address
from scalarizr.host.paths import HostPaths

# RFC 1123, section 2.1, on RFC 952; RFC 1034, section 3.1 for the lengths.
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)
_LONGEST = 253
# HOST_NAME_MAX (limits.h): longer names exist, but not as the kernel's.
_LONGEST_KERNEL = 64
_NO_ADDRESS = "127.0.1.1"
_NETWORK_LINE = re.compile(rb"^HOSTNAME=.*$", re.MULTILINE)


def set_hostname(changes: Changes, host: HostPaths, hostname: str, *, private_address: str | None) -> str:
    """Set the running name, the static name and the mapping of the private address.

    A name of more than 64 characters is too long for the kernel: its first label becomes the running and the static
    name then, and the whole of it the canonical name in /etc/hosts.

    :param hostname: by RFC 1123.
    :param private_address: of this server; None: found, else 127.0.1.1 as Debian has it.
    :return: the name.
    :raises InvalidParameter: it is no name; nothing was changed.
    """
    check_hostname(hostname)
    short = hostname.partition(".")[0]
    running = hostname if len(hostname) <= _LONGEST_KERNEL else short
    kernel_name = host.proc / "sys" / "kernel" / "hostname"
    address = private_address or (own_address() if host.live else None) or _NO_ADDRESS
    with changes.transaction("hostname", "system.set_hostname") as transaction:
        old = (transaction.read(kernel_name) or b"").decode("ascii", "replace").strip()
        # The kernel's name first: where the agent may not set it, no file has been touched.
        if old != running:
            transaction.write(kernel_name, f"{running}\n".encode())
        static = host.etc / "hostname"
        if (transaction.read(static) or b"").strip() != running.encode():
            transaction.write(static, f"{running}\n".encode())
        hosts = host.etc / "hosts"
        text = transaction.read(hosts) or b""
        names = [hostname] if short == hostname else [hostname, short]
        replaced = [name for name in (old, old.partition(".")[0]) if _is_name(name)]
        transaction.write(hosts, map_address(text, address, names, replaced))
        _set_network_line(transaction, host.etc / "sysconfig" / "network", running)
        transaction.apply()
    return hostname


def check_hostname(hostname: str) -> None:
    """Refuse what is no host name.

    :raises InvalidParameter: with what was expected.
    """
    shown = repr(hostname if len(hostname) <= 80 else hostname[:79] + "…")
    if not hostname.isascii():
        raise InvalidParameter("hostname", shown, "ASCII letters, digits and hyphens: give the punycode form, xn--…")
    if not 1 <= len(hostname) <= _LONGEST:
        raise InvalidParameter("hostname", shown, f"1 to {_LONGEST} characters")
    labels = hostname.split(".")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise InvalidParameter(
                "hostname",
                shown,
                "labels of 1 to 63 letters, digits and hyphens, no hyphen at their ends, with dots between (RFC 1123)",
            )
    if labels[-1].isdigit():
        raise InvalidParameter("hostname", shown, "a last label that is no number: this looks like an address")


def own_address() -> str | None:
    """Give the address that this server speaks to the outside from; None where it has no route there.

    Connecting a datagram socket sends nothing: the kernel only chooses the source (RFC 5737 and RFC 3849 addresses).
    """
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            address = str(probe.getsockname()[0])
            if not address.startswith("127.") and address not in ("::1", "0.0.0.0", "::"):  # noqa: S104
                return address
    return None


def _is_name(name: str) -> bool:
    return bool(name) and name != "localhost" and all(_LABEL.fullmatch(label) for label in name.split("."))


def _set_network_line(transaction: Transaction, path: Path, name: str) -> None:
    """Keep the name where Red Hat's releases up to 6 have it, too."""
    text = transaction.read(path) if path.exists() else None
    if text is not None and _NETWORK_LINE.search(text):
        transaction.write(path, _NETWORK_LINE.sub(b"HOSTNAME=" + name.encode(), text))
