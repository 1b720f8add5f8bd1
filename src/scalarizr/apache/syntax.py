"""Apache's configuration language: which line holds which directive, within which sections.

Texts are edited line by line and stay as they are everywhere else. The rules are those of the server's own reader
(https://httpd.apache.org/docs/2.4/configuring.html#syntax): one directive a line, a backslash at a line's end continues
it, a comment is a whole line.
"""

import re

import msgspec

# A quote that is not closed holds all the rest (ap_getword_conf in server/util.c).
_WORD = re.compile(r'"((?:\\["\\]|[^"])*)"?|\'((?:\\[\'\\]|[^\'])*)\'?|(\S+)', re.DOTALL | re.ASCII)
_SECTION = re.compile(
    r"<\s*(?P<end>/?)\s*(?P<name>[A-Za-z][A-Za-z0-9_.-]*)(?P<rest>(?:[\s$].*)?)>", re.DOTALL | re.ASCII
)
# To Apache any other, such as a no-break space, is part of a word.
_WHITE = " \t\n\v\f\r"
# Each directive keeps the sections around it.
_DEEPEST = 100


class BadSyntax(Exception):
    """A text is no whole sequence of directives and sections.

    :ivar line: where, from 1.
    """

    def __init__(self, problem: str, line: int) -> None:
        super().__init__(problem)
        self.line = line


class Directive(msgspec.Struct, frozen=True):
    """One directive, or the opening line of a section.

    :param name: as written.
    :param arguments: everything behind the name, continued lines joined.
    :param first: its first line, from 0.
    :param last: its last line.
    :param within: the sections around it, the outermost first, each as `(name in lower case, arguments)`.
    :param is_section: it opens a section.
    :param closes: of a section: the line of its end.
    """

    name: str
    arguments: str
    first: int
    last: int
    within: tuple[tuple[str, str], ...] = ()
    is_section: bool = False
    closes: int = -1

    def called(self, *names: str) -> bool:
        """Tell whether it has one of the names, which are in lower case."""
        return self.name.lower() in names

    @property
    def words(self) -> list[str]:
        """Its arguments, unquoted."""
        return split_words(self.arguments)


def split_words(text: str) -> list[str]:
    """Split arguments as the server does: by spaces, quoted ones kept together."""
    words = []
    for match in _WORD.finditer(text):
        if match[1] is not None:
            words.append(re.sub(r'\\(["\\])', r"\1", match[1]))
        elif match[2] is not None:
            words.append(re.sub(r"\\(['\\])", r"\1", match[2]))
        else:
            words.append(match[3].replace("\\\\", "\\"))
    return words


def parse(text: str) -> list[Directive]:
    """Read a text: its directives and sections in their order.

    :raises BadSyntax: a section without its end, an end without its section, a continued line without the next, or
        sections nested too deeply.
    """
    lines = text.split("\n")
    found: list[Directive] = []
    opened: list[tuple[int, Directive]] = []
    number = 0
    while number < len(lines):
        first = number
        logical = lines[number].rstrip("\r")
        while logical.endswith("\\"):
            if number + 1 >= len(lines) or (number + 2 == len(lines) and not lines[-1]):
                raise BadSyntax("the last line is continued by a backslash", number + 1)
            number += 1
            logical = logical[:-1] + lines[number].rstrip("\r")
        last, number = number, number + 1
        stripped = logical.strip(_WHITE)
        if not stripped or stripped.startswith("#"):
            continue
        within = tuple((section.name.lower(), section.arguments) for _place, section in opened)
        if not stripped.startswith("<"):
            name, arguments = _name_and_arguments(stripped)
            if not name or name.startswith("<"):
                raise BadSyntax(f"{stripped[:60]} is no directive", first + 1)
            found.append(Directive(name, arguments, first, last, within))
            continue
        match = _SECTION.fullmatch(stripped)
        if match is None:
            raise BadSyntax(f"{stripped[:60]} is no section", first + 1)
        if not match["end"]:
            if len(opened) >= _DEEPEST:
                raise BadSyntax(f"sections nested deeper than {_DEEPEST}", first + 1)
            section = Directive(match["name"], match["rest"].strip(_WHITE), first, last, within, is_section=True)
            opened.append((len(found), section))
            found.append(section)
            continue
        if not opened:
            raise BadSyntax(f"</{match['name'][:60]}> without <{match['name'][:60]}>", first + 1)
        place, section = opened.pop()
        if section.name.lower() != match["name"].lower():
            raise BadSyntax(f"</{match['name'][:60]}> where </{section.name[:60]}> is expected", first + 1)
        found[place] = msgspec.structs.replace(section, closes=last)
    if opened:
        section = opened[-1][1]
        raise BadSyntax(f"<{section.name[:60]}> is not closed", section.first + 1)
    return found


def quoted(value: str) -> str:
    """Write an argument so that it is one argument again."""
    if re.fullmatch(r"[A-Za-z0-9_./:@%+,=~*-]+", value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _name_and_arguments(line: str) -> tuple[str, str]:
    # Quotes around a directive's name are no part of it, and neither is a > at its end, which Apache takes off.
    match = _WORD.match(line)
    name = split_words(match[0])[0].removesuffix(">") if match else ""
    return name, line[match.end() :].strip(_WHITE) if match else ""
