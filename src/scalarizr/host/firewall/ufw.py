"""ufw: what it is told is kept in its own settings, with the agent's mark as the comment."""

from collections.abc import Sequence

from scalarizr.errors import OutsideFailure
from scalarizr.host.firewall.programs import Programs
from scalarizr.host.firewall.stops import MARK, Stop

CHAINS = {"ip": "ufw-user-input", "ip6": "ufw6-user-input"}
"""Chains that are there while it is active."""


def let_through(stops: Sequence[Stop], programs: Programs) -> None:
    """Allow ports, behind what the person's own rules stop for some.

    :raises OutsideFailure: a rule of the person's is about this very port: ufw would replace it.
    """
    ports = sorted({stop.port for stop in stops})
    rules = _rules(programs)
    for port in ports:
        for rule in rules:
            if rule.split(" comment ")[0].split()[-1:] == [f"{port}/tcp"] and rule != _allowing(port):
                raise OutsideFailure(
                    f"ufw stops port {port} and has a rule about it already: `{rule}`. It was left; change it, or "
                    "delete it, first.",
                    {"port": port},
                )
    for port in ports:
        programs.do("ufw", "allow", f"{port}/tcp", "comment", MARK)


def take_back(ports: Sequence[int], programs: Programs) -> None:
    """Delete the rules that bear the mark; one that a person repeated since bears it no more."""
    if programs.has("ufw"):
        rules = _rules(programs)
        for port in ports:
            if _allowing(port) in rules:
                programs.do("ufw", "delete", "allow", f"{port}/tcp")


def _rules(programs: Programs) -> list[str]:
    return [line for line in (programs.ask("ufw", "show", "added") or "").splitlines() if line.startswith("ufw ")]


def _allowing(port: int) -> str:
    return f"ufw allow {port}/tcp comment '{MARK}'"
