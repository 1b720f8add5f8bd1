"""The certificate that new connections get: read at the start, and again when its files change or the agent is told to.

What does not work when it is read again changes nothing: the old stays in force, and the log says why.
"""

import logging
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from scalarizr.server.connection import Connection
from scalarizr.server.tls_connection import TlsConnection
from scalarizr.server.tls_files import BadTlsFiles, ReadTls, TlsFiles, date_of, read_tls
from scalarizr.server.tls_refusals import HandshakeRefusal
from scalarizr.settings.load import BadSettings, where_set
from scalarizr.settings.model import Tls

# Seconds for which it is not looked again whether the files have changed.
_LOOKED = 1.0


class TlsInForce:
    """What TLS is served with.

    :param etc: the agent's configuration directory.
    :param settings: which name the files.
    :param log: the agent's log.
    :param on_refusal: hears of a handshake that failed: the client's address, a word to count it by, and words.
    :raises BadSettings: the files cannot be used; naming setting and file. A certificate that has expired is no reason
        not to start: whoever comes by the other listener is served.
    """

    def __init__(
        self, etc: Path, settings: Tls, log: logging.Logger, on_refusal: Callable[[str, str, str], None]
    ) -> None:
        self._etc = etc
        self._files = _files_of(settings)
        self._log = log
        self._on_refusal = on_refusal
        self._seen = self._state_of_files()
        self._looked = time.monotonic()
        self._read = self._read_files()
        self._complain(self._read.problem_at(time.time()))

    def over(self, connection: Connection) -> TlsConnection:
        """Put TLS between a new socket and a connection."""
        return TlsConnection(connection, self._context, self._refused)

    def name(self, settings: Tls) -> None:
        """Take over which files are to be read the next time."""
        if settings.certificate is not None and settings.key is not None:
            self._files = _files_of(settings)

    def read(self) -> None:
        """Read the files, and put them in force for new connections.

        :raises BadSettings: what is in force stays.
        """
        self._seen = self._state_of_files()
        read = self._read_files()
        problem = read.problem_at(time.time())
        if problem and read.der != self._read.der:
            raise BadSettings(f"{where_set(self._etc, 'tls', 'certificate')}: {self._files.certificate}: {problem}.")
        self._read = read
        self._log.info("tls: certificate re-read subject=%s expires=%s", read.subject, date_of(read.expires))
        self._complain(problem)  # of one that expired in force, beside which there is no better one yet

    def _context(self) -> ssl.SSLContext:
        """Give what a client is accepted with, who begins its handshake now."""
        now = time.monotonic()
        if now - self._looked >= _LOOKED:
            self._looked = now
            if self._state_of_files() != self._seen:
                try:
                    self.read()
                except BadSettings as error:
                    self._log.error("tls: not re-read, the old ones stay in force: %s", error)
        return self._read.context

    def _complain(self, problem: str | None) -> None:
        if problem:
            self._log.error("tls: the certificate %s %s: clients refuse it", self._read.subject, problem)

    def _read_files(self) -> ReadTls:
        try:
            return read_tls(self._files)
        except BadTlsFiles as error:
            raise BadSettings(f"{where_set(self._etc, 'tls', error.setting)}: {error}.") from None

    def _state_of_files(self) -> list[tuple[int, ...] | None]:
        return [_state_of(path) for path in self._files if path is not None]

    def _refused(self, address: str, refusal: HandshakeRefusal) -> None:
        self._log.warning("tls: handshake refused from=%s reason=%s", address, refusal.words)
        self._on_refusal(address, refusal.reason, refusal.words)


def _files_of(settings: Tls) -> TlsFiles:
    assert settings.certificate is not None and settings.key is not None  # whoever listens has both: settings.load
    return TlsFiles(settings.certificate, settings.key, settings.client_ca)


def _state_of(path: Path) -> tuple[int, ...] | None:
    """Give what differs once a file was replaced, written or given other rights; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
