"""nginx's configuration language: where in a text each directive and block stands.

Texts that people wrote are edited at these places and stay as they are everywhere else. The rules are those of the
server's own reader (ngx_conf_file.c; https://nginx.org/en/docs/beginners_guide.html#conf_structure).
"""

import re

import msgspec

# What nginx does not take for white space, such as a no-break space, is part of a word; so are all braces right behind
# a `$`. Whoever read it otherwise could be shown another end of a block than nginx sees.
_TOKEN = re.compile(
    r"""
      (?P<space>[ \t\r\n]+)
    | (?P<comment>\#[^\n]*)
    | (?P<mark>[;{}])
    | (?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<word>(?:\$\{+|[^ \t\r\n;{}"'\\#]|\\.)(?:[^ \t\r\n;{\\$]|\\.|\$\{+|\$)*)
    """,
    re.VERBOSE | re.DOTALL,
)
# Whoever goes through the blocks goes down as deep as they are nested.
_DEEPEST = 100
# What OpenResty's Lua blocks hold is Lua: a brace counts where it is in no string and no comment.
_LUA_BLOCK = "_by_lua_block"
_LUA = re.compile(r"--\[=*\[|--|\[=*\[|[\"'{}]")
_LUA_STRING = {mark: re.compile(rf"{mark}(?:[^{mark}\\]|\\.)*{mark}", re.DOTALL) for mark in "\"'"}
_ESCAPED = re.compile(r"\\([\"'\\trn])")
_CONTROL = {"t": "\t", "r": "\r", "n": "\n"}


class BadSyntax(Exception):
    """A text is no whole sequence of directives.

    :ivar line: where, from 1.
    """

    def __init__(self, problem: str, text: str, offset: int) -> None:
        super().__init__(problem)
        self.line = text.count("\n", 0, offset) + 1


class Directive(msgspec.Struct):
    """A directive, or a block where it has one.

    :param words: its name and arguments, unquoted.
    :param start: offset of its name.
    :param end: offset behind its `;` or `}`.
    :param inside: offset behind the `{`; -1: it is no block.
    :param children: of a block.
    """

    words: list[str]
    start: int
    end: int = -1
    inside: int = -1
    children: list["Directive"] = []

    @property
    def name(self) -> str:
        return self.words[0]

    @property
    def is_block(self) -> bool:
        return self.inside >= 0

    def child(self, name: str) -> "Directive | None":
        """Give the first child of a name."""
        return next((child for child in self.children if child.name == name), None)

    def all(self, name: str) -> list["Directive"]:
        """Give all children of a name."""
        return [child for child in self.children if child.name == name]


def parse(text: str, start: int = 0, end: int | None = None) -> list[Directive]:
    """Read a text, or a part of it.

    :raises BadSyntax: an unbalanced brace, an open quote, a directive without its end, blocks nested too deeply.
    """
    end = len(text) if end is None else end
    top: list[Directive] = []
    open_blocks: list[Directive] = []
    siblings = top
    current: Directive | None = None
    place = start
    match = _TOKEN.match
    while place < end:
        token = match(text, place, end)
        if token is None:
            quote = text[place] in "\"'"
            raise BadSyntax("a quote is not closed" if quote else "an unexpected character", text, place)
        kind = token.lastgroup
        if kind in ("word", "quoted"):
            word = token.group()
            if kind == "quoted":
                if token.end() < end and text[token.end()] not in " \t\r\n;{)":
                    raise BadSyntax("something stands right behind a closing quote", text, token.end())
                word = unquoted(word)
            elif "\\" in word:
                word = _ESCAPED.sub(_unescape, word)
            if current is None:
                current = Directive([word], place, children=[])
            else:
                current.words.append(word)
        elif kind == "mark":
            mark = text[place]
            if mark == "}":
                if current is not None:
                    raise BadSyntax(f"{current.name[:60]} is not ended by ;", text, current.start)
                if not open_blocks:
                    raise BadSyntax("a } without its {", text, place)
                open_blocks.pop().end = place + 1
                siblings = open_blocks[-1].children if open_blocks else top
            elif current is None:
                raise BadSyntax(f"a {mark} without a directive", text, place)
            else:
                siblings.append(current)
                if mark == ";":
                    current.end = place + 1
                elif current.name.endswith(_LUA_BLOCK):
                    current.inside, current.end = place + 1, _end_of_lua(text, place, end)
                    place, current = current.end, None
                    continue
                elif len(open_blocks) >= _DEEPEST:
                    raise BadSyntax(f"blocks nested deeper than {_DEEPEST}", text, place)
                else:
                    current.inside = place + 1
                    open_blocks.append(current)
                    siblings = current.children
                current = None
        place = token.end()
    if current is not None:
        raise BadSyntax(f"{current.name[:60]} is not ended by ;", text, current.start)
    if open_blocks:
        raise BadSyntax(f"the {{ of {open_blocks[-1].name[:60]} is not closed", text, open_blocks[-1].start)
    return top


def _end_of_lua(text: str, start: int, end: int) -> int:
    """Find where a block of Lua ends (Lua 5.1 reference manual, section 2.1), given its `{`."""
    depth, place = 0, start
    while True:
        token = _LUA.search(text, place, end)
        if token is None:
            raise BadSyntax("the { of a Lua block is not closed", text, start)
        mark, place = token[0], token.end()
        if mark in "{}":
            depth += 1 if mark == "{" else -1
            if depth == 0:
                return place
        elif mark == "--":
            newline = text.find("\n", place, end)
            place = end if newline < 0 else newline
        elif mark in _LUA_STRING:
            closed = _LUA_STRING[mark].match(text, token.start(), end)
            if closed is None:
                raise BadSyntax("a quote of a Lua block is not closed", text, token.start())
            place = closed.end()
        else:
            level = mark.count("=")
            closing = text.find(f"]{'=' * level}]", place, end)
            if closing < 0:
                raise BadSyntax("a long bracket of a Lua block is not closed", text, token.start())
            place = closing + level + 2


def quoted(word: str) -> str:
    """Write a word so that it is one word again, whatever is in it."""
    if word and re.fullmatch(r"[A-Za-z0-9_./:*$@%+,=~^&?!<>()|\[\]-]+", word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def unquoted(word: str) -> str:
    """Read a quoted word."""
    inner = word[1:-1]
    return _ESCAPED.sub(_unescape, inner) if "\\" in inner else inner


def whole_lines(text: str, directive: Directive) -> tuple[int, int]:
    """Give where the lines of a directive begin and end, if nothing else stands on them; else its own place."""
    start = text.rfind("\n", 0, directive.start) + 1
    newline = text.find("\n", directive.end)
    end = len(text) if newline < 0 else newline + 1
    before, behind = text[start : directive.start], text[directive.end : end]
    if before.strip() or (behind.strip() and not behind.lstrip().startswith("#")):
        return directive.start, directive.end
    return start, end


def _unescape(match: "re.Match[str]") -> str:
    return _CONTROL.get(match[1], match[1])
