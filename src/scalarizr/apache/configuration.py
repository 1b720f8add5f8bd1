"""Reading the live configuration as a whole: which files are in it, which modules, which ports it listens on."""

import re
from collections.abc import Iterable
from pathlib import Path

from scalarizr.apache.conditions import Conditions
from scalarizr.apache.description import Description
from scalarizr.apache.program import ApacheProgram
from scalarizr.apache.syntax import BadSyntax, Directive, parse
from scalarizr.changes.transaction import Transaction
from scalarizr.host.numerals import numeral

# The word itself, or lines that are continued, over whose end it may reach.
_MAY_LISTEN = re.compile(rb"listen|\\\r?\n", re.IGNORECASE)
_SERVED = re.compile(r"\((?P<path>/[^()]*):(?P<line>\d+)\)\s*$", re.MULTILINE)


def served_files(program: ApacheProgram) -> list[str]:
    """Give the files whose virtual hosts Apache serves."""
    said = program.ask("-t", "-D", "DUMP_VHOSTS")
    text = said.stdout.decode("utf-8", "replace")
    return list(dict.fromkeys(match["path"] for match in _SERVED.finditer(text)))


def listening_ports(
    described: Description,
    transaction: Transaction,
    modules: frozenset[str],
    *,
    leave_out: frozenset[Path],
    also: Iterable[Path] = (),
) -> set[int]:
    """Give the ports that the configuration listens on.

    :param transaction: reads the files as they would be.
    :param modules: those that will be loaded.
    :param leave_out: files that are not looked at.
    :param also: files that will be included, too.
    """
    ports: set[int] = set()
    conditions = Conditions(modules, described.defines, described.version)
    # A file that comes new into a configuration's directory is included like those beside it.
    new = [file.path for file in transaction.plan if file.old.absent and file.path.suffix == ".conf"]
    directories = {path.parent for path in described.files}
    for path in dict.fromkeys((*described.files, *(path for path in new if path.parent in directories), *also)):
        content = b"" if path in leave_out else transaction.read(path) or b""
        if not _MAY_LISTEN.search(content):
            continue
        try:
            directives = parse(content.decode("utf-8", "surrogateescape"))
        except BadSyntax:
            continue
        listens = [one for one in directives if one.called("listen") and conditions.hold_around(one)]
        ports |= {port for one in listens for port in _port(one)}
    return ports


def listen_ports_of(text: str) -> set[int]:
    """Give the ports of the directives `Listen` in one text."""
    return {port for one in parse(text) if one.called("listen") for port in _port(one)}


def _port(listen: Directive) -> list[int]:
    port = numeral(listen.words[0].rpartition(":")[2]) if listen.words else None
    return [] if port is None else [port]
