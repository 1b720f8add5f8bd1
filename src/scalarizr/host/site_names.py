"""Names of web sites: what DNS and HTTP can carry, in the form that configuration files take."""

import re

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_LONGEST = 253


def in_punycode(name: str) -> str | None:
    """Give a name in lower case, an internationalised one as punycode; None where it has no such form.

    As browsers ask for it: IDNA 2008 behind the mapping of UTS 46, so that `faß.de` is not `fass.de`.
    """
    if not name.isascii():
        import idna

        try:
            labels = [
                idna.encode(label, uts46=True).decode() if not label.isascii() else label for label in name.split(".")
            ]
        except (idna.IDNAError, UnicodeError):
            return None
        name = ".".join(labels)
    return name.lower()


def is_site_name(name: str) -> bool:
    """Tell whether this is a host name: labels of letters, digits, - and _, at most 63 each and 253 in all."""
    return len(name) <= _LONGEST and _NAME.fullmatch(name) is not None
