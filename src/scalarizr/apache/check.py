"""Checking a planned configuration before a live byte changes, and telling what is wrong in the caller's words."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from scalarizr.apache import tls_trial
from scalarizr.apache.configuration import listen_ports_of
from scalarizr.apache.description import Description
from scalarizr.apache.named_certificates import mistake_in
from scalarizr.apache.program import ApacheProgram
from scalarizr.apache.syntax import BadSyntax, parse
from scalarizr.apache.words import plain_words
from scalarizr.changes.as_if_live import check_as_if_live
from scalarizr.changes.journal import PlannedFile
from scalarizr.changes.live_file import FileState
from scalarizr.errors import Refused, TimedOut
from scalarizr.host.listening import holder_of, listening_sockets

_PLACE = re.compile(r"on line (?P<line>\d+) of (?P<file>/[^:\n]+?):\s*")
_PLACE_IN_WORDS = re.compile(r"(?:\w+: )?(?:Syntax error )?on line \d+ of /[^:\n]+?:\s*")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|</?[^>\n]*>?")


_OTHER_PLACE = re.compile(r"(?:defined at |: )(?P<file>/[^:\n]+?):(?P<line>\d+)\b")
_MARK = ".scalarizr"
_NOTHING = FileState(None)
# At a terminal; and the distributions' own programs, which ask systemd's agents.
_ASKING_A_PERSON = re.compile(r"^builtin$|/ask-for-passphrase|/httpd-ssl-pass-dialog", re.IGNORECASE)
_LARGEST = 1 << 20  # of a certificate's file


class Source(msgspec.Struct, frozen=True):
    """What a file of virtual hosts was written from.

    :param called: the host, for messages.
    :param parameter: the template's parameter.
    :param numbers: of each line of the file the line of the template; 0: it was put in.
    :param index: of the host in the caller's list; None: it was the only one.
    """

    called: str
    parameter: str
    numbers: tuple[int, ...]
    index: int | None = None


class Checker:
    """Checks planned files with the real program.

    :param program: the Apache.
    :param scratch: a directory of the agent's own for the check.
    :param readable: directories whose files' text may show in messages.
    """

    def __init__(self, program: ApacheProgram, scratch: Path, readable: Sequence[Path]) -> None:
        self._program = program
        self._scratch = scratch
        self._readable = readable

    def check(
        self,
        files: list[PlannedFile],
        sources: Mapping[Path, Source] | None = None,
        directories: Sequence[Path] = (),
        described: Description | None = None,
    ) -> str:
        """Check the set, its ports and the certificates that it names.

        :param sources: what files were written from, for mapping a line back to what the caller sent.
        :param directories: that will be there, too.
        :param described: what Apache says of the live configuration, but for the modules that will be loaded.
        :return: what Apache said.
        :raises Refused: it is not valid; nothing was changed.
        """
        self._refuse_foreign_ports(files)
        try:
            with _there_meanwhile([path for path in directories if _is_at_the_root(path)]):
                marks = [PlannedFile(path / _MARK, _NOTHING, FileState(b"")) for path in directories]
                code, said = self._apache_says([*files, *(mark for mark in marks if not mark.path.parent.exists())])
        except TimedOut as error:
            error.say_further("Nothing was changed.")
            raise
        if code != 0:
            raise self._refusal(said, sources or {})
        self._refuse_bad_certificates(files, sources or {}, described)
        return said

    def _refuse_bad_certificates(
        self, files: list[PlannedFile], sources: Mapping[Path, Source], described: Description | None
    ) -> None:
        """Apache says yes to a certificate that does not fit its key, and dies of it."""
        planned = {file.path: file.new for file in files}

        def read(word: str) -> bytes | None:
            if "$" in word or "\0" in word or re.match(r"[A-Za-z0-9.+-]+:", word):
                return None  # a variable, or a key that is in no file (`pkcs11:…`)
            path = Path(word)
            if not path.is_absolute():
                path = (described.run if described else self._program.run_config()).root / word
            path = Path(os.path.realpath(path))
            if path in planned:
                return planned[path].content
            try:
                return path.read_bytes() if path.is_file() and path.stat().st_size <= _LARGEST else None
            except OSError:
                return None

        conditions = described.conditions if described else None
        contexts: dict[Path, list[list[tls_trial.Step]]] = {}
        for file in files:
            if not re.search(rb"ssl(?:proxy)?engine", file.new.content or b"", re.IGNORECASE):
                continue
            text = (file.new.content or b"").decode("utf-8", "surrogateescape")
            mistake = mistake_in(
                text,
                read,
                conditions,
                gets_passphrases=lambda: described is None or _says(described, "sslpassphrasedialog"),
                has_certificate_elsewhere=lambda: described is None or _says(described, "sslcertificatefile"),
            )
            if mistake is not None:
                raise self._bad_certificate(file.path, *mistake, sources.get(file.path))
            contexts[file.path] = list(tls_trial.steps_of(text, read, conditions))
        if any(contexts.values()):
            self._refuse_what_the_library_refuses(contexts, sources, described)

    def _refuse_what_the_library_refuses(
        self,
        contexts: Mapping[Path, list[list[tls_trial.Step]]],
        sources: Mapping[Path, Source],
        described: Description | None,
    ) -> None:
        root = (described.run if described else self._program.run_config()).root
        refusal = tls_trial.refused([steps for found in contexts.values() for steps in found], root)
        if refusal is None:
            return
        step = refusal.step
        path = next(path for path, found in contexts.items() if any(one is step for steps in found for one in steps))
        own_suite = any(one.what == "ciphers" for steps in contexts[path] if step in steps for one in steps)
        if step.names and not own_suite and (described is None or _says(described, "sslciphersuite", "@seclevel")):
            return  # another level than the library's own, which is inherited
        raise self._bad_certificate(
            path, step.line, f"{step.said}: the TLS library says: {refusal.reason}", sources.get(path)
        )

    def _bad_certificate(self, path: Path, line: int, words: str, source: Source | None) -> Refused:
        facts: dict[str, str | int | None] = {"file": str(path), "line": line + 1}
        where = f"In {path}, line {line + 1}: "
        if source is not None:
            own = source.numbers[line] if line < len(source.numbers) else 0
            # The lines that were put in are those of the certificate that the caller named.
            parameter = source.parameter if own else source.parameter.removesuffix("template") + "ssl_certificate_id"
            where = f"In {source.called}, {parameter}" + (f", line {own}: " if own else ": ")
            facts |= {"parameter": parameter, "vhost": source.called, "template_line": own or None}
            if source.index is not None:
                facts["index"] = source.index
        return Refused(f"{where}{words}: Apache would end of it at its reload. Nothing was changed.", facts)

    def _apache_says(self, files: list[PlannedFile]) -> tuple[int, str]:
        return check_as_if_live(
            files, self._scratch, self._readable, self._program.main_config, self._program.test, plain_words
        )

    def _refusal(self, said: str, sources: Mapping[Path, Source]) -> Refused:
        facts: dict[str, str | int | None] = {}
        where = ""
        # Each file that includes another is named before it: the innermost comes last.
        found = [*_OTHER_PLACE.finditer(said), *_PLACE.finditer(said)]
        places = sorted(found, key=lambda match: match.start())
        if places:
            place = places[-1]
            path, line = Path(os.path.realpath(place["file"])), int(place["line"])
            facts |= {"file": str(path), "line": line}
            source = sources.get(path)
            if source is not None:
                own = source.numbers[line - 1] if line <= len(source.numbers) else 0
                where = f"In {source.called}, {source.parameter}" + (f", line {own}: " if own else ": ")
                facts |= {"parameter": source.parameter, "vhost": source.called, "template_line": own or None}
                if source.index is not None:
                    facts["index"] = source.index
                # What was planned is nowhere to be looked up: the caller's own line says where.
                said = _PLACE_IN_WORDS.sub("", said)
            elif not any(path.is_relative_to(directory) for directory in self._readable):
                said = _QUOTED.sub("(not shown)", said)
        return Refused(f"{where}Apache says: {said.rstrip('.')}. Nothing was changed.", facts)

    def _refuse_foreign_ports(self, files: list[PlannedFile]) -> None:
        """Apache says yes to a port that another program holds, and dies of it."""
        wanted: set[int] = set()
        for file in files:
            if b"isten" in (file.new.content or b""):
                wanted |= _ports(file.new.content) - _ports(file.old.content)
        if not wanted:
            return
        own = self._program.own_sockets()
        for socket in listening_sockets():
            if socket.port in wanted and socket.inode not in own:
                holder = f"{holder_of(socket.inode)}, on {socket.address}"
                raise Refused(
                    f"The port {socket.port} is held by another program ({holder}). "
                    "Nothing was changed; choose another port, or stop that program.",
                    {"port": socket.port},
                )


def _says(described: Description, name: str, mentioned: str = "") -> bool:
    """Tell whether a directive stands somewhere outside of virtual hosts, as far as that can be told.

    :param mentioned: in its arguments, in lower case.
    """
    for path in described.files:
        with contextlib.suppress(OSError):
            text = path.read_text("utf-8", "surrogateescape")
            if name not in text.lower():
                continue
            try:
                found = [one for one in parse(text) if one.called(name)]
            except BadSyntax:
                return True
            if any(
                not any(section == "virtualhost" for section, _arguments in one.within)
                and not _ASKING_A_PERSON.search(one.arguments)
                and mentioned in one.arguments.lower()
                for one in found
            ):
                return True
    return False


def _is_at_the_root(path: Path) -> bool:
    # Nothing can be mounted over the root directory for one process alone.
    return next(parent for parent in path.parents if parent.exists()) == Path("/")


@contextlib.contextmanager
def _there_meanwhile(directories: Sequence[Path]) -> Iterator[None]:
    made: list[Path] = []
    try:
        for directory in directories:
            for one in reversed([path for path in (directory, *directory.parents) if not path.exists()]):
                one.mkdir()
                made.append(one)
        yield
    finally:
        for one in reversed(made):
            with contextlib.suppress(OSError):
                one.rmdir()


def _ports(content: bytes | None) -> set[int]:
    try:
        return listen_ports_of((content or b"").decode("utf-8", "surrogateescape"))
    except BadSyntax:
        return set()
