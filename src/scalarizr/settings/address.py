"""Addresses to listen on, as they stand in the settings: `HOST:PORT`, IPv6 in brackets."""

import re

_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)


class BadAddress(ValueError):
    """An address to listen on is not HOST:PORT; the text says what is."""


def read_address(text: str) -> tuple[str, int]:
    """Split HOST:PORT.

    :return: the host without brackets, and the port.
    :raises BadAddress: it is something else.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or not _PORT.fullmatch(port) or int(port) > 65535:
        raise BadAddress('an address such as "0.0.0.0:8010" or "[::1]:8010"')
    if ":" in host and not bracketed:
        raise BadAddress('an IPv6 address in brackets, such as "[::1]:8010"')
    return (host[1:-1] if bracketed else host), int(port)
