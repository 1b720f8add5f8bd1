"""The host's firewall: whether it would stop a TCP port, opening that, and closing it again.

`Firewall` is what others use. What is active is read from the kernel, rule by rule (`nftables`, `iptables`); who keeps
those rules opens the port in its own way (`ufw`, `firewalld`, or an entry of the agent's among them).
"""

from scalarizr.host.firewall.ports import Firewall

__all__ = ["Firewall"]
