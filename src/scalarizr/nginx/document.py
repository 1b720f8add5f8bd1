"""A managed file as a sequence of blocks: one block is taken out, put in or edited, the rest stays as it is.

Each block may carry one comment line of ours right above it that names the proxy it belongs to.
"""

import re
from collections.abc import Callable
from functools import partial

import msgspec

from scalarizr.errors import OutsideFailure
from scalarizr.nginx.syntax import BadSyntax, Directive, parse

_OWNER = re.compile(r"^[ \t]*# proxy (\S+)[ \t]*\n\Z", re.MULTILINE)
_CLOSING = re.compile(r"^\}[ \t]*(?:#[^\n]*)?\n", re.MULTILINE)
_BLOCK = re.compile(
    r"""
    (?:[ \t]*(?:\#[^\n]*)?\n)*
    (?P<kind>server|upstream) [ \t]* (?P<label>[^\s;{}"'\#]*) [ \t]*
    \{ [^{}]* (?:\{ [^{}]* (?:\{[^{}]*\} [^{}]*)* \} [^{}]*)* \} [ \t]* (?:\#[^\n]*)? \n
    """,
    re.VERBOSE,
)
_HEAD = re.compile(
    r"(?:# proxy (?P<owner>\S+)[ \t]*\n)?(?P<kind>server|upstream)[ \t]+(?P<label>[A-Za-z0-9_.-]*)[ \t]*\{\n"
)
_END = "\n}\n"
_BEHIND_WHAT_IS_NO_MARK = re.compile(r"\}(?<![\s;{}]\})")
_VARIABLE = re.compile(r"\$\{\w{1,100}\}")


def _has_brace_in_a_word(text: str) -> bool:
    for brace in _BEHIND_WHAT_IS_NO_MARK.finditer(text):
        start = text.rfind("$", max(brace.end() - 103, 0), brace.end())
        if start < 0 or not _VARIABLE.fullmatch(text, start, brace.end()):
            return True
    return False


# A brace in a comment, between quotes, in a word or in Lua, which could be taken for one of a block's own. Who looks at
# a piece of a text sees no further than that brace: not, for one, whether the quote before it is ever closed.
_DECEIVING: list[Callable[[str], object]] = [
    re.compile(r"#[^\n{}]*[{}]").search,
    re.compile(r'"(?<![^\s;{}]")[^"{}\\]*(?:\\[^{}][^"{}\\]*)*\\?[{}]').search,
    re.compile(r"'(?<![^\s;{}]')[^'{}\\]*(?:\\[^{}][^'{}\\]*)*\\?[{}]").search,
    re.compile(r"\\[\s;{}]").search,
    re.compile(r"\$\{(?!\w+\})").search,
    re.compile(r"_by_lua_block").search,
    _has_brace_in_a_word,
]


class Origin(msgspec.Struct, frozen=True):
    """Where a line of the configuration comes from: a line of what the caller sent.

    :param proxy: the proxy, as it is called in messages.
    :param parameter: its parameter.
    :param line: the line of a template; 0: the parameter as a whole.
    :param hostname: the proxy's.
    :param index: of the proxy in the caller's list; None: it was the only one.
    """

    proxy: str
    parameter: str
    line: int = 0
    hostname: str = ""
    index: int | None = None


Origins = tuple[Origin | None, ...]


class Block:
    """One block with what stands before it since the block before. It is read when its inside is asked for.

    :ivar text: all of it, to its last newline.
    :ivar kind: its directive's name; empty: text at the file's end.
    :ivar label: what it is called: an upstream's name.
    :ivar owner: the proxy that it belongs to.
    :ivar start: offset of its directive's name in `text`.
    :param origins: of its lines, where it is written now; or what gives them, should somebody ask.
    """

    __slots__ = ("_directive", "_origins", "_start", "kind", "label", "owner", "text")

    def __init__(
        self,
        text: str,
        kind: str,
        label: str = "",
        owner: str | None = None,
        origins: Origins | Callable[[], Origins] = (),
        start: int | None = None,
    ) -> None:
        self.text = text
        self.kind = kind
        self.label = label
        self.owner = owner
        self._origins = origins
        self._directive: Directive | None = None
        self._start = start

    @property
    def origins(self) -> Origins:
        """Where its lines come from, as far as it is written now."""
        if callable(self._origins):
            self._origins = self._origins()
        return self._origins

    @origins.setter
    def origins(self, origins: Origins | Callable[[], Origins]) -> None:
        self._origins = origins

    @property
    def start(self) -> int:
        return self.directive.start if self._start is None else self._start

    @property
    def directive(self) -> Directive:
        """The block as read; offsets are those of `text`.

        :raises BadSyntax: it is no whole block.
        """
        if self._directive is None:
            self._directive = parse(self.text)[0]
        return self._directive

    def replaced(self, text: str) -> "Block":
        """Give the block with another text."""
        return Block(text, self.kind, self.label, self.owner)


def owner_comment(owner: str | None) -> str:
    """Write the line that names the proxy of the block below it."""
    return f"# proxy {owner}\n"


def make_block(text: str, owner: str | None) -> Block:
    """Make a block from its text."""
    words = parse(text)[0].words
    return Block(text, words[0], words[1] if len(words) > 1 else "", owner)


class Document:
    """A file of blocks.

    :param path: for messages.
    :param text: its content.
    :param blocks: of the text, where they are known already.
    :raises OutsideFailure: it is no whole configuration.
    """

    def __init__(self, path: str, text: str, blocks: list[Block] | None = None) -> None:
        self.path = path
        try:
            self.blocks = _quickly_split(text) if blocks is None else blocks
        except BadSyntax as error:
            raise OutsideFailure(
                f"{path}, line {error.line}: {error}. Somebody edited it; mend it by hand. Nothing was changed.",
                {"file": path, "line": error.line},
            ) from None

    @property
    def text(self) -> str:
        """The whole file."""
        return "".join(block.text for block in self.blocks)

    def of(self, kind: str) -> list[Block]:
        """Give the blocks of a kind."""
        return [block for block in self.blocks if block.kind == kind]

    def origin(self, line: int) -> Origin | None:
        """Find where a line of the file comes from."""
        first = 1
        for block in self.blocks:
            count = block.text.count("\n")
            if line < first + count:
                place = line - first
                return block.origins[place] if place < len(block.origins) else None
            first += count
        return None

    def owner_at(self, line: int) -> str | None:
        """Find the proxy that a line of the file belongs to."""
        first = 1
        for block in self.blocks:
            first += block.text.count("\n")
            if line < first:
                return block.owner
        return None

    def remove(self, unwanted: list[Block]) -> None:
        """Take blocks out. A comment above one that is not ours stays."""
        self.replace([(unwanted, [])])

    def replace(self, swaps: list[tuple[list[Block], list[Block]]]) -> None:
        """Put blocks in place of others, those in place of none at the end; the same again changes nothing."""
        gone: dict[int, list[Block]] = {}
        behind: list[Block] = []
        for old, new in swaps:
            if len(old) == len(new) and all(map(_is_written_so, old, new)):
                for before, after in zip(old, new, strict=True):
                    before.origins = partial(_origins_below, before, after)
            elif old:
                gone[id(old[0])] = new
                gone.update((id(block), []) for block in old[1:])
            else:
                behind += new
        blocks: list[Block] = []
        for block in self.blocks if gone else ():
            if id(block) in gone:
                above = block.text[: block.text.rfind("\n", 0, block.start) + 1]
                if above != owner_comment(block.owner):
                    above = _OWNER.sub("", above)
                    if above.strip():
                        blocks.append(Block(above.rstrip("\n") + "\n", ""))
                blocks += gone[id(block)]
            else:
                blocks.append(block)
        self.blocks = blocks if gone else self.blocks
        for block in behind:
            self.put(block)

    def put(self, block: Block, before: int | None = None) -> None:
        """Put a block in: at a place, or at the end."""
        if before is None:
            if self.blocks and not self.blocks[-1].text.endswith("\n"):
                self.blocks[-1] = self.blocks[-1].replaced(self.blocks[-1].text + "\n")
            self.blocks.append(block)
        else:
            self.blocks.insert(before, block)

    def swap(self, old: Block, new: Block) -> None:
        """Put a block in place of another."""
        self.blocks[next(place for place, block in enumerate(self.blocks) if block is old)] = new


class KnownDocuments:
    """The managed files as they were read or written the last time: one that is still so is not split again.

    :param most: characters of a file that is kept.
    """

    def __init__(self, most: int = 1 << 21) -> None:
        self._most = most
        self._known: dict[str, tuple[str, list[Block]]] = {}

    def read(self, path: str, text: str) -> Document:
        """Give a file's blocks.

        :raises OutsideFailure: it is no whole configuration.
        """
        known = self._known.get(path)
        if known is None or known[0] != text:
            return Document(path, text)
        for block in known[1]:
            block.origins = ()  # they are those of an earlier call
        return Document(path, text, list(known[1]))

    def keep(self, document: Document, text: str) -> None:
        """Remember what a file holds, or is about to hold."""
        if len(text) <= self._most:
            self._known[document.path] = text, list(document.blocks)
        else:
            self._known.pop(document.path, None)


def _origins_below(before: Block, after: Block) -> Origins:
    return (*(None,) * (before.text.count("\n") - after.text.count("\n")), *after.origins)


def _is_written_so(old: Block, new: Block) -> bool:
    # What stands above a block's own comment is somebody else's.
    return old.text.endswith(new.text) and (len(old.text) == len(new.text) or old.text[-len(new.text) - 1] == "\n")


def _quickly_split(text: str) -> list[Block]:
    """Split a text without reading what is in its blocks, as far as it looks as it is written here.

    :raises BadSyntax: it is no whole configuration.
    """
    blocks: list[Block] = []
    place = 0
    deceiving = [deceives for deceives in _DECEIVING if deceives(text)]
    while place < len(text):
        block = None if deceiving else _as_written_here(text, place)
        if block is not None:
            blocks.append(block)
            place += len(block.text)
            continue
        match = _BLOCK.match(text, place)
        if match and not any(deceives(match[0]) for deceives in deceiving):
            start = match.start("kind") - place
            owner = _owner_of(match[0], start)
            blocks.append(Block(match[0], match["kind"], match["label"], owner, start=start))
            place = match.end()
            continue
        closing = _CLOSING.search(text, place)
        end = closing.end() if closing else len(text)
        try:
            blocks += _carefully_split(text[place:end])
        except BadSyntax:
            return _carefully_split(text)
        place = end
    return blocks


def _as_written_here(text: str, place: int) -> Block | None:
    """Take the block at a place where it looks exactly as they are written here, in a text whose braces mean blocks."""
    end = text.find(_END, place)
    head = _HEAD.match(text, place) if end >= 0 else None
    if head is None:
        return None
    deep, inside = 1, head.end()
    if text.find("}", inside, end) < 0:
        deep += text.count("{", inside, end)
    else:
        for piece in text[inside:end].split("}"):
            if deep < 1:
                return None  # it ends here already
            deep += piece.count("{") - 1
        deep += 1
    if deep != 1:
        return None
    return Block(
        text[place : end + len(_END)], head["kind"], head["label"], head["owner"], start=head.start("kind") - place
    )


def _carefully_split(text: str) -> list[Block]:
    blocks = []
    place = 0
    for directive in parse(text):
        newline = text.find("\n", directive.end)
        # A comment on the block's last line is the block's.
        rest = text[directive.end : newline] if newline >= 0 else text[directive.end :]
        end = directive.end
        if not rest.strip() or rest.lstrip().startswith("#"):
            end = len(text) if newline < 0 else newline + 1
        words = directive.words
        piece = text[place:end]
        owner = _owner_of(piece, directive.start - place)
        blocks.append(Block(piece, words[0], words[1] if len(words) > 1 else "", owner))
        place = end
    if place < len(text):
        blocks.append(Block(text[place:], ""))
    return blocks


def _owner_of(piece: str, start: int) -> str | None:
    line_start = piece.rfind("\n", 0, start) + 1
    owner = _OWNER.search(piece, 0, line_start)
    return owner[1] if owner else None
