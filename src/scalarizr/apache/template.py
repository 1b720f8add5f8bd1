"""A virtual host's text: checked, and edited where the agent has to: certificate, name, port.

It is code that root's web server runs: directives that include files, load code or start programs are refused unless
the settings say otherwise (`[apache] template_directives`).
"""

import re

import msgspec

from scalarizr.apache.syntax import BadSyntax, Directive, parse, quoted
from scalarizr.errors import InvalidParameter

# A macro's text is checked by nobody once its parameters are in it.
_REFUSED = re.compile(r"include\w*|load\w*|perl\w*|lua\w*|macro|use|md\w*cmd|mdchallengedns01", re.IGNORECASE)
_LOGS = ("customlog", "errorlog", "transferlog", "forensiclog", "globallog", "rewritelog", "scriptlog")
# Directives that may start a program, and the word that says so.
_STARTING = {"rewritemap": 1, "sslrandomseed": 1, "sslpassphrasedialog": 0}
_FIRST_WORD = re.compile(r"\s*<?\s*[^\s>]*")
_VARIABLES = re.compile(r"(?:\$\{[^}]*\})+")
# What cannot become a pipe, a quote or another word where the variable stands.
_PLAIN = re.compile(r"[A-Za-z0-9_.,:/@+=?&%~*-]*")
_CERTIFICATE = {"sslcertificatefile": 0, "sslcertificatekeyfile": 1, "sslcertificatechainfile": 2}
_LARGEST = 1 << 18
_ADDRESS_PORT = re.compile(r"^(?P<address>\[[^\]]*\]|[^\[\]]*?)(?::(?P<port>\*|[0-9]{1,5}))?$")


class CertificatePaths(msgspec.Struct, frozen=True):
    """Where a certificate's files are.

    :param chain: None: there is none.
    """

    certificate: str
    key: str
    chain: str | None


class HostText(msgspec.Struct, frozen=True):
    """The text of one file of virtual hosts.

    :param lines: each with its number in what the caller sent; 0: it was put in here.
    """

    lines: tuple[tuple[int, str], ...]

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for _number, line in self.lines)

    def directives(self) -> list[Directive]:
        """Read it."""
        return parse(self.text)

    def virtual_hosts(self) -> list[Directive]:
        """Give the opening lines of its virtual hosts."""
        return [one for one in self.directives() if one.is_section and one.called("virtualhost")]


def check_template(content: str, parameter: str, *, any_directive: bool) -> HostText:
    """Check the text of a virtual host.

    :param any_directive: none is refused.
    :raises InvalidParameter: says in which line.
    """
    if len(content) > _LARGEST:
        raise InvalidParameter(parameter, f"{len(content)} characters", f"{_LARGEST} at most")
    # Some editors begin a file with a byte order mark.
    text = content.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")
    bad = re.search(r"[^\t\n\x20-\x7e\x80-\U0010ffff]", text)
    if bad:
        raise _mistake(parameter, text.count("\n", 0, bad.start()) + 1, "a control character", "text")
    whole = HostText(tuple(enumerate(text.split("\n"), 1)))
    try:
        directives = whole.directives()
    except BadSyntax as error:
        raise _mistake(parameter, error.line, str(error), "whole directives and sections") from None
    if not any(one.is_section and one.called("virtualhost") for one in directives):
        raise InvalidParameter(parameter, "a text without <VirtualHost>", "the whole text of a virtual host")
    if not any_directive:
        for one in directives:
            _refuse_dangerous(one, whole, parameter)
    return whole


def _refuse_dangerous(one: Directive, host: HostText, parameter: str) -> None:
    written = "".join(line.removesuffix("\\") for _number, line in host.lines[one.first : one.last + 1])
    first = _FIRST_WORD.match(written)
    problem = ""
    if _REFUSED.fullmatch(one.name):
        problem = f"the directive {one.name[:60]}"
    elif "$" in one.name or (first and "$" in first[0]):
        # Apache puts variables in before it looks at what the directive is.
        problem = "a directive whose name is a variable"
    elif one.called("define") and not all(map(_PLAIN.fullmatch, one.words)):
        problem = "a variable that is more than a plain name or path"
    elif one.called(*_LOGS) and any(_VARIABLES.sub("", word, count=1).startswith("|") for word in one.words[:2]):
        problem = f"{one.name} through a program"
    elif one.name.lower() in _STARTING:
        said = "".join(one.words[_STARTING[one.name.lower()] :][:1]).lower()
        if said.startswith(("prg:", "exec:", "|")) or "$" in said:
            problem = f"a {one.name} that runs a program"
    if problem:
        raise _mistake(
            parameter,
            one.first + 1,
            problem,
            "none that includes files, loads code or starts programs, unless the settings say [apache] "
            'template_directives = "any"',
        )


def with_certificate(host: HostText, paths: CertificatePaths, port: int) -> HostText:
    """Point a virtual host at a certificate; what it does not have of TLS's directives is put in."""
    lines = dict(enumerate(host.lines))
    given = (paths.certificate, paths.key, paths.chain)
    directives = host.directives()
    for one in directives:
        if not one.is_section and one.name.lower() in _CERTIFICATE:
            value = given[_CERTIFICATE[one.name.lower()]]
            _rewrite(lines, one, f"{one.name} {quoted(value)}" if value else None)
    for section in (one for one in directives if one.is_section and one.called("virtualhost")):
        inner = [one for one in directives if section.first < one.first < section.closes]
        engine = next((one for one in inner if one.called("sslengine")), None)
        if engine is None and section_port(section) != port:
            continue  # another host of the same text that speaks plain http
        wanted = []
        if engine is None:
            wanted.append("SSLEngine on")
        elif engine.words[:1] != ["on"] and section_port(section) == port:
            _rewrite(lines, engine, "SSLEngine on")
        elif engine.words[:1] != ["on"]:
            continue
        for name, value in zip(
            ("SSLCertificateFile", "SSLCertificateKeyFile", "SSLCertificateChainFile"), given, strict=True
        ):
            if value and not any(one.called(name.lower()) for one in inner):
                wanted.append(f"{name} {quoted(value)}")
        if wanted:
            number, line = lines[section.last]
            lines[section.last] = (number, "\n".join([line, *(f"    {one}" for one in wanted)]))
    return _joined(lines)


def without_certificate(host: HostText) -> HostText:
    """Turn TLS off in a virtual host: its directives are commented out."""
    lines = dict(enumerate(host.lines))
    for one in host.directives():
        if not one.is_section and (one.called("sslengine") or one.name.lower() in _CERTIFICATE):
            _rewrite(lines, one, None)
    return _joined(lines)


def with_port(host: HostText, old: int, new: int) -> HostText:
    """Give the virtual hosts on one port another one."""
    lines = dict(enumerate(host.lines))
    for one in host.virtual_hosts():
        places = []
        for word in one.words:
            match = _ADDRESS_PORT.match(word)
            places.append(f"{match['address']}:{new}" if match and match["port"] == str(old) else word)
        if places != one.words:
            _rewrite(lines, one, f"<{one.name} {' '.join(places)}>")
    return _joined(lines)


def with_name(host: HostText, old: str, new: str) -> HostText:
    """Give the virtual hosts of one name another one."""
    lines = dict(enumerate(host.lines))
    for one in host.directives():
        if one.called("servername") and one.words:
            match = re.fullmatch(r"(?P<before>(?:https?://)?)(?P<name>.*?)(?P<behind>(?::[0-9]+)?)", one.words[0])
            if match and match["name"].lower() == old:
                _rewrite(lines, one, f"{one.name} {match['before']}{new}{match['behind']}")
    return _joined(lines)


def at_port(host: HostText, hostname: str, port: int, parameter: str) -> HostText:
    """Make sure that a virtual host of the text is on the port, and has a name.

    A single one that is on another port is moved; one without `ServerName` gets it.

    :raises InvalidParameter: of several, none is on the port.
    """
    sections = host.virtual_hosts()
    if not any(section_port(one) in (port, None) for one in sections):
        old = section_port(sections[0])
        if len(sections) > 1 or old is None:
            ports = ", ".join(str(section_port(one)) for one in sections)
            raise InvalidParameter(parameter, f"virtual hosts on the ports {ports}", f"one on the port {port}")
        host = with_port(host, old, port)
    lines = dict(enumerate(host.lines))
    directives = host.directives()
    for section in (one for one in directives if one.is_section and one.called("virtualhost")):
        named = any(one.called("servername") for one in directives if section.first < one.first < section.closes)
        if not named and section_port(section) in (port, None):
            number, line = lines[section.last]
            lines[section.last] = (number, f"{line}\n    ServerName {hostname}")
    return _joined(lines)


def section_port(section: Directive) -> int | None:
    """Give the port of a virtual host; None where it is on all."""
    for word in section.words:
        match = _ADDRESS_PORT.match(word)
        if match and match["port"] and match["port"] != "*":
            return int(match["port"])
    return None


def speaks_tls(host: HostText) -> bool:
    """Tell whether a text has TLS on."""
    return any(one.called("sslengine") and one.words[:1] == ["on"] for one in host.directives())


def certificate_of(host: HostText) -> str | None:
    """Give the path of the certificate that a text uses."""
    return next((one.words[0] for one in host.directives() if one.called("sslcertificatefile") and one.words), None)


def read_host(content: bytes) -> HostText:
    """Take a file of the agent's own."""
    text = content.decode("utf-8", "surrogateescape")
    return HostText(tuple((0, line) for line in text.removesuffix("\n").split("\n")))


def _rewrite(lines: dict[int, tuple[int, str]], one: Directive, text: str | None) -> None:
    """Write a directive's lines anew, keeping its indentation; None: comment them out."""
    number, line = lines[one.first]
    indent = line[: len(line) - len(line.lstrip())]
    if text is None:
        # A line behind a comment that ends in a backslash would belong to it: all of them lose theirs.
        for place in range(one.first, one.last + 1):
            own, old = lines[place]
            lines[place] = (own, f"{indent}#{old.strip().rstrip(chr(92))}")
        return
    lines[one.first] = (number, indent + text)
    for place in range(one.first + 1, one.last + 1):
        del lines[place]


def _joined(lines: dict[int, tuple[int, str]]) -> HostText:
    made: list[tuple[int, str]] = []
    for place in sorted(lines):
        number, text = lines[place]
        first, *more = text.split("\n")
        made.append((number, first))
        made += [(0, line) for line in more]
    return HostText(tuple(made))


def _mistake(parameter: str, line: int, got: str, expected: str) -> InvalidParameter:
    return InvalidParameter(parameter, f"in line {line}: {got}", expected)
