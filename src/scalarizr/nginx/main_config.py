"""The main configuration: the few lines that have the managed files included."""

import fnmatch
import os
from collections.abc import Iterable
from pathlib import Path

from scalarizr.changes.transaction import Transaction
from scalarizr.errors import OutsideFailure
from scalarizr.host.numerals import numeral
from scalarizr.nginx.syntax import BadSyntax, Directive, parse

_NOTE = "# The next lines are scalarizr's: its reverse proxies."


def include_managed_files(transaction: Transaction, main: Path, managed: Iterable[Path]) -> None:
    """Have files included from `http {}`, once, with nothing else touched.

    :param main: the main configuration.
    :param managed: the files, in their order.
    :raises OutsideFailure: the main configuration cannot be read, or has no `http {}`.
    """
    text = decoded(transaction.read(main), main)
    http = http_block(text, main)
    missing = [path for path in managed if not is_included(path, http, main)]
    if not missing:
        return
    closing = http.end - 1
    line_start = text.rfind("\n", 0, closing) + 1
    alone = not text[line_start:closing].strip()
    indent = _indent_of_children(text, http)
    lines = "".join(f"{indent}{line}\n" for line in (_NOTE, *(f"include {path};" for path in missing)))
    place = line_start if alone else closing
    text = text[:place] + ("" if alone else "\n") + lines + text[place:]
    transaction.write(main, text.encode("utf-8", "surrogateescape"))


def http_block(text: str, main: Path) -> Directive:
    """Find `http {}` in the text of the main configuration.

    :raises OutsideFailure: there is none, or the text is no whole configuration.
    """
    try:
        http = next((one for one in parse(text) if one.name == "http" and one.is_block), None)
    except BadSyntax as error:
        raise OutsideFailure(
            f"{main}, line {error.line}: {error}. Nothing was changed.", {"file": str(main), "line": error.line}
        ) from None
    if http is None:
        raise OutsideFailure(f"{main} has no block http {{}} to include proxies from. Nothing was changed.")
    return http


def is_included(path: Path, http: Directive, main: Path) -> bool:
    """Tell whether a file under a name would be read by an `include` of `http {}`, as glob(7) has it."""
    for one in http.all("include"):
        pattern = os.path.join(main.parent, one.words[1]) if len(one.words) > 1 else ""
        parts, wanted = Path(os.path.normpath(pattern)).parts, path.parts
        if len(parts) == len(wanted) and all(map(_matches, wanted, parts)):
            return True
    return False


def listening_port(listen: Directive) -> int:
    """Give the port of a directive `listen`; 0 for a Unix socket."""
    where = listen.words[1] if len(listen.words) > 1 else ""
    if where.startswith("unix:"):
        return 0
    port = numeral(where.rpartition(":")[2])
    return 80 if port is None else port


def listening_address(listen: Directive) -> tuple[str, int]:
    """Give the address and port of a directive `listen`: `0.0.0.0` for every IPv4 one."""
    where = listen.words[1] if len(listen.words) > 1 else ""
    if where.startswith("unix:"):
        return where, 0
    port = listening_port(listen)
    address = where.removesuffix(f":{port}")
    return ("0.0.0.0" if address in ("", "*") or address.isdigit() else address), port  # noqa: S104


def decoded(content: bytes | None, path: Path) -> str:
    """Read a file's bytes as text that can be written back as they were."""
    if content is None:
        raise OutsideFailure(f"{path} does not exist. Nothing was changed.", {"file": str(path)})
    return content.decode("utf-8", "surrogateescape")


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) and (not name.startswith(".") or pattern.startswith("."))


def _indent_of_children(text: str, block: Directive) -> str:
    for child in block.children:
        before = text[text.rfind("\n", 0, child.start) + 1 : child.start]
        if not before.strip():
            return before
    return "    "
