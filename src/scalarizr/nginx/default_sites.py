"""The site that a distribution's package puts there: taken out where it stands in a proxy's way, recorded and undoable.

What a person has made of it is theirs and stays. So that has to be recognised: a default site has no name that anybody
would ask for (none, `_`, `localhost`), and

- where a package gives it a file of its own, it is not put to use: it hands requests on to nobody (`proxy_pass` and its
  like, `alias`, `rewrite`, a redirect) and speaks no TLS;
- where it stands in `http {}` of the main configuration (Red Hat's packages, nginx's own), or has to go without having
  said `default_server`, it has nothing but what packages write there: their document roots, index and error pages.
  An `include` of it must include no file: whatever stands in Red Hat's `default.d` is somebody's site.
"""

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from scalarizr.changes.live_file import read_state
from scalarizr.changes.transaction import Transaction
from scalarizr.nginx.main_config import decoded, http_block, is_included, listening_port
from scalarizr.nginx.syntax import BadSyntax, Directive, parse, whole_lines

# Debian's, nginx.org's, Alpine's.
_FILES = ("sites-enabled/default", "conf.d/default.conf", "http.d/default.conf")
_NO_NAMES = frozenset({"", "_", "localhost"})
_ROOTS = frozenset(
    {"html", "/usr/share/nginx/html", "/usr/share/nginx/www", "/var/www/html", "/srv/www/htdocs", "/srv/www/htdocs/"}
)
_DIRECTIVES = frozenset({"listen", "server_name", "root", "index", "error_page", "include", "location"})
_LOCATIONS = frozenset({"/", "= /404.html", "= /40x.html", "= /50x.html"})
_IN_LOCATION = frozenset({"root", "index", "try_files"})
_MARK = "#scalarizr#"
_NOTE = f"# This default server stood in the way of a proxy. Take the marks {_MARK} off to have it back."


def disable_default_sites(transaction: Transaction, main: Path, ports: set[int], default_ports: set[int]) -> list[str]:
    """Take the default sites out that claim ports of proxies as their default server.

    Of a link the name is removed, and what it leads to stays. A file is renamed to `*.disabled`, where no `include`
    reads it. In the main configuration each line of the block gets a mark of ours before it, and nothing else changes;
    one that a person has taken the marks off again stays, as our note above it tells.

    :param main: the main configuration.
    :param ports: of all proxies: a site goes that says `default_server` there.
    :param default_ports: of the proxy for all other names: a site goes, too, that is the default server there without
        saying so.
    :return: what was taken out, each as it is called in a note.
    """
    gone = []
    text = decoded(transaction.read(main), main)
    http = http_block(text, main)
    for name in _FILES:
        path = main.parent / name
        content = transaction.read(path) if transaction.exists(path) else None
        if content is not None and _stands_in_the_way(content, path, ports, default_ports):
            if not path.is_symlink():
                _put_aside(transaction, path, content, http, main)
            transaction.unlink(path)
            gone.append(str(path))
    marked = text
    for server in reversed(http.all("server")):
        start, end = whole_lines(text, server)
        alone = (start, end) != (server.start, server.end)
        was_put_back = text.endswith(f"{_NOTE}\n", 0, start)
        if alone and not was_put_back and _claims(server, ports, default_ports) and _is_as_packaged(server, main):
            block = text[start:end]
            indent = block[: len(block) - len(block.lstrip(" \t"))]
            lines = _MARK + block.removesuffix("\n").replace("\n", f"\n{_MARK}") + "\n"
            marked = f"{marked[:start]}{indent}{_NOTE}\n{lines}{marked[end:]}"
            first, last = (text.count("\n", 0, place) + 1 for place in (server.start, server.end))
            gone.append(f"{main}, lines {first} to {last},")
    if marked != text:
        transaction.write(main, marked.encode("utf-8", "surrogateescape"))
    return gone


def _stands_in_the_way(content: bytes, path: Path, ports: set[int], default_ports: set[int]) -> bool:
    try:
        tops = parse(decoded(content, path))
    except BadSyntax:
        return False
    servers = [one for one in tops if one.name == "server" and one.is_block]
    if all(_is_as_packaged(server, path.parent) for server in servers):
        return any(_claims(server, ports, default_ports) for server in servers)
    if any(not _has_no_name(server) or _is_put_to_use(server) for server in servers):
        return False
    return any(_claims(server, ports, set()) for server in servers)


def _claims(server: Directive, ports: set[int], default_ports: set[int]) -> bool:
    said: set[int] = set()
    unsaid: set[int] = set()
    for listen in server.all("listen"):
        explicit = {"default_server", "default"} & set(listen.words[2:])
        (said if explicit else unsaid).add(listening_port(listen))
    listens = said | unsaid or {80}
    return bool(said & ports or listens & default_ports)


def _has_no_name(server: Directive) -> bool:
    return all(word in _NO_NAMES for name in server.all("server_name") for word in name.words[1:])


def _is_put_to_use(server: Directive) -> bool:
    # A `return` of an answer hands nothing on; one of 3xx or of a URL does.
    return any(
        one.name in ("alias", "rewrite")
        or one.name.endswith("_pass")
        or one.name.startswith("ssl_")
        or (one.name == "return" and "".join(one.words[1:2])[:1] not in ("1", "2", "4", "5"))
        for one in _everything_in(server)
    )


def _everything_in(block: Directive) -> Iterator[Directive]:
    for child in block.children:
        yield child
        yield from _everything_in(child)


def _is_as_packaged(server: Directive, beside: Path) -> bool:
    return _has_no_name(server) and all(_is_packaged(one, _DIRECTIVES, beside) for one in server.children)


def _is_packaged(one: Directive, expected: frozenset[str], beside: Path) -> bool:
    if one.name not in expected:
        return False
    if one.name == "root":
        return len(one.words) == 2 and one.words[1] in _ROOTS
    if one.name == "include":
        return len(one.words) == 2 and not glob.glob(os.path.join(beside.parent, one.words[1]))
    if one.name == "location":
        known = " ".join(one.words[1:]) in _LOCATIONS
        return known and all(_is_packaged(inner, _IN_LOCATION, beside) for inner in one.children)
    return True


def _put_aside(transaction: Transaction, path: Path, content: bytes, http: Directive, main: Path) -> None:
    """Keep a file under a name that nothing includes, and that nothing else has."""
    # Debian includes everything of sites-enabled.
    directories = [
        directory
        for directory in (path.parent, main.parent)
        if not is_included(directory / f"{path.name}.disabled", http, main)
    ]
    aside = (directories or [main.parent])[0] / f"{path.name}.disabled"
    number = 1
    while transaction.read(aside) not in (None, content):
        number += 1
        aside = aside.with_name(f"{path.name}.disabled.{number}")
    transaction.restore(aside, read_state(path))
