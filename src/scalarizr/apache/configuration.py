"""Reading the live configuration as a whole: which files are in it, which modules, which ports it listens on."""

import re
from pathlib import Path

from scalarizr.apache.includes import applies
from scalarizr.apache.program import ApacheProgram, Description
from scalarizr.apache.syntax import BadSyntax, Directive, parse
from scalarizr.changes.transaction import Transaction

_SERVED = re.compile(r"\((?P<path>/[^()]*):(?P<line>\d+)\)\s*$", re.MULTILINE)


def served_files(program: ApacheProgram) -> list[str]:
    """Give the files whose virtual hosts Apache serves."""
    said = program.ask("-t", "-D", "DUMP_VHOSTS")
    text = said.stdout.decode("utf-8", "replace")
    return list(dict.fromkeys(match["path"] for match in _SERVED.finditer(text)))


def listening_ports(
    described: Description, transaction: Transaction, modules: frozenset[str], *, leave_out: frozenset[Path]
) -> set[int]:
    """Give the ports that the configuration listens on.

    :param transaction: reads the files as they would be.
    :param modules: those that will be loaded.
    :param leave_out: files that are not looked at.
    """
    ports: set[int] = set()
    # A file that comes new into a configuration's directory is included like those beside it.
    new = [file.path for file in transaction.plan if file.old.absent and file.path.suffix == ".conf"]
    directories = {path.parent for path in described.files}
    for path in dict.fromkeys((*described.files, *(path for path in new if path.parent in directories))):
        if path in leave_out:
            continue
        content = transaction.read(path)
        try:
            directives = parse((content or b"").decode("utf-8", "surrogateescape"))
        except BadSyntax:
            continue
        ports |= {port for one in directives if one.called("listen") and applies(one, modules) for port in _port(one)}
    return ports


def listen_ports_of(text: str) -> set[int]:
    """Give the ports of the directives `Listen` in one text."""
    return {port for one in parse(text) if one.called("listen") for port in _port(one)}


def _port(listen: Directive) -> list[int]:
    last = listen.words[0].rpartition(":")[2] if listen.words else ""
    return [int(last)] if last.isdigit() else []
