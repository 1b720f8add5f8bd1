"""Checking a planned configuration before a live byte changes, and telling what is wrong in the caller's words."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from scalarizr.changes.as_if_live import check_as_if_live
from scalarizr.changes.journal import PlannedFile
from scalarizr.errors import Refused, TimedOut
from scalarizr.host.listening import holder_of, listening_sockets, sockets_of
from scalarizr.host.run import Finished
from scalarizr.nginx.document import Block, Document, Origin
from scalarizr.nginx.main_config import listening_port
from scalarizr.nginx.program import NginxProgram
from scalarizr.nginx.syntax import Directive

_PLACE = re.compile(r" in (?P<file>/\S+):(?P<line>\d+)")
_FILE = re.compile(r'"(?P<file>/[^"]+)"')
_CONFLICT = re.compile(r'conflicting server name "(?P<name>[^"]*)" on (?P<where>\S+), ignored')
_LINE = re.compile(r"^(?:nginx: |\S+ \S+ )?\[(?P<level>\w+)\] (?:\d+#\d+: )?(?P<words>.*)$")
_OPENED = re.compile(rb"^[ \t]*(?:listen|access_log|error_log)[ \t][^;]*", re.MULTILINE)
_MORE_FILES = (
    "Raise how many files it may open, by LimitNOFILE in its systemd unit or `ulimit -n` where it is started, and "
    "restart it. "
)
_QUOTED = re.compile(r'"[^"]*"')


class Checker:
    """Checks planned files with the real program.

    :param program: the nginx.
    :param scratch: a directory of the agent's own for the check.
    :param readable: directories whose files' text may show in messages.
    """

    def __init__(self, program: NginxProgram, scratch: Path, readable: Sequence[Path]) -> None:
        self._program = program
        self._scratch = scratch
        self._readable = readable

    def check(self, files: list[PlannedFile], documents: Sequence[Document] = ()) -> str:
        """Check the set, its ports and its names.

        :param documents: what is in the files, for mapping a line back to what the caller sent.
        :return: what nginx said.
        :raises Refused: it is not valid; nothing was changed.
        """
        self._refuse_foreign_ports(files, documents)
        code, said = self._nginx_says(files)
        if code != 0:
            raise self._refusal(said, documents)
        self._refuse_conflicts(said, documents)
        return "\n".join(self._shown(line) for line in said.splitlines())

    def _nginx_says(self, files: list[PlannedFile]) -> tuple[int, str]:
        opens = sum(_opened(file.new.content or b"") for file in files)
        program = self._program
        try:
            return check_as_if_live(
                files,
                self._scratch,
                [program.config_dir],
                program.main_config,
                partial(program.test, opens=opens),
                _all_words,
            )
        except TimedOut as error:
            error.say_further("Nothing was changed.")
            raise

    def _refusal(self, said: str, documents: Sequence[Document]) -> Refused:
        lines = [match for match in map(_LINE.match, said.splitlines()) if match]
        worst = [match["words"] for match in lines if match["level"] in ("emerg", "alert", "crit", "error")]
        words = worst[0] if worst else said.strip()[-600:]
        place = _PLACE.search(words)
        facts: dict[str, str | int | None] = {}
        where = ""
        if place:
            file, line = place["file"], int(place["line"])
            facts |= {"file": file, "line": line}
            document = next((one for one in documents if one.path == file), None)
            origin = document.origin(line) if document else None
            if origin is not None:
                # What was planned is nowhere to be looked up: the caller's own line says where.
                where, words = _described(origin), words[: place.start()] + words[place.end() :]
                facts |= _whose(origin)
            elif document is not None and document.owner_at(line):
                where = f"In the proxy {document.owner_at(line)}: "
        elif named := _FILE.search(words):
            where, facts = _whose_file(named["file"], documents)
        advice = _MORE_FILES if "Too many open files" in words else ""
        return Refused(f"{where}nginx says: {self._shown(words)}. {advice}Nothing was changed.", facts)

    def _shown(self, words: str) -> str:
        """Give a message without what it quotes of a file that is none of the configuration's."""
        words = words.removeprefix("nginx: ")
        place = _PLACE.search(words)
        if place and not any(place["file"].startswith(f"{directory}/") for directory in self._readable):
            return _QUOTED.sub("(not shown)", words)
        return words[:600]

    def _refuse_conflicts(self, said: str, documents: Sequence[Document]) -> None:
        """nginx says yes to a name that two servers claim, and ignores one of them."""
        planned = _conflicts(said)
        if not planned:
            return
        live = self._program.test()
        for name, where in planned - _conflicts(_all_words(live)):
            port = where.rpartition(":")[2]
            claiming = next((block.origins for block in _claiming(documents, name, port)), ())
            origin = next((origin for origin in claiming if origin and origin.parameter.endswith("hostname")), None)
            raise Refused(
                f"{_described(origin) if origin else ''}The name {name} is claimed on {where} by another server block "
                "already: nginx would ignore one of the two. Nothing was changed; remove it from one of them.",
                {"hostname": name, "port": port, **_whose(origin)},
            )

    def _refuse_foreign_ports(self, files: list[PlannedFile], documents: Sequence[Document]) -> None:
        """nginx says yes to a port that another program holds, and cannot listen there afterwards."""
        wanted = new_ports(files)
        if not wanted:
            return
        master = self._program.master()
        own = sockets_of(master) if master else set()
        for socket in listening_sockets():
            if socket.port in wanted and socket.inode not in own and socket.address in ("0.0.0.0", "::"):  # noqa: S104
                self._refuse_port(socket.port, holder_of(socket.inode), documents)
        for socket in listening_sockets():
            if socket.port in wanted and socket.inode not in own:
                self._refuse_port(socket.port, f"{holder_of(socket.inode)}, on {socket.address}", documents)

    def _refuse_port(self, port: int, holder: str, documents: Sequence[Document]) -> None:
        owner = next(
            (
                block.owner
                for document in documents
                for block in document.of("server")
                if port in _ports(block.directive)
            ),
            None,
        )
        whose = f" of the proxy {owner}" if owner else ""
        raise Refused(
            f"The port {port}{whose} is held by another program ({holder}). Nothing was changed; choose another port, "
            "or stop that program.",
            {"port": port, "hostname": owner},
        )


def _all_words(tested: Finished) -> str:
    return (tested.stderr + tested.stdout).decode("utf-8", "replace")


def _opened(content: bytes) -> int:
    """Count the sockets and logs that a configuration's text has nginx open."""
    mentioned = any(word in content for word in (b"listen", b"_log"))
    return len(set(_OPENED.findall(content))) if mentioned else 0


def new_ports(files: list[PlannedFile]) -> set[int]:
    """Give the ports that the planned files listen on and the live ones do not."""
    old: set[int] = set()
    new: set[int] = set()
    for file in files:
        if b"listen" in (file.new.content or b"") and file.new.content != file.old.content:
            new |= ports_in(file.new.content or b"")
            old |= ports_in(file.old.content or b"")
    return new - old


_LISTEN = re.compile(rb"^[ \t]*listen[ \t]+([^;]+);", re.MULTILINE)


def ports_in(content: bytes) -> set[int]:
    """Give the ports that a configuration's text listens on."""
    places = set(_LISTEN.findall(content))
    return {listening_port(Directive(["listen", *place.decode("utf-8", "replace").split()], 0)) for place in places} - {
        0
    }


def _ports(server: Directive | None) -> set[int]:
    return {listening_port(listen) for listen in server.all("listen")} if server else set()


def _conflicts(said: str) -> Counter[tuple[str, str]]:
    return Counter((match["name"], match["where"]) for match in _CONFLICT.finditer(said))


def _claiming(documents: Sequence[Document], name: str, port: str) -> Iterator[Block]:
    """Give the servers that are written now and claim a name on a port."""
    for document in documents:
        for block in document.of("server"):
            if (
                any(block.origins)
                and int(port) in _ports(block.directive)
                and any(name in one.words[1:] for one in block.directive.all("server_name"))
            ):
                yield block


def _whose_file(path: str, documents: Sequence[Document]) -> tuple[str, dict[str, str | int | None]]:
    """Tell whose proxy names a file of which nginx tells no place: a certificate, a key."""
    naming = [block for document in documents for block in document.of("server") if path in block.text]
    for block in naming:
        for origin in block.origins:
            if origin is not None and origin.parameter.endswith("ssl_certificate_id"):
                return _described(origin), _whose(origin)
    owner = next((block.owner for block in naming if block.owner), None)
    return (f"In the proxy {owner}: ", {"hostname": owner}) if owner else ("", {})


def _whose(origin: Origin | None) -> dict[str, str | int | None]:
    """Give the facts of an error in what the caller sent."""
    if origin is None:
        return {}
    facts: dict[str, str | int | None] = {
        "parameter": origin.parameter,
        "proxy": origin.proxy,
        "hostname": origin.hostname,
    }
    if origin.line:
        facts["template_line"] = origin.line
    if origin.index is not None:
        facts["index"] = origin.index
    return facts


def _described(origin: Origin) -> str:
    line = f", line {origin.line}" if origin.line else ""
    return f"In {origin.proxy}, {origin.parameter}{line}: "
