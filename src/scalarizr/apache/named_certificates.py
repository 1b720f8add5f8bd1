"""The certificates that a virtual host's text names: read before Apache reads them.

Apache's configuration test only looks whether these files are there. What is wrong inside of them ends an Apache that
is reloaded (ssl_engine_init.c), and with it every connection: certificate and key that do not belong together, files
that hold neither. Where it cannot be told from outside what Apache will find (a variable, a key in hardware), nothing
is said.
"""

from collections.abc import Callable, Iterator

from scalarizr.apache.conditions import Conditions
from scalarizr.apache.syntax import Directive, parse
from scalarizr.certificates import belong_together, problem_of_certificate, problem_of_key

# Files of issuers; Apache ends where one holds no certificate or, of the second kind, no list of revoked ones either.
_ISSUERS = ("sslcacertificatefile", "sslproxycacertificatefile", "sslcadnrequestfile")
_REVOKED = ("sslcarevocationfile", "sslproxycarevocationfile")
_HELPERS = ("include", "includeoptional", "use")

Mistake = tuple[int, str]
Read = Callable[[str], bytes | None]


def mistake_in(
    text: str,
    read: Read,
    conditions: Conditions | None = None,
    *,
    gets_passphrases: Callable[[], bool] = lambda: True,
    has_certificate_elsewhere: Callable[[], bool] = lambda: True,
) -> Mistake | None:
    """Find what would end an Apache that loads a text's certificates.

    :param text: of a file of the configuration.
    :param read: gives what a file will hold under the name that is written there; None: it cannot be told.
    :param conditions: what holds when it is loaded; None: unknown.
    :param gets_passphrases: whether a program gives Apache the passphrases of encrypted keys.
    :param has_certificate_elsewhere: whether virtual hosts inherit a certificate.
    :return: the line, from 0, and what is wrong there; None: nothing.
    :raises BadSyntax: the text is no whole sequence of directives and sections.
    """
    directives = parse(text)
    for section in (one for one in directives if one.is_section and one.called("virtualhost")):
        inner = [one for one in directives if section.first < one.first < section.closes and _holds(one, conditions)]
        engine = [one for one in inner if one.called("sslengine") and one.words]
        if not engine or engine[-1].words[0].lower() != "on":
            continue
        for mistake in _mistakes(inner, read, gets_passphrases):
            return mistake
        # A macro or an included file may name one.
        named = any(one.called("sslcertificatefile", *_HELPERS) for one in inner)
        told = conditions is not None and "md_module" not in conditions.modules
        if told and not named and not has_certificate_elsewhere():
            return engine[-1].first, "SSLEngine is on, and there is no SSLCertificateFile"
    return None


def _mistakes(inner: list[Directive], read: Read, gets_passphrases: Callable[[], bool]) -> Iterator[Mistake]:
    certificates = [one for one in inner if one.called("sslcertificatefile") and one.words]
    keys = [one for one in inner if one.called("sslcertificatekeyfile") and one.words]
    for number, one in enumerate(certificates):
        # A certificate without a key of its own number has its key in the same file.
        key = keys[number] if number < len(keys) else one
        certificate, private = read(one.words[0]), read(key.words[0])
        problem = problem_of_certificate(certificate) if certificate is not None else None
        if problem:
            yield one.first, f"{one.name} {one.words[0]} {problem}"
        problem = problem_of_key(private) if private is not None else None
        if problem and (not problem.startswith("is encrypted") or not gets_passphrases()):
            named = f"{key.name} {key.words[0]}"
            yield (
                key.first,
                f"{named} {problem}" if key is not one else f"{named} {problem}, and no file is named for it",
            )
        if certificate is not None and private is not None and not belong_together(certificate, private):
            yield key.first, f"{key.name} {key.words[0]} is not the key of {one.name} {one.words[0]}"
    for one in inner:
        content = read(one.words[0]) if one.words and one.called(*_ISSUERS, *_REVOKED) else None
        if content is None or b"-----BEGIN " in content:
            continue
        what = "certificate" if one.called(*_ISSUERS) else "list of revoked certificates"
        yield one.first, f"{one.name} {one.words[0]} holds no {what}"


def _holds(one: Directive, conditions: Conditions | None) -> bool:
    if conditions is not None:
        return conditions.hold_around(one)
    return not any(name in ("ifdefine", "ifmodule") and arguments.startswith("!") for name, arguments in one.within)
