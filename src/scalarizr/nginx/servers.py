"""Turning TLS of an existing proxy on and off in its text: what a person added to its servers stays."""

from pathlib import Path

from scalarizr.nginx.document import Block
from scalarizr.nginx.main_config import listening_port
from scalarizr.nginx.render import INDENT, TLS_LINES, certificate_lines, listen_texts, redirecting_lines
from scalarizr.nginx.syntax import Directive, whole_lines

_TLS_NAMES = frozenset(line.split()[0] for line in TLS_LINES) | {"ssl_certificate", "ssl_certificate_key"}


def is_redirect(block: Block) -> bool:
    """Tell whether a server only sends visitors to https."""
    back = block.directive.child("return")
    return bool(back and len(back.words) == 3 and back.words[1] == "301" and back.words[2].startswith("https://"))


def tls_port(block: Block) -> int | None:
    """Give the port on which a server speaks TLS; None where it does not."""
    return next((listening_port(one) for one in block.directive.all("listen") if "ssl" in one.words[2:]), None)


def plain_ports(block: Block) -> set[int]:
    """Give the ports on which a server speaks plain http."""
    return {listening_port(one) for one in block.directive.all("listen") if "ssl" not in one.words[2:]}


def certificate_of(block: Block) -> tuple[Path, Path] | None:
    """Give the paths of a server's certificate and key."""
    found = [block.directive.child(name) for name in ("ssl_certificate", "ssl_certificate_key")]
    if any(one is None or len(one.words) != 2 for one in found):
        return None
    return Path(found[0].words[1]), Path(found[1].words[1])  # type: ignore[union-attr]


def with_tls(block: Block, port: int, certificate: tuple[Path, Path], *, ipv6: bool) -> Block:
    """Let a server speak TLS on a port, with a certificate; the same block where it does so already."""
    if tls_port(block) == port and certificate_of(block) == certificate:
        return block
    if tls_port(block) is not None:
        # Only what differs changes.
        listens = listen_texts(port, " ssl", ipv6=ipv6)
        text = _without(block, lambda one: one.name == "listen" and "ssl" in one.words[2:])
        text = _with_lines(block.replaced(text), listens, behind="listen")
        block = block.replaced(text)
        lines = certificate_lines(certificate)
        text = _without(block, lambda one: one.name in ("ssl_certificate", "ssl_certificate_key"))
        return block.replaced(_with_lines(block.replaced(text), lines, behind="server_name"))
    text = _with_lines(block, (*certificate_lines(certificate), *TLS_LINES), behind="server_name")
    block = block.replaced(text)
    return block.replaced(_with_lines(block, listen_texts(port, " ssl", ipv6=ipv6), behind="listen"))


def without_tls(block: Block, plain: set[int], *, ipv6: bool) -> Block:
    """Let a server speak plain http only.

    :param plain: ports to listen on where it has none of its own.
    """
    if tls_port(block) is None:
        return block
    own = plain_ports(block)
    text = _without(block, lambda one: one.name in _TLS_NAMES or (one.name == "listen" and "ssl" in one.words[2:]))
    block = block.replaced(text)
    if own:
        return block
    lines = [line for port in sorted(plain) for line in listen_texts(port, "", ipv6=ipv6)]
    return block.replaced(_with_lines(block, lines, behind="listen", before="server_name"))


def redirecting_to(block: Block, port: int) -> Block:
    """Let a redirecting server name another port."""
    back = block.directive.child("return")
    assert back is not None
    return block.replaced(block.text[: back.start] + redirecting_lines(port)[0] + block.text[back.end :])


def _without(block: Block, unwanted: object) -> str:
    text = block.text
    for one in reversed(block.directive.children):
        if unwanted(one):  # type: ignore[operator]
            start, end = whole_lines(text, one)
            text = text[:start] + text[end:]
    return text


def _with_lines(block: Block, lines: object, *, behind: str, before: str | None = None) -> str:
    """Put lines behind the last directive of a name, else before the first of another, else at the beginning."""
    text, server = block.text, block.directive
    anchors = server.all(behind)
    if anchors:
        return _behind(text, anchors[-1], lines)
    first = server.child(before) if before else None
    if first is not None:
        place = whole_lines(text, first)[0]
        return text[:place] + "".join(f"{INDENT}{line}\n" for line in lines) + text[place:]  # type: ignore[attr-defined]
    joined = "".join(f"\n{INDENT}{line}" for line in lines)  # type: ignore[attr-defined]
    return text[: server.inside] + joined + text[server.inside :]


def _behind(text: str, anchor: Directive, lines: object) -> str:
    place = whole_lines(text, anchor)[1]
    new = "".join(f"{INDENT}{line}\n" for line in lines)  # type: ignore[attr-defined]
    if text[place - 1] != "\n":
        return text[:place] + "\n" + new + text[place:]
    return text[:place] + new + text[place:]
