"""nginx templates: what is accepted stays in its place as nginx itself reads it, and holds no refused directive."""

import re

from fuzz import nginx_reader
from scalarizr.errors import InvalidParameter, OutsideFailure
from scalarizr.nginx.document import Document, _carefully_split, make_block, owner_comment
from scalarizr.nginx.names import location as read_location
from scalarizr.nginx.parameters import Destination, Proxy
from scalarizr.nginx.render import Network, render_servers, render_upstream, upstreams_of
from scalarizr.nginx.syntax import BadSyntax, Directive, parse
from scalarizr.nginx.template import check_template

LONGEST = 1024
WORDS = (
    b"server {",
    b"location /",
    b"include /etc/passwd;",
    b"load_module x;",
    b"content_by_lua_block {",
    b"proxy_pass http://a;",
    b"return 200 ",
    b"add_header A ",
    b"if ($a) {",
    b"# ",
    b"\\",
    b'\\"',
    b"\\n",
    b"\\\n",
    b"${",
    b"${a}",
    b"$",
    b"}",
    b"\n}\n",
    b"{",
    b";",
    b'"',
    b"'",
    b")",
    b"\r\n",
    b"\r",
    b"\xc2\xa0",
    b"\xc2\x85",
    b"\xe2\x80\xa8",
    b"\xe3\x80\x80",
    b"\xef\xbb\xbf",
)
_REFUSED = re.compile(rb"include|load_module|.*_by_lua.*|lua_.*|perl.*|js_.*", re.IGNORECASE | re.DOTALL)
_PLACES = (None, "/", "/api", "~ \\.php$", "= /x")
_OTHER = make_block(
    owner_comment("other.example") + "server {\n    listen 81;\n    server_name other.example;\n}\n", "other.example"
)


def check(data: bytes) -> None:
    """The first byte: bit 0: any directive; the rest of it: where the template goes. What follows is its text."""
    how, content = (data[0] if data else 0), data[1:].decode("utf-8", "ignore")
    any_directive, place = bool(how & 1), _PLACES[(how >> 1) % len(_PLACES)]
    _check_reader(content)
    where = None if place is None else read_location(place, "p")
    try:
        template = check_template(content, where, "templates[0].content", any_directive=any_directive)
    except InvalidParameter as error:
        assert len(str(error)) < 2000
        line = re.search(r"in line (\d+)", str(error.facts["got"]))
        lines = content.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
        assert line is None or 1 <= int(line[1]) <= lines + 1, (error, lines)
        return
    proxy = Proxy(
        hostname="www.example.com", templates=(template,), destinations=(Destination(host="10.0.0.1", parameter="d"),)
    )
    upstreams = upstreams_of(proxy, "www")
    servers = render_servers(proxy, upstreams, None, ipv6=False)
    upstream = render_upstream(proxy, upstreams[0], {}, Network(None))
    text = "".join(block.text for block in (upstream, *servers, _OTHER))
    if not (any_directive and "_by_lua_block" in content):  # Lua is another language
        _check_place(text, where, any_directive=any_directive)
    _check_document(text, [upstream.text, *(server.text for server in servers), _OTHER.text])
    sent = content.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for number, line in template.lines:
        assert line in sent[number - 1], (number, line)


def _check_reader(content: str) -> None:
    """What nginx reads the agent reads likewise; Lua aside, which nginx leaves to its module."""
    if "_by_lua_block" in content or "\0" in content:
        return
    try:
        theirs = nginx_reader.read(content.encode())
    except nginx_reader.TooLong:
        return
    except nginx_reader.Unreadable:
        theirs = None
    try:
        ours = parse(content)
    except BadSyntax as error:
        assert theirs is None or "nested deeper" in str(error), "nginx reads what the agent does not"
        return
    assert theirs is not None, "the agent reads what nginx does not"
    assert _plain(ours) == _names(theirs), (ours, theirs)


def _plain(directives: list[Directive]) -> list[object]:
    return [
        ([word.encode() for word in one.words], _plain(one.children) if one.is_block else None) for one in directives
    ]


def _names(directives: list[nginx_reader.Directive]) -> list[object]:
    return [(one.words, None if one.children is None else _names(one.children)) for one in directives]


def _check_place(text: str, where: str | None, *, any_directive: bool) -> None:
    try:
        top = nginx_reader.read(text.encode())
    except nginx_reader.TooLong:
        return  # nginx's own check refuses it
    except nginx_reader.Unreadable as error:
        raise AssertionError(f"nginx could not read what was made: {error}") from None
    assert [one.words[0] for one in top] == [b"upstream", b"server", b"server"], [one.words for one in top]
    server = top[1].children or []
    assert [one.words for one in server[:2]] == [[b"listen", b"80"], [b"server_name", b"www.example.com"]]
    if where is not None:
        # The template is in its location; what the agent wrote around it is all there is besides.
        names = {b"listen", b"server_name", b"location", b"proxy_set_header", b"proxy_http_version"}
        assert {one.words[0] for one in server} <= names, server
        locations = [one for one in server if one.words[0] == b"location"]
        assert len(locations) == (1 if where == "/" else 2), locations
    if not any_directive:
        _check_refused(top)


def _check_refused(directives: list[nginx_reader.Directive]) -> None:
    for one in directives:
        assert not _REFUSED.fullmatch(one.words[0]), one.words
        _check_refused(one.children or [])


def _check_document(text: str, blocks: list[str]) -> None:
    """The file splits into the blocks that it was made of, and one is taken out without touching the others."""
    try:
        document = Document("/etc/nginx/proxies.include", text)
        careful = _carefully_split(text)
    except (OutsideFailure, BadSyntax) as error:
        raise AssertionError(f"what was written cannot be read: {error}") from None
    assert [block.text for block in document.blocks] == blocks, [block.text for block in document.blocks]
    told = [(block.text, block.kind, block.label, block.owner) for block in document.blocks]
    assert told == [(block.text, block.kind, block.label, block.owner) for block in careful]
    document.remove([block for block in document.blocks if block.owner == "www.example.com"])
    assert document.text == _OTHER.text, document.text


def seeds() -> dict[str, bytes]:
    """Make templates as people write them."""
    made = {
        "headers": b'add_header X-Frame-Options DENY;\nadd_header A "b c";\ngzip on;',
        "server": b"server {\n    client_max_body_size 8m;\n    location /static {\n        root /srv;\n    }\n}\n",
        "location": b"location /x {\n    proxy_pass http://10.0.0.9;\n}",
        "if": b'if ($http_user_agent ~* "bot|crawl") {\n    return 403;\n}',
        "regular": b"rewrite ^/(.*)\\.html$ /${host}/$1 last;",
        "quotes": b"add_header Content-Security-Policy \"default-src 'self'; img-src *\";",
        "single": b"return 200 'it''s';",
        "escapes": b'return 200 "a\\"b\\\\";',
        "multi-line": b'return 200 "a\n}\n{ b";',
        "comment": b"# a } comment {\ngzip on; # and ; one",
        "crlf": b"gzip on;\r\ngzip_types text/css;\r\n",
        "include": b"include /etc/passwd;",
        "hidden": b'"include" /etc/passwd;',
        "lua": b"content_by_lua_block {\n    ngx.say('}') -- {\n}",
        "unbalanced": b"gzip on; }",
        "open": b"location / {",
        "no-end": b"gzip on",
        "brace-in-word": b"return 200 a}b;",
        "variable": b"set $a ${b}c;\nmap $x $y { default 1; }",
        "utf-8": "add_header X «ü»;".encode(),
        "control": b"gzip on;\x01",
        "parenthesis": b'if ("$a") { return 200; }',
    }
    both = {f"{name}-any": b"\1" + text for name, text in made.items() if name in ("lua", "include")}
    inside = {f"{name}-inside": b"\2" + text for name, text in made.items() if name in ("headers", "comment", "server")}
    return {name: b"\0" + text for name, text in made.items()} | both | inside
