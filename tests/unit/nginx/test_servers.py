"""TLS of an existing proxy, turned on and off in its text."""

from pathlib import Path

import pytest

from scalarizr.nginx import servers
from scalarizr.nginx.document import Block, make_block

PAIR = Path("/k/a.crt"), Path("/k/a.key")
PLAIN = """\
# proxy a.example.com
server {
    listen 8080;
    listen [::]:8080;   # mine
    server_name a.example.com;

    # mine, too
    location / {
        proxy_pass http://a;
    }
}
"""


def block(text: str = PLAIN) -> Block:
    return make_block(text, "a.example.com")


def test_on_and_off_again_leaves_what_was_there() -> None:
    tls = servers.with_tls(block(), 8443, PAIR, ipv6=True)
    assert servers.tls_port(tls) == 8443 and servers.plain_ports(tls) == {8080}
    assert servers.certificate_of(tls) == PAIR
    assert "listen [::]:8443 ssl;" in tls.text and "ssl_protocols TLSv1.2 TLSv1.3;" in tls.text
    assert tls.text.count("# mine") == 2
    assert servers.without_tls(tls, set(), ipv6=True).text == PLAIN


def test_the_same_again_changes_nothing() -> None:
    tls = servers.with_tls(block(), 8443, PAIR, ipv6=False)
    assert servers.with_tls(tls, 8443, PAIR, ipv6=False) is tls
    plain = block()
    assert servers.without_tls(plain, {80}, ipv6=False) is plain


def test_another_port_or_certificate_changes_only_that() -> None:
    tls = servers.with_tls(block(), 8443, PAIR, ipv6=True)
    tuned = tls.replaced(tls.text.replace("ssl_session_tickets off;", "ssl_session_tickets on;  # mine"))
    other = Path("/k/b.crt"), Path("/k/b.key")
    moved = servers.with_tls(tuned, 9443, other, ipv6=True)
    assert moved.text == tuned.text.replace("8443", "9443").replace("/k/a.", "/k/b.")


def test_one_that_only_spoke_tls_gets_its_http_port_back() -> None:
    tls = servers.with_tls(block(), 8443, PAIR, ipv6=False)
    only = tls.replaced(tls.text.replace("    listen 8080;\n    listen [::]:8080;   # mine\n", ""))
    plain = servers.without_tls(only, {8080}, ipv6=False)
    assert servers.plain_ports(plain) == {8080} and servers.tls_port(plain) is None


@pytest.mark.parametrize(
    ("code", "target", "redirects"),
    [("301", "https://$host$request_uri", True), ("302", "https://$host", False), ("301", "/other", False)],
)
def test_a_redirect_to_https_is_known_and_gets_another_port(code: str, target: str, redirects: bool) -> None:
    text = f"server {{\n    listen 80;\n    server_name a;\n    return {code} {target};\n}}\n"
    assert servers.is_redirect(block(text)) == redirects
    if redirects:
        moved = servers.redirecting_to(block(text), 8443)
        assert "return 301 https://$host:8443$request_uri;" in moved.text and moved.text.count("\n") == text.count("\n")
        assert servers.redirecting_to(moved, 443).text == text


@pytest.mark.parametrize(
    "text",
    [
        "server { listen 80; server_name a; }\n",
        "server {\n\tlisten 80;\n\tserver_name a; location / { }\n}",
        "server {\n  server_name a;\n}\n",
    ],
)
def test_any_way_of_writing_it_can_be_edited(text: str) -> None:
    tls = servers.with_tls(block(text), 443, PAIR, ipv6=False)
    assert servers.tls_port(tls) == 443 and servers.certificate_of(tls) == PAIR
    plain = servers.without_tls(tls, {80}, ipv6=False)
    assert servers.tls_port(plain) is None and servers.certificate_of(plain) is None
    assert [one.words for one in plain.directive.all("server_name")] == [["server_name", "a"]]
