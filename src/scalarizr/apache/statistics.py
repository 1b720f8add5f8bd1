"""What mod_status tells of Apache (https://httpd.apache.org/docs/2.4/mod/mod_status.html)."""

import contextlib
import re
import ssl
import urllib.parse

from scalarizr.apache.program import ApacheProgram
from scalarizr.errors import ScalarizrError
from scalarizr.host.listening import ListeningSocket, listening_sockets

_OFF = "mod_status is not enabled"
_NOWHERE = (
    'mod_status is loaded, but nothing answers with it at /server-status: put <Location "/server-status"> with '
    "SetHandler server-status and Require local into Apache's configuration, or set [apache] status_url"
)
_LIMIT = 5.0
_LARGEST = 1 << 20
# A socket for all of IPv6 usually takes IPv4's connections, too.
_EVERYWHERE = {"0.0.0.0": ("127.0.0.1",), "::": ("127.0.0.1", "::1")}  # noqa: S104
_FIGURE = re.compile(r"^([^:\n]+): ?(.*)$", re.MULTILINE)


class _NoFigures(Exception):
    """There is no answer of mod_status.

    :param said: why, in words; empty: something else answers.
    :param answered: whether HTTP came back at all.
    """

    def __init__(self, said: str, *, answered: bool = False) -> None:
        super().__init__(said)
        self.answered = answered


def read_statistics(program: ApacheProgram, url: str | None) -> dict[str, str]:
    """Read mod_status's figures.

    :param url: where it answers; None: on whichever port of Apache on this host.
    :return: names and values as Apache prints them; `{errmsg}` where there is no answer.
    """
    urls = [url] if url is not None else [one for socket in _own_sockets(program) for one in _urls(socket)]
    if not urls:
        return {"errmsg": "Apache is not running"}
    problems = []
    for one in urls:
        try:
            return _read(one) if url is not None else _read_here(one)
        except _NoFigures as problem:
            problems.append(str(problem))
    # That Apache answers, but not with this, tells more than a port which is for something else.
    if "" in problems:
        return {"errmsg": _NOWHERE if _is_loaded(program) else _OFF}
    return {"errmsg": problems[0]}


def _read_here(url: str) -> dict[str, str]:
    """Read from a port that Apache holds, in plain http or with TLS."""
    try:
        return _read(url)
    except _NoFigures as in_plain_http:
        # This very Apache holds the port, on this host: whom its certificate is for does not matter.
        try:
            return _read(url.replace("http:", "https:", 1), ssl._create_unverified_context())  # noqa: S323
        except _NoFigures as with_tls:
            # Of a port for TLS, what it says in plain http is no answer.
            raise (with_tls if with_tls.answered else in_plain_http) from None


def _read(url: str, context: ssl.SSLContext | None = None) -> dict[str, str]:
    # Half a megabyte of e-mail's headers, which only who asks for figures pays for.
    import http.client

    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise _NoFigures(f"{url} is no URL")
    connection = (
        http.client.HTTPSConnection(host, port, timeout=_LIMIT, context=context)
        if parts.scheme == "https"
        else http.client.HTTPConnection(host, port, timeout=_LIMIT)
    )
    try:
        connection.request("GET", f"{parts.path or '/server-status'}?auto", headers={"Connection": "close"})
        answer = connection.getresponse()
        text = answer.read(_LARGEST).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        raise _NoFigures(f"{url}: {reason}") from None
    finally:
        connection.close()
    figures = {match[1]: match[2] for match in _FIGURE.finditer(text)}
    if answer.status == 200 and ("Scoreboard" in figures or "Total Accesses" in figures):
        return figures
    said = "" if answer.status in (200, 404) else f"{url} answers {answer.status} {answer.reason}"
    raise _NoFigures(said, answered=True)


def _own_sockets(program: ApacheProgram) -> list[ListeningSocket]:
    """Give where Apache listens, the likeliest for plain http first."""
    own = program.own_sockets()
    found = {(socket.port, socket.address): socket for socket in listening_sockets() if socket.inode in own}
    return [found[key] for key in sorted(found, key=lambda key: (key[0] in (443, 8443), key))]


def _urls(socket: ListeningSocket) -> list[str]:
    hosts = _EVERYWHERE.get(socket.address, (socket.address,))
    return [f"http://{f'[{host}]' if ':' in host else host}:{socket.port}/server-status" for host in hosts]


def _is_loaded(program: ApacheProgram) -> bool:
    with contextlib.suppress(ScalarizrError):
        return "status_module" in program.describe().modules
    return False
