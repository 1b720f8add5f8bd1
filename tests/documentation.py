"""The pages of the documentation as tests read them: their blocks, their sessions, and when an output is as shown."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
_FENCE = re.compile(
    r"^(?P<indent> *)(?P<marks>```+)(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=indent)(?P=marks)$", re.M | re.S
)
_HERE = re.compile(r"<<-?'?(\w+)'?")
_BACKUP = r"[0-9]{8}T[0-9]{9}Z-[0-9a-f]+-[0-9a-f]+"
_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"


@dataclass(frozen=True)
class Block:
    """A block between fences.

    :ivar page: where it stands, from the repository's root.
    :ivar line: of its first line, from 1.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """What is typed in a session, and what the page shows of its output (None: nothing)."""

    words: str
    output: str | None
    line: int


def pages(place: Path = DOCS) -> list[Path]:
    """Give the pages that are written by hand, in a directory and below."""
    return sorted(path for path in place.rglob("*.md") if "_build" not in path.parts)


def name_of(page: Path) -> str:
    """Give a page's path from the repository's root."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """Give the blocks of a page in their order."""
    text = page.read_text()
    return [
        Block(name_of(page), text.count("\n", 0, found.start()) + 2, found["language"].strip(), found["text"])
        for found in _FENCE.finditer(text)
    ]


def session(block: Block) -> list[Command]:
    """Take a session apart: a line behind `$ ` or `# ` is typed, with what it goes on in; all else is output."""
    commands: list[Command] = []
    lines = block.text.split("\n")[:-1]
    number = 0
    while number < len(lines):
        first = number
        line = lines[number]
        number += 1
        if not line.startswith(("$ ", "# ")):
            assert commands or not line.strip(), f"{block.place}: output before the first command: {line}"
            if commands:
                last = commands.pop()
                commands.append(Command(last.words, f"{last.output or ''}{line}\n", last.line))
            continue
        words = line[2:]
        while words.endswith("\\"):
            words = f"{words}\n{lines[number]}"
            number += 1
        if here := _HERE.search(words):
            while not words.endswith(f"\n{here[1]}"):
                words = f"{words}\n{lines[number]}"
                number += 1
        commands.append(Command(words, None, block.line + first))
    return [Command(one.words, one.output if one.output and one.output.strip() else None, one.line) for one in commands]


def without_comment(words: str) -> str:
    """Leave out the comment at the end of a command."""
    return re.sub(r"\s+# .*$", "", words, flags=re.M).strip()


def loosened(text: str) -> str:
    """Make of an output what is the same on every server: numbers, ids, times, sizes and line ends do not count.

    Addresses, ports beside them, and the codes of errors do.
    """
    text = re.sub(rf"\b(?:{_MONTHS})\b", "Mon", text)
    text = re.sub(rf"\b(?:[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}|{_BACKUP})\b", "0", text)
    kept = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}(?:[:/]\d+)?|-320\d\d\b")
    parts, end = [], 0
    for found in kept.finditer(text):
        parts += [_without_numbers(text[end : found.start()]), found[0]]
        end = found.end()
    text = "".join([*parts, _without_numbers(text[end:])])
    text = re.sub(r"[─━╸╺]+", "─", text)
    return re.sub(r"\s+", " ", text).strip()


def _without_numbers(text: str) -> str:
    text = re.sub(r"(?<![0-9A-Za-z])(?:[0-9a-f]{8,}|[0-9A-Za-z]{20})(?![0-9A-Za-z])", "0", text)
    text = re.sub(r"\d+(?:\.\d+)?", "0", text)
    return re.sub(r"\b0 (?:B|[KMGT]i?B)\b", "0 B", text)


def ids_in(text: str) -> list[str]:
    """Give what identifies something in a text: in a session a later command may name it."""
    return re.findall(rf"(?<![0-9A-Za-z-])(?:[0-9a-f]{{16,}}|{_BACKUP})(?![0-9A-Za-z-])", text)


def is_as_shown(shown: str, seen: str) -> bool:
    """Tell whether an output has the shape that a page shows; `…` stands for anything."""
    pieces = [re.escape(loosened(piece)) for piece in shown.split("…")]
    pattern = r"\s?.*?\s?".join(pieces)
    return re.fullmatch(pattern, loosened(seen), re.S) is not None
