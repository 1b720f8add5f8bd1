"""Templates: raw nginx directives from the caller, checked as whole blocks before nginx sees them.

They are code that root's web server runs: directives that include other files or run programs are refused unless the
settings say otherwise (`[nginx] template_directives`).
"""

import re

import msgspec

from scalarizr.errors import InvalidParameter
from scalarizr.nginx.syntax import BadSyntax, Directive, parse

_REFUSED = re.compile(r"include|load_module|.*_by_lua.*|lua_.*|perl.*|js_.*", re.IGNORECASE | re.DOTALL)
# What makes a location answer by itself, or hand the request on elsewhere.
_ANSWERING = frozenset(
    {"proxy_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass", "grpc_pass", "memcached_pass", "return", "root", "alias"}
)
_HANDING_ON = _ANSWERING - {"root", "alias"}
_LARGEST = 1 << 18
# To nginx any other is part of a word.
_WHITE = " \t\r\n"


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A template, checked.

    :param lines: its lines, each with its number in what the caller sent.
    :param location: where it goes; None: into the server.
    :param parameter: its name in what the caller sent.
    :param names: the directives at its outermost level.
    :param locations: the locations that it defines itself.
    """

    lines: tuple[tuple[int, str], ...]
    location: str | None
    parameter: str
    names: frozenset[str]
    locations: frozenset[str] = frozenset()

    @property
    def hands_on(self) -> bool:
        """Whether it says itself what becomes of a request."""
        return bool(self.names & _HANDING_ON)

    @property
    def answers(self) -> bool:
        """Whether requests are answered with it alone."""
        return bool(self.names & _ANSWERING) or bool(self.locations)


def check_template(content: str, location: str | None, parameter: str, *, any_directive: bool) -> Template:
    """Check a template.

    :param content: directives; a `server { … }` around them is taken off.
    :param location: where it goes; None: into the server.
    :param any_directive: none is refused.
    :raises InvalidParameter: says in which line of the template.
    """
    if len(content) > _LARGEST:
        raise InvalidParameter(parameter, f"{len(content)} characters", f"{_LARGEST} at most")
    bad = re.search(r"[^\t\n\r\x20-\x7e\x80-\U0010ffff]", content)
    if bad:
        raise _mistake(parameter, content, bad.start(), "a control character", "text")
    # A trailing comment must not swallow what comes behind it.
    text = content.replace("\r\n", "\n").replace("\r", "\n").rstrip(_WHITE) + "\n"
    try:
        directives = parse(text)
        start, end = 0, len(text)
        if len(directives) == 1 and directives[0].words == ["server"] and directives[0].is_block:
            start, end = directives[0].inside, directives[0].end - 1
            directives = directives[0].children
    except BadSyntax as error:
        raise InvalidParameter(parameter, f"in line {error.line}: {error}", "whole nginx directives") from None
    if not any_directive:
        _refuse_dangerous(directives, text, parameter)
    if location is not None:
        inner = next((one for one in directives if one.name in ("server", "http", "upstream")), None)
        if inner is not None:
            raise _mistake(parameter, text, inner.start, f"a block {inner.name[:60]}", "directives of a location")
    return Template(
        lines=_lines(text, start, end),
        location=location,
        parameter=parameter,
        names=frozenset(one.name for one in directives),
        locations=frozenset(" ".join(one.words[1:]) for one in directives if one.name == "location"),
    )


def _refuse_dangerous(directives: list[Directive], text: str, parameter: str) -> None:
    for one in directives:
        if _REFUSED.fullmatch(one.name):
            raise _mistake(
                parameter,
                text,
                one.start,
                f"the directive {one.name[:60]}",
                'none that includes files or runs code, unless the settings say [nginx] template_directives = "any"',
            )
        _refuse_dangerous(one.children, text, parameter)


def _mistake(parameter: str, text: str, offset: int, got: str, expected: str) -> InvalidParameter:
    line = text.count("\n", 0, offset) + 1
    return InvalidParameter(parameter, f"in line {line}: {got}", expected)


def _lines(text: str, start: int, end: int) -> tuple[tuple[int, str], ...]:
    first = text.count("\n", 0, start) + 1
    lines = [(first + number, line) for number, line in enumerate(text[start:end].split("\n"))]
    while lines and not lines[0][1].strip(_WHITE):
        lines.pop(0)
    while lines and not lines[-1][1].strip(_WHITE):
        lines.pop()
    return tuple(lines)
