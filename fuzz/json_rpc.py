"""JSON-RPC: whatever text comes behind a valid signature is answered by the letter, and never with a bug's excuse."""

import asyncio
import contextvars
import json
import logging
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from scalarizr.logs import AgentLog
from scalarizr.rpc.call import BadCall, Caller, read_call
from scalarizr.rpc.call_end import CallEnd
from scalarizr.rpc.dispatch import Dispatcher
from scalarizr.rpc.method import query
from scalarizr.rpc.registry import Registry
from scalarizr.rpc.rights import FULL_RIGHTS, Rights
from scalarizr.secret import Secret

LONGEST = 2048
# Where the JSON begins that is changed as such.
JSON_FROM = 1
WORDS = (
    b'"method"',
    b'"params"',
    b'"id"',
    b'"jsonrpc": "2.0"',
    b'"echo"',
    b'"trial.echo"',
    b'"spell"',
    b'"count"',
    b'"hold"',
    b'"value"',
    b'"_dry_run"',
    b'"_confirm_within"',
    b'"_platform_access_data"',
    b"null",
    b"true",
    b"1e400",
    b"-0",
    b"99999999999999999999999999999999",
    b'"\\ud83d\\ude00"',
    b'"\\ud800"',
    b"\xf0\x9f\x98\x80",
    b"\xed\xa0\x80",
    b"[",
    b"{",
    b"]",
    b"}",
    b", ",
    b": ",
)
_SECRET = "the-word-that-nobody-may-see"


class Trial:
    """Methods with a parameter of each kind, answered at once."""

    @query(inline=True)
    def echo(self, value: Any = None) -> Any:
        """Give back what came.

        :param value: anything.
        """
        return value

    @query(inline=True)
    def spell(
        self,
        word: str,
        count: int = 1,
        ratio: float = 1.0,
        loud: bool = False,
        kind: Literal["a", "b"] = "a",
        many: list[dict[str, int]] | None = None,
        secret: Secret | None = None,
    ) -> dict[str, Any]:
        """Take one of each.

        :param word: text.
        """
        assert type(word) is str and type(count) is int and type(ratio) is float and type(loud) is bool
        return {"word": word, "count": str(count), "loud": loud, "kind": kind, "many": len(many or ())}


class _Ends:
    """Takes note of how calls ended, and that it can be told."""

    def __init__(self) -> None:
        self.ends: list[CallEnd] = []

    def call_ended(self, end: CallEnd) -> None:
        self.ends.append(end)


class _Nothing:
    """There are neither operations nor changes here: all methods are queries."""


_ENDS = _Ends()
_LOG = AgentLog(logging.CRITICAL + 1)
_DISPATCHER = Dispatcher(
    Registry({"trial": f"{__name__}:Trial"}, {"alias": "trial"}, lambda kind: kind()),
    ThreadPoolExecutor(1),
    _Nothing(),  # type: ignore[arg-type]
    _Nothing(),  # type: ignore[arg-type]
    Path("/nonexistent"),
    _LOG,
    8,
    _ENDS,
)
_CALLERS = [
    Caller("10.0.0.1", "founding", "default", FULL_RIGHTS),
    Caller("10.0.0.1", "sealed", "reader", Rights(("trial.spell",))),
]
_NAMESPACES = ("trial", "", "alias", "nothing")
_CODES = {-32700, -32600, -32601, -32602, -32099, -32010, -32013, -32017}


def check(data: bytes) -> None:
    """The first byte: bit 0: who calls; bits 1 and 2: on which path. The rest is the text."""
    # As the event loop gives each connection a context of its own.
    contextvars.copy_context().run(_check, data)


def _check(data: bytes) -> None:
    how, text = (data[0] if data else 0), data[1:]
    _ENDS.ends.clear()
    outcome = _DISPATCHER.dispatch(text, _NAMESPACES[how >> 1 & 3], _CALLERS[how & 1])
    answer = _driven(outcome) if asyncio.iscoroutine(outcome) else outcome
    assert not asyncio.iscoroutine(answer)
    try:
        sent = json.loads(text.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        sent = None
    if answer is None:
        assert _holds_notifications(sent), "a request went without an answer"
        return
    told = json.loads(answer.decode("utf-8"), parse_constant=_refuse)
    for one in told if isinstance(told, list) else [told]:
        _check_answer(one)
    if isinstance(told, list):
        assert isinstance(sent, list) and len(told) <= len(sent), "an answer too many"
    elif isinstance(sent, dict):
        _check_id(text, answer)
    for end in _ENDS.ends:
        assert len(end.name) <= 110 and (end.error is None or isinstance(end.error.code, int))
    _check_reading(text, sent)


def _driven(outcome: Coroutine[Any, Any, bytes | None]) -> bytes | None:
    # All that it waits for is its turn.
    try:
        for _ in range(2000):
            outcome.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("a batch without an end")


def _refuse(word: str) -> None:
    raise ValueError(word)


def _holds_notifications(sent: Any) -> bool:
    requests = sent if isinstance(sent, list) else [sent]
    return all(isinstance(one, dict) and one.get("jsonrpc") == "2.0" and "id" not in one for one in requests)


def _check_answer(one: dict[str, Any]) -> None:
    assert ("result" in one) != ("error" in one) and "id" in one, one
    assert one.get("jsonrpc", "2.0") == "2.0"
    if "error" in one:
        error = one["error"]
        assert set(error) == {"code", "message", "data"} and error["code"] in _CODES, error
        assert isinstance(error["message"], str) and len(error["message"]) < 2000
        assert isinstance(error["data"], dict | None if "jsonrpc" in one else str | None), error


def _check_id(text: bytes, answer: bytes) -> None:
    try:
        call = read_call(text)
    except BadCall as bad:
        assert answer.endswith(b', "id": ' + bad.id + b"}")
        return
    assert call.id is not None and answer.endswith(b', "id": ' + call.id + b"}")
    assert call.id in text, "an id that is not the one that came"


def _check_reading(text: bytes, sent: Any) -> None:
    """What is taken for a call is one for another reader, too, and says the same there."""
    try:
        call = read_call(text)
    except BadCall as bad:
        assert bad.error.code in (-32700, -32600)
        return
    assert isinstance(sent, dict) and sent["method"] == call.method, (sent, call.method)
    assert ("jsonrpc" in sent) == call.modern
    assert json.loads(call.id) == sent["id"] if call.id is not None else "id" not in sent
    if isinstance(call.params, dict):
        assert set(sent.get("params", {})) == set(call.params)
    else:
        assert len(sent["params"]) == len(call.params)


def seeds() -> dict[str, bytes]:
    """Make calls in both dialects, batches, and texts that are none."""
    old = b'{"method": "echo", "params": {"value": [1, 2.5, "x", null, true]}, "id": 1340184043.523402}'
    new = b'{"jsonrpc": "2.0", "method": "spell", "params": {"word": "w", "count": "3", "loud": "1"}, "id": "a"}'
    made = {
        "founding": old,
        "modern": new,
        "notification": b'{"jsonrpc": "2.0", "method": "echo"}',
        "batch": b"[" + new + b", " + new.replace(b', "id": "a"', b"") + b", 1]",
        "empty-batch": b"[]",
        "by-position": b'{"jsonrpc": "2.0", "method": "spell", "params": ["w", 2, 1.5, 0, "b"], "id": null}',
        "php-list": b'{"method": "spell", "params": {"word": "w", "many": {"1": {"a": 1}, "0": {}}}, "id": 7}',
        "meta": b'{"method": "echo", "params": {"_dry_run": "0", "_platform_access_data": {"k": "v"}}, "id": 1}',
        "dry": b'{"method": "echo", "params": {"_dry_run": true}, "id": 1}',
        "confirm": b'{"method": "echo", "params": {"_confirm_within": 60}, "id": 1}',
        "long-id": b'{"method": "echo", "params": {}, "id": 123456789012345678901234567890}',
        "object-id": b'{"method": "echo", "params": {}, "id": {}}',
        "twice": b'{"method": "a", "method": "echo", "params": {}, "id": 1, "id": 2}',
        "null-params": b'{"method": "echo", "params": null, "id": 1}',
        "secret": b'{"method": "spell", "params": {"word": 1, "secret": "s"}, "id": 1}',
        "unknown": b'{"method": "eko", "params": {}, "id": 1}',
        "deep": b'{"method": "echo", "params": {"value": ' + b"[" * 300 + b"]" * 300 + b'}, "id": 1}',
        "broken": b'{"method": "echo", "params": {"value": ',
        "no-utf8": b'{"method": "echo", "params": {"value": "\xff"}, "id": 1}',
        "surrogate": b'{"method": "\\ud800", "params": {}, "id": 1}',
        "nan": b'{"method": "echo", "params": {"value": NaN}, "id": 1}',
    }
    whole = {"whole-name": b"\x02" + old.replace(b"echo", b"trial.echo")}
    return {name: b"\0" + text for name, text in made.items()} | whole | {"scoped": b"\1" + old, "alias": b"\4" + new}
