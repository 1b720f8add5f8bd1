"""Rule sets as people write them, for tests of firewalls: of nftables, and of iptables."""


def chain(rules: str, policy: str = "accept", *, name: str = "entry", hook: str = "input", priority: int = 0) -> str:
    base = f"type filter hook {hook} priority {priority}; policy {policy};" if hook else ""
    return f"chain {name} {{\n{base}\n{rules}\n}}\n"


def table(*parts: str, family: str = "inet", name: str = "own") -> str:
    return f"table {family} {name} {{\n{''.join(parts)}}}\n"


USUAL = """
ct state vmap { established : accept, related : accept, invalid : drop }
iifname lo accept
meta l4proto { icmp, ipv6-icmp } accept
"""


DROPPING = table(chain(USUAL + "tcp dport 22 accept", "drop"))


STOPPING = {
    "a policy": table(chain(USUAL, "drop")),
    "a drop at the end": table(chain(USUAL + "drop")),
    "a reject at the end, with a counter": table(chain(USUAL + "counter reject with icmpx port-unreachable")),
    "a reset for tcp": table(chain(USUAL + "meta l4proto tcp reject with tcp reset")),
    "what is not among some ports": table(chain(USUAL + "tcp dport != { 22, 8080-8090 } drop")),
    "all but some addresses": table(chain(USUAL + "ip saddr != 192.0.2.0/24 drop\nip6 saddr != 2001:db8::/32 drop")),
    "new connections": table(chain(USUAL + "ct state new drop")),
    "connections that begin": table(chain(USUAL + "tcp flags & (fin | syn | rst | ack) == syn drop")),
    "what comes by the outer interface": table(chain(USUAL + 'iifname "eth*" drop')),
    "what does not come by another one": table(chain(USUAL + "iifname != lo drop")),
    "a range of ports": table(chain(USUAL + "tcp dport 1-9999 drop")),
    "this very port": table(chain(USUAL + "tcp dport 80 drop\ntcp dport 8443 drop")),
    "a map of verdicts": table(chain(USUAL + "tcp dport vmap { 22 : accept, 1-21 : accept, 23-9999 : drop }")),
    "a named map": table(
        "map verdicts {\ntype inet_service : verdict\nflags interval\nelements = { 22 : accept, 23-9999 : drop }\n}\n",
        chain(USUAL + "tcp dport vmap @verdicts"),
    ),
    "a named set": table(
        "set shut {\ntype inet_service\nflags interval\nelements = { 70-90, 8443 }\n}\n",
        chain(USUAL + "tcp dport @shut drop"),
    ),
    "ports of interfaces that are let through, in a set": table(
        chain(USUAL + 'iifname . tcp dport { "eth1" . 80, "eth0" . 22 } accept', "drop")
    ),
    "the same port of some addresses, in a set": table(
        "set friends {\ntype ipv4_addr . inet_service\nelements = { 192.0.2.1 . 80 }\n}\n",
        chain(USUAL + "ip saddr . tcp dport @friends accept", "drop"),
    ),
    "another chain": table(chain("ip saddr 192.0.2.7 drop\ndrop", name="rest", hook=""), chain(USUAL + "jump rest")),
    "another chain, for good": table(
        chain("tcp dport 22 accept", name="rest", hook=""), chain(USUAL + "goto rest", "drop")
    ),
    "another chain by interface": table(
        chain("tcp dport 22 accept\nreject", name="world", hook=""),
        chain(USUAL + 'iifname vmap { "lo" : accept, "eth0" : jump world }'),
    ),
    "a chain that other ways lead to, too": table(
        chain("counter\ndrop", name="away", hook=""),
        chain(USUAL + "ip saddr 192.0.2.9 jump away\njump away"),
        chain("jump away", name="through", hook="forward"),
    ),
    "two chains of one table": table(
        chain(USUAL, "drop"), chain(USUAL + "tcp dport 22 accept\ndrop", name="later", priority=10)
    ),
    "several tables": table(chain(USUAL, "drop"))
    + table(chain("ct state established accept\nip protocol icmp accept\ndrop", priority=5), family="ip", name="four")
    + table(chain("ct state established accept\nmeta l4proto ipv6-icmp accept", "drop"), family="ip6", name="six"),
    "one table lets it through, and another does not": table(chain("tcp dport 80 accept"), name="first")
    + table(chain(USUAL + "drop"), name="second"),
    "the tables of iptables, made by hand": table(
        chain("ct state established accept\ntcp dport { 22, 443 } accept\nicmp type echo-request accept", "drop"),
        family="ip",
        name="filter",
    )
    + table(
        chain("ct state established accept\nmeta l4proto { ipv6-icmp, udp } accept", "drop", name="INPUT"),
        family="ip6",
        name="filter",
    ),
    "what comes before the routing": table(chain(USUAL, "drop", hook="prerouting", priority=-150)),
    "many ways in one": table(
        "set blocked {\ntype ipv4_addr\nflags interval\nelements = { 198.51.100.0/24 }\n}\n"
        "set met {\ntype ipv4_addr\nsize 1000\nflags dynamic\ntimeout 1m\n}\n",
        chain(
            USUAL + "ip saddr @blocked drop\n"
            "tcp flags & (fin | syn | rst | ack) != syn ct state new drop\n"
            "fib daddr type != local drop\n"
            "fib saddr . iif oif missing drop\n"
            "meta pkttype != unicast drop\n"
            "add @met { ip saddr limit rate over 100/second } drop\n"
            "tcp dport 80 ct count over 500 reject\n"
            "udp dport 53 accept\n"
            "meta mark & 0x8000 == 0x8000 drop\n"
            'limit rate 1/second log prefix "stopped: "\n'
            "drop"
        ),
    ),
}


LETTING_THROUGH = {
    "a rule for it": table(chain(USUAL + "tcp dport 80 accept", "drop")),
    "a set": table(chain(USUAL + "tcp dport { 80, 443 } ct state new counter accept", "drop")),
    "a range": table(chain(USUAL + "tcp dport 1-1023 accept\ndrop")),
    "a named set": table(
        "set web {\ntype inet_service\nflags interval\nelements = { 80-90, 443 }\n}\n",
        chain(USUAL + "tcp dport @web accept", "drop"),
    ),
    "a comparison": table(chain(USUAL + "tcp dport < 1024 accept", "drop")),
    "both protocols' ports": table(chain(USUAL + "meta l4proto { tcp, udp } th dport 80 accept", "drop")),
    "another chain": table(
        chain("tcp dport 80 accept", name="web", hook=""), chain(USUAL + "ip protocol tcp jump web\njump web", "drop")
    ),
    "by interface": table(
        chain("tcp dport 80 accept", name="world", hook=""),
        chain(USUAL + 'iifname vmap { "eth0" : jump world }', "drop"),
    ),
    "interface and port in a set": table(chain(USUAL + 'iifname . tcp dport { "eth0" . 80 } accept', "drop")),
    "as often as allowed": table(chain(USUAL + "tcp dport 80 limit rate 50/second accept", "drop")),
    "all but some ports": table(chain(USUAL + "tcp dport != { 22, 443 } accept", "drop")),
    "with no more than so many": table(
        chain(USUAL + "tcp dport 80 ct count over 100 drop\ntcp dport 80 accept", "drop")
    ),
    "a return": table(chain("tcp dport 80 return\ndrop", name="rest", hook=""), chain(USUAL + "jump rest")),
    "a table that sleeps": "table inet own {\nflags dormant\n" + chain("", "drop") + "}\n",
}


IPT_USUAL = (
    "-A INPUT -i lo -j ACCEPT",
    "-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
    "-A INPUT -m conntrack --ctstate INVALID -j DROP",
    "-A INPUT -p ICMP -j ACCEPT",
)
IPT_STOPPING = {
    "a policy": ("-P INPUT DROP",),
    "a reject at the end": ("-A INPUT -j REJECT",),
    "a policy and a drop": (
        "-P INPUT DROP",
        "-A INPUT -p tcp -m multiport --dports 22,8080:8090 -j ACCEPT",
        "-A INPUT -j DROP",
    ),
    "by interface": ("-A INPUT -i eth+ -p tcp -j DROP",),
    "by what it is not": ("-A INPUT ! -i lo -j DROP",),
    "connections that begin": ("-A INPUT -p tcp --syn -j REJECT --reject-with tcp-reset",),
    "another chain": ("-N REST", "-A REST -p tcp --dport 22 -j ACCEPT", "-A REST -j DROP", "-A INPUT -j REST"),
    "another chain that others use": (
        "-N LOGDROP",
        "-A LOGDROP -m limit --limit 1/min -j LOG --log-prefix 'it is \"away\": '",
        "-A LOGDROP -j DROP",
        "-A INPUT -m recent --name bad --rcheck -j LOGDROP",
        "-A INPUT -j LOGDROP",
        "-A FORWARD -j LOGDROP",
    ),
    "with much besides": (
        "-P INPUT DROP",
        "-A INPUT -p tcp ! --syn -m conntrack --ctstate NEW -j DROP",
        "-A INPUT -p tcp --tcp-flags ALL NONE -j DROP",
        "-A INPUT -p tcp --tcp-flags SYN,FIN SYN,FIN -j DROP",
        "-A INPUT -m addrtype ! --dst-type LOCAL -j DROP",
        "-A INPUT -p tcp --dport 80 -m connlimit --connlimit-above 500 -j REJECT",
        "-A INPUT -p tcp --syn -m hashlimit --hashlimit-name h --hashlimit-above 900/sec -j DROP",
        "-A INPUT -m comment --comment 'a person said: -j ACCEPT --dport 80' -j LOG",
        "-A INPUT -j REJECT",
    ),
}
IPT_LETTING_THROUGH = {
    "a rule for it": ("-A INPUT -p tcp --dport 80 -j ACCEPT", "-P INPUT DROP"),
    "a list with a range": ("-A INPUT -p tcp -m multiport --dports 22,70:90,443 -j ACCEPT", "-A INPUT -j REJECT"),
    "new ones in another chain": (
        "-N WEB",
        "-A WEB -p tcp --dport 80 -m conntrack --ctstate NEW -j ACCEPT",
        "-A INPUT -i eth0 -j WEB",
        "-P INPUT DROP",
    ),
    "all but another port": ("-A INPUT -p tcp ! --dport 443 -j ACCEPT", "-P INPUT DROP"),
    "no stop but for some": ("-A INPUT -s ADDRESS -j DROP", "-A INPUT -p tcp --dport 443 -j REJECT"),
}
