"""Keeping account of what the agent does: figures for a monitoring system, and a line of the audit log a command."""

import hashlib
import time
from typing import Any

import msgspec

from scalarizr.audit.log import AuditLog
from scalarizr.audit.made import made
from scalarizr.envelope.envelopes import RefusedMessage
from scalarizr.logs import request_secrets
from scalarizr.metrics.figures import Figures
from scalarizr.operations.record import Record
from scalarizr.rpc.call import Caller
from scalarizr.rpc.call_end import CallEnd
from scalarizr.secret import masked, without

_LONGEST_ARGUMENTS = 16 * 1024
_LONGEST_WORDS = 1000
# Seconds in which refusals of messages from one address become one line, and how many addresses are told apart.
_GATHERED = 60.0
_ADDRESSES = 1000
# What nobody may do, or what is no call of ours, is written down whatever was asked for: -32700 to -32601, -32017.
_NO_CALL = frozenset({-32700, -32600, -32601, -32099, -32017})


class Bookkeeping:
    """Hears of calls, refusals and operations.

    :param audit: the audit log; None: none is kept.
    :ivar figures: what was counted.
    """

    def __init__(self, audit: AuditLog | None) -> None:
        self._audit = audit
        self.figures = Figures()
        # Address → when its last line was written, and how many were refused since.
        self._refused: dict[str, tuple[float, int]] = {}

    def started(self, version: str) -> None:
        """Note that the agent has started."""
        self._write({"event": "started", "time": time.time(), "version": version})

    def stopped(self) -> None:
        """Note that the agent stops, and let the log's head be known elsewhere."""
        self._write({"event": "stopped", "time": time.time()})
        self.tell_head()

    def tell_head(self) -> None:
        """Let the audit log's head be known elsewhere."""
        if self._audit is not None:
            self._audit.tell_syslog()

    def close(self) -> None:
        """Close the audit log."""
        if self._audit is not None:
            self._audit.close()
            self._audit = None

    def call_ended(self, end: CallEnd) -> None:
        """Count a call; write a line of what was to change something, and of what nobody may do."""
        method, error = end.method, end.error
        name = Figures.UNKNOWN if method is None else method.name
        self.figures.count_call(name, end.seconds, None if error is None else error.code)
        if self._audit is None:
            return
        if method is None or method.declaration.kind != "query" or (error is not None and error.code in _NO_CALL):
            self._write(_entry(end))

    def message_refused(self, address: str, refusal: RefusedMessage) -> None:
        """Count a message of which no call was made; write at most one line a minute and address."""
        self.figures.count_refusal(refusal.reason)
        self._refused_from(address, refusal.key, str(refusal))

    def handshake_refused(self, address: str, reason: str, words: str) -> None:
        """Count a handshake of TLS that failed; write of it as of a message that was refused.

        :param reason: a word to count it by.
        :param words: what it was.
        """
        self.figures.count_handshake(reason)
        self._refused_from(address, "-", words)

    def _refused_from(self, address: str, key: str, words: str) -> None:
        if self._audit is None:
            return
        now = time.time()
        written, count = self._refused.get(address, (0.0, 0))
        if 0 <= now - written < _GATHERED or (not written and len(self._refused) >= _ADDRESSES):
            self._refused[address if written else ""] = (written or now, count + 1)
            return
        self._refused[address] = (now, 0)
        if len(self._refused) > _ADDRESSES // 2:
            self._refused = {one: entry for one, entry in self._refused.items() if now - entry[0] < _GATHERED}
        entry = {"event": "refused", "time": now, "address": address, "key": key, "words": words}
        self._write({**entry, "since_the_last_line": count} if count else entry)

    def operation_ended(self, record: Record) -> None:
        """Count an operation, and write its line."""
        self.figures.count_operation(record.name, record.status)
        entry = {"event": "operation", "time": time.time(), "operation_id": record.id, "method": record.name}
        if record.error_code is not None:
            entry["error"] = record.error_code
        self._write({**entry, "outcome": record.status})

    def _write(self, entry: dict[str, Any]) -> None:
        if self._audit is not None:
            self._audit.record(entry)


def _entry(end: CallEnd) -> dict[str, Any]:
    entry: dict[str, Any] = {"time": time.time(), "method": end.name, **_origin(end.caller)}
    if end.arguments is not None:
        entry["arguments"] = _shown(end.arguments)
    entry |= end.terms
    if end.error is None:
        entry["outcome"] = "started" if end.goes_on else "ok"
    else:
        words = without(end.error.message, request_secrets.get())
        entry |= {"outcome": "refused", "error": end.error.code, "words": words[:_LONGEST_WORDS]}
    return {**entry, "took": round(end.seconds, 4), **made()}


def _origin(caller: Caller) -> dict[str, Any]:
    origin = {"key": caller.key, "address": caller.address, "envelope": caller.envelope}
    return {**origin, "certificate": caller.certificate} if caller.certificate else origin


def _shown(arguments: dict[str, Any]) -> Any:
    on_the_wire = {name.rstrip("_"): value for name, value in masked(arguments).items()}
    try:
        text = msgspec.json.encode(on_the_wire)
    except (TypeError, ValueError, RecursionError):
        return "(not shown)"
    secrets = request_secrets.get()
    if secrets:
        text = without(text.decode(), secrets).encode()
    if len(text) > _LONGEST_ARGUMENTS:
        return {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    return msgspec.Raw(text)
