"""Editing the servers of an upstream in its text: a line comes, goes or changes, the rest stays."""

import re

import msgspec

from scalarizr.host.numerals import numeral
from scalarizr.nginx.document import Block
from scalarizr.nginx.parameters import Server, ServerOptions
from scalarizr.nginx.render import INDENT, PLACEHOLDER, server_line
from scalarizr.nginx.syntax import Directive, whole_lines

_ROLE = re.compile(r"^[ \t]*# role (?P<role>\S+)(?P<options>.*)$", re.MULTILINE)
_IS_PLACEHOLDER = re.compile(r"server\s+127\.0\.0\.1\s+down\s*;\s*# placeholder")
_PORT = re.compile(r":([0-9]+)$")


def with_server(block: Block, server: Server) -> Block:
    """Add a server to an upstream, or give it other options; the same block where it is so already."""
    upstream = block.directive
    line = server_line(server.host, server.options)
    for present in upstream.all("server"):
        if _same(present.words[1], server.host, server.options.port, exactly=True) and not _is_placeholder(
            block, present
        ):
            plain = server.options == ServerOptions(port=server.options.port)
            if plain or present.words == line.rstrip(";").split():
                return block
            text = block.text[: present.start] + line + block.text[present.end :]
            return block.replaced(text)
    return _without_placeholder(_inserted(block, line))


def without_server(block: Block, server: Server) -> Block:
    """Take a server out of an upstream; the last one leaves the placeholder."""
    upstream = block.directive
    unwanted = [
        present
        for present in upstream.all("server")
        if _same(present.words[1], server.host, server.options.port, exactly=False)
        and not _is_placeholder(block, present)
    ]
    if not unwanted:
        return block
    text = block.text
    for present in reversed(unwanted):
        start, end = whole_lines(text, present)
        text = text[:start] + text[end:]
    block = block.replaced(text)
    return block if block.directive.all("server") else _inserted(block, PLACEHOLDER)


def roles_of(block: Block) -> list[str]:
    """Give the roles whose servers an upstream has, by its name."""
    _base, separator, roles = block.label.rpartition("__")
    return [role for role in roles.split("_") if role] if separator else []


def options_for(block: Block, role: str) -> list[ServerOptions]:
    """Give how servers of a role stand in an upstream: one for each destination that the role has there."""
    found = []
    for match in _ROLE.finditer(block.text):
        if match["role"] == role:
            said: dict[str, object] = {}
            for name, _, value in (word.partition("=") for word in match["options"].split()):
                if name in ServerOptions.__struct_fields__:
                    number = numeral(value)
                    said[name] = value == "True" if number is None else number
            found.append(msgspec.convert(said, ServerOptions))
    return found or [ServerOptions()]


def merged(server: Server, options: ServerOptions) -> Server:
    """Give a server with a destination's options where the caller said nothing else."""
    own = server.options
    return Server(
        server.host,
        ServerOptions(
            port=None if server.host.startswith("unix:") else own.port or options.port,
            backup=own.backup or options.backup,
            down=own.down or options.down,
            weight=options.weight if own.weight is None else own.weight,
            max_fails=options.max_fails if own.max_fails is None else own.max_fails,
            fail_timeout=options.fail_timeout if own.fail_timeout is None else own.fail_timeout,
        ),
    )


def _same(present: str, host: str, port: int | None, *, exactly: bool) -> bool:
    found = _PORT.search(present) if not present.startswith("unix:") else None
    present_host = present[: found.start()] if found else present
    if present_host.lower() != host.lower():
        return False
    if port is None and not exactly:
        return True
    return (int(found[1]) if found else 80) == (port or 80)


def _is_placeholder(block: Block, server: Directive) -> bool:
    return bool(_IS_PLACEHOLDER.match(block.text, server.start))


def _without_placeholder(block: Block) -> Block:
    for server in block.directive.all("server"):
        if _is_placeholder(block, server):
            start, end = whole_lines(block.text, server)
            return block.replaced(block.text[:start] + block.text[end:])
    return block


def _inserted(block: Block, line: str) -> Block:
    servers = block.directive.all("server")
    if servers:
        last = servers[-1]
        line_start = block.text.rfind("\n", 0, last.start) + 1
        indent = block.text[line_start : last.start]
        place = whole_lines(block.text, last)[1]
        if indent.strip() or block.text[place - 1] != "\n":
            return block.replaced(block.text[: last.end] + f" {line}" + block.text[last.end :])
        return block.replaced(block.text[:place] + f"{indent}{line}\n" + block.text[place:])
    closing = block.directive.end - 1
    line_start = block.text.rfind("\n", 0, closing) + 1
    if block.text[line_start:closing].strip():
        # On lines of their own: the placeholder ends in a comment.
        return block.replaced(block.text[:closing].rstrip() + f"\n{INDENT}{line}\n" + block.text[closing:])
    return block.replaced(block.text[:line_start] + f"{INDENT}{line}\n" + block.text[line_start:])
