"""How nginx itself reads its configuration, byte by byte: what the agent's own reader is held against.

Written from the rules of ngx_conf_read_token in src/core/ngx_conf_file.c, and for nothing but fuzzing: it knows no
offsets and no way back to the text.
"""

from typing import NamedTuple


class Unreadable(Exception):
    """nginx would refuse the text."""


class TooLong(Unreadable):
    """A word is longer than nginx's buffer."""


class Directive(NamedTuple):
    """One directive.

    :ivar words: its name and arguments.
    :ivar children: what is in its block; None: it has none.
    """

    words: list[bytes]
    children: "list[Directive] | None"


_WHITE = b" \t\r\n"
_LONGEST = 4096


def read(text: bytes) -> list[Directive]:
    """Read a whole file.

    :raises Unreadable: it is none.
    """
    top: list[Directive] = []
    open_blocks: list[list[Directive]] = [top]
    tokens = _Tokens(text)
    while True:
        end, words = tokens.next()
        if end == b"":
            if len(open_blocks) > 1:
                raise Unreadable("a block is not closed")
            return top
        if end == b"}":
            if len(open_blocks) == 1:
                raise Unreadable("unexpected }")
            open_blocks.pop()
        elif end == b"{":
            block: list[Directive] = []
            open_blocks[-1].append(Directive(words, block))
            open_blocks.append(block)
        else:
            open_blocks[-1].append(Directive(words, None))


class _Tokens:
    def __init__(self, text: bytes) -> None:
        self._text = text
        self._place = 0

    def next(self) -> tuple[bytes, list[bytes]]:
        """Give the words up to the next `;` or `{`, or a `}`, or the end."""
        text, words = self._text, list[bytes]()
        between, behind_quote, comment, escaped, variable = True, False, False, False, False
        quote = b""
        start = self._place
        while self._place < len(text):
            mark = text[self._place : self._place + 1]
            self._place += 1
            if comment:
                comment = mark != b"\n"
                continue
            if escaped:
                escaped = False
                continue
            if behind_quote:
                if mark in (b";", b"{"):
                    return mark, words
                if mark not in (b" ", b"\t", b"\r", b"\n", b")"):
                    raise Unreadable("unexpected character behind a quote")
                between, behind_quote = True, False
                if mark != b")":
                    continue
            if between:
                start = self._place - 1
                if mark in (b" ", b"\t", b"\r", b"\n"):
                    continue
                if mark in (b";", b"{"):
                    if not words:
                        raise Unreadable(f"unexpected {mark.decode()}")
                    return mark, words
                if mark == b"}":
                    if words:
                        raise Unreadable("unexpected }")
                    return mark, words
                if mark == b"#":
                    comment = True
                    continue
                between = False
                if mark == b"\\":
                    escaped = True
                elif mark in (b'"', b"'"):
                    start += 1
                    quote = mark
                elif mark == b"$":
                    variable = True
                continue
            if mark == b"{" and variable:
                continue
            variable = mark == b"$"
            if mark == b"\\":
                escaped = True
                continue
            if variable:
                continue
            if quote:
                if mark != quote:
                    continue
                quote, behind_quote, between = b"", True, False
            elif mark not in (b" ", b"\t", b"\r", b"\n", b";", b"{"):
                continue
            else:
                between = True
            if self._place - 1 - start > _LONGEST:
                raise TooLong("too long a word")
            words.append(_unescaped(text[start : self._place - 1]))
            if mark in (b";", b"{"):
                return mark, words
        if words or not between or behind_quote:
            raise Unreadable("unexpected end")
        return b"", words


def _unescaped(word: bytes) -> bytes:
    made, place = bytearray(), 0
    while place < len(word):
        if word[place : place + 1] == b"\\" and word[place + 1 : place + 2] in (b'"', b"'", b"\\"):
            place += 1
        elif word[place : place + 2] in (b"\\t", b"\\r", b"\\n"):
            made += {b"t": b"\t", b"r": b"\r", b"n": b"\n"}[word[place + 1 : place + 2]]
            place += 2
            continue
        made += word[place : place + 1]
        place += 1
    return bytes(made)
