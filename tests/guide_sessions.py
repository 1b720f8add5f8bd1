"""Running the sessions of a page on a server of their own, and what stands in for what cannot be had there.

A page is read from its top to its end, as a person would: a command is typed, a file that `cat` shows is written where
it is not there, a program in Python is run, and each output is compared with the page's.
"""

import collections
import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from documentation import Block, Command, blocks, ids_in, is_as_shown, session, without_comment
from documented_server import CLONE, DocumentedServer

# Ends when an agent answers.
_HEALTH = "curl -sf -o /dev/null http://127.0.0.1:8010/healthz"
ANSWERS = f"for try in $(seq 600); do {_HEALTH} && break; sleep 0.1; done; {_HEALTH}"
# What stays in the foreground, by what it does: it is started, and waited for until it answers.
FOREGROUND = {
    "make run": ".venv/bin/python -m scalarizr.cli.trial var",
    "scalarizr serve": "scalarizr serve",
}
_PREAMBLE = "from scalarizr.client import Client\napi = Client('http://127.0.0.1:8010', key_file={key!r})\n"


@dataclasses.dataclass(frozen=True)
class Scene:
    """What there is on the server before a page begins.

    :ivar setup: commands that make it so.
    :ivar files: where a block goes that is no session, by its first line.
    :ivar programs: whether its programs in Python are run; the others are checked by their methods and parameters.
    :ivar key: the key's file for fragments of programs.
    :ivar before: what happens behind the scenes before a command, by its words.
    :ivar answers: what is typed where the program asks.
    :ivar variables: of the fragments of programs.
    """

    setup: str = ""
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    programs: bool = True
    key: str = "/etc/scalr/private.d/keys/default"
    before: dict[str, str] = dataclasses.field(default_factory=dict)
    answers: tuple[str, ...] = ()
    variables: str = ""


class Guide:
    """A page, and the server that it is tried on.

    :param not_run: the commands and programs that are left out, by their first line, with the reason.
    """

    def __init__(self, page: Path, scene: Scene, not_run: dict[str, str], server: DocumentedServer) -> None:
        self.page = page
        self.scene = scene
        self.not_run = not_run
        self.server = server
        self.left_out: set[str] = set()
        self.ran = 0
        self._typed: collections.Counter[str] = collections.Counter()
        self._ids: dict[str, str] = {}

    def differences(self) -> Iterator[str]:
        """Do all that the page says; give what was not as it says."""
        if self.scene.setup:
            self.server.must(self.scene.setup)
        for block in blocks(self.page):
            if block.language == "console":
                for command in session(block):
                    yield from self._type(block, command)
            elif block.language == "python" and self.scene.programs:
                yield from self._program(block)
            elif block.language == "sh":
                yield from self._script(block)
            elif block.text.split("\n")[0] in self.scene.files:
                self._write(self.scene.files[block.text.split("\n")[0]], block.text)

    def _type(self, block: Block, command: Command) -> Iterator[str]:
        words = without_comment(command.words)
        first = words.split("\n")[0]
        if first in self.not_run:
            self.left_out.add(first)
            return
        self.ran += 1
        self._behind_the_scenes(first)
        if words in FOREGROUND:
            self._leave_on(FOREGROUND[words])
            return
        if words.endswith("&"):
            words = f"{words[:-1]} >/dev/null 2>&1 </dev/null &"
            # A server that is left on listens a moment later.
            if port := re.search(r"\b(8\d\d\d) ", words):
                words += (
                    f"\nfor try in $(seq 300); do curl -s -o /dev/null 127.0.0.1:{port[1]} && break; sleep 0.1; done"
                )
        for shown, real in self._ids.items():
            words = words.replace(shown, real)
        parts = shlex.split(words) if words.startswith("cat ") else []
        if len(parts) == 2 and command.output:
            self._write(parts[1], command.output)
        seen, status = self.server.run(words, self.scene.answers if "--ask" in words else ())
        seen = seen.replace(str(CLONE), "/root/scalarizr")
        if command.output is None:
            if status != 0:
                yield f"{block.page}:{command.line}: {words}\n--- ended with {status}:\n{seen}"
        elif not is_as_shown(command.output, seen):
            yield f"{block.page}:{command.line}: {words}\n--- shown:\n{command.output}--- seen:\n{seen}"
        else:
            self._ids.update(zip(ids_in(command.output), ids_in(seen), strict=False))

    def _behind_the_scenes(self, first: str) -> None:
        """Do what happens before a command; one that is typed several times is told by its number."""
        self._typed[first] += 1
        for name in (first, f"{first} ({self._typed[first]})"):
            if name in self.scene.before:
                self.server.must(self.scene.before[name])

    def _leave_on(self, words: str) -> None:
        """Start what stays in the foreground; what was there before is stopped as Ctrl-C does."""
        self.server.must(
            f'test -z "$left_on" || {{ kill -INT $left_on; wait $left_on; }}\n'
            # A background job of a shell without job control ignores SIGINT (bash(1)); this gives it back.
            f"env --default-signal=INT {words} >/root/agent.out 2>&1 </dev/null & left_on=$!\n{ANSWERS}"
        )

    def _write(self, path: str, text: str) -> None:
        quoted = shlex.quote(path)
        self.server.must(f"mkdir -p $(dirname {quoted})\ncat > {quoted} <<'EndOfTheFile'\n{text}EndOfTheFile")

    def _script(self, block: Block) -> Iterator[str]:
        self.ran += 1
        seen, status = self.server.run(block.text)
        if status != 0 or '"result"' not in seen:
            yield f"{block.place}\n--- ended with {status}:\n{seen}"

    def _program(self, block: Block) -> Iterator[str]:
        first = block.text.split("\n")[0]
        if first in self.not_run:
            self.left_out.add(first)
            return
        self.ran += 1
        self._behind_the_scenes(first)
        text = block.text
        if re.search(r"^from scalarizr", text, re.M) is None:
            text = _PREAMBLE.format(key=self.scene.key) + self.scene.variables + text
        if re.search(r"^(?:async with|await) ", text, re.M):
            plain, _, rest = text.partition("\nasync with")
            inner = "\n".join(f"    {line}" for line in f"async with{rest}".split("\n"))
            text = f"import asyncio\n{plain}\nasync def trial():\n{inner}\nasyncio.run(trial())\n"
        self._write("/root/program.py", text)
        seen, status = self.server.run("python /root/program.py")
        if status != 0:
            yield f"{block.place}: {first}\n--- ended with {status}:\n{seen}"
