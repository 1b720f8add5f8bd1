"""What the TLS library will make of virtual hosts, asked before Apache is reloaded.

Apache's configuration test leaves it alone: a list of ciphers that matches none, a key that is too small for the
security level, an unknown curve show when Apache is reloaded, which ends of them (ssl_engine_init.c). So the very
library that its mod_ssl is linked with is asked, in a process of its own. Where that cannot be done, nothing is said.
"""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from scalarizr.apache.conditions import Conditions
from scalarizr.apache.syntax import Directive, parse
from scalarizr.errors import ScalarizrError
from scalarizr.host.run import run

Read = Callable[[str], bytes | None]

_MODULES = ("/usr/lib/apache2/modules", "/usr/lib64/httpd/modules", "/usr/lib/httpd/modules")
_LINKED = re.compile(rb"\blibssl\.so(?:\.[0-9.]+)?")
_LIMIT = 20.0
# Apache adds this to each list (ssl_engine_config.c).
_NEVER = ":!aNULL:!eNULL:!EXP"
# Of single directories and files: they are looked at when a request comes.
_LATER = (
    *("directory", "directorymatch", "location", "locationmatch", "files", "filesmatch", "proxy", "proxymatch"),
    *("if", "elseif", "else"),
)
_FILES = re.compile(r"certificate|privatekey|dhparam|file|path|store|chainca|verifyca|requestca", re.IGNORECASE)
_NAMED = ("sslcertificatefile", "sslcertificatekeyfile")


class Step(msgspec.Struct, frozen=True):
    """One thing that a virtual host asks of the library.

    :param what: as `tls_library` knows it.
    :param value: the setting, or PEM.
    :param line: the directive's, from 0.
    :param said: the directive, for a message.
    :param names: the file that a certificate or key is in.
    """

    what: str
    value: str
    line: int
    said: str
    names: str = ""


class Refusal(msgspec.Struct, frozen=True):
    """What the library refuses.

    :param step: of which one.
    :param reason: in its own words.
    """

    step: Step
    reason: str


def steps_of(text: str, read: Read, conditions: Conditions | None) -> Iterator[list[Step]]:
    """Give what each virtual host of a text with TLS asks of the library.

    :param read: gives what a file will hold under the name that is written there; None: it cannot be told.
    :param conditions: what holds when the text is loaded; None: unknown.
    :raises BadSyntax: the text is no whole sequence of directives and sections.
    """
    directives = parse(text)
    for section in (one for one in directives if one.is_section and one.called("virtualhost")):
        inner = [
            one
            for one in directives
            if section.first < one.first < section.closes
            and one.words
            and not any(name in _LATER for name, _arguments in one.within)
            and (conditions is None or conditions.hold_around(one))
        ]
        for engine, suite in (("sslengine", "sslciphersuite"), ("sslproxyengine", "sslproxyciphersuite")):
            said = [one.words[0].lower() for one in inner if one.called(engine)]
            if said[-1:] == ["on"]:
                own = engine == "sslengine"
                yield [*_settings(inner, suite), *(_certificates(inner, read) if own else ())]


def refused(contexts: Sequence[list[Step]], root: Path) -> Refusal | None:
    """Ask the library that Apache's mod_ssl is linked with.

    :param root: Apache's ServerRoot.
    :return: the first thing that it refuses; None: nothing, or it cannot be asked.
    """
    library = _library(root)
    if library is None or not any(contexts):
        return None
    asked = [[(step.what, step.value) for step in steps] for steps in contexts]
    command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("tls_library.py")), library]
    try:
        said = run(command, timeout=_LIMIT, input=msgspec.json.encode(asked))
        found = msgspec.json.decode(said.stdout, type=list[tuple[int, str] | None])
    except (ScalarizrError, msgspec.DecodeError):
        return None
    for steps, one in zip(contexts, found, strict=False):
        if one is not None:
            return Refusal(steps[one[0]], one[1])
    return None


def _settings(inner: list[Directive], suite: str) -> Iterator[Step]:
    # The last one of a kind counts.
    last: dict[str, Step] = {}
    for one in inner:
        said = f"{one.name} {one.arguments}"
        if one.called(suite):
            protocol, value = (one.words[0].lower(), one.words[1]) if len(one.words) > 1 else ("ssl", one.words[0])
            if protocol == "ssl":
                last["ciphers"] = Step("ciphers", value + _NEVER, one.first, said)
            elif protocol == "tlsv1.3":
                last["ciphersuites"] = Step("ciphersuites", value, one.first, said)
        elif one.called("sslopensslconfcmd") and suite == "sslciphersuite" and not _FILES.search(one.words[0]):
            last[one.words[0].lower()] = Step(one.words[0], " ".join(one.words[1:2]), one.first, said)
    yield from (step for step in last.values() if "${" not in step.value)


def _certificates(inner: list[Directive], read: Read) -> Iterator[Step]:
    certificates, keys = ([one for one in inner if one.called(name)] for name in _NAMED)
    for number, one in enumerate(certificates):
        key = keys[number] if number < len(keys) else one
        for what, directive in (("certificate", one), ("key", key)):
            name = directive.words[0]
            content = read(name)
            if content is None or b"-----BEGIN " not in content or b"ENCRYPTED" in content:
                break  # in a form, or a place, that only Apache reads
            said = f"{directive.name} {name}"
            yield Step(what, content.decode("latin-1"), directive.first, said, name)


def _library(root: Path) -> str | None:
    for directory in (root / "modules", *map(Path, _MODULES)):
        try:
            linked = _LINKED.search((directory / "mod_ssl.so").read_bytes())
        except OSError:
            continue
        return linked[0].decode() if linked else None
    return None
