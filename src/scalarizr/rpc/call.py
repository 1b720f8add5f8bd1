"""The text of a call and of its answer: JSON-RPC 2.0 and the founding dialect (WIRE.md, "JSON-RPC")."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

from scalarizr.errors import ScalarizrError
from scalarizr.secret import Secret

if TYPE_CHECKING:
    from scalarizr.rpc.rights import Rights

MOST_IN_BATCH = 1000
MOST_VALUES = 300_000
_NULL = b"null"


class Caller(NamedTuple):
    """Who calls.

    :ivar address: the client's address.
    :ivar envelope: `founding` or `sealed`.
    :ivar key: the id of the key that the call was made with.
    :ivar rights: what the holder of that key may call.
    :ivar certificate: the subject of the client's certificate; empty without one.
    """

    address: str
    envelope: str
    key: str
    rights: Rights
    certificate: str = ""


class ParseError(ScalarizrError):
    """The text is not JSON."""

    code = -32700

    def __init__(self) -> None:
        super().__init__("Parse error")


class InvalidRequest(ScalarizrError):
    """It is JSON, but no request."""

    code = -32600

    def __init__(self, reason: str) -> None:
        super().__init__("Invalid Request", {"reason": reason})

    def facts_as_text(self) -> str:
        return str(self.facts["reason"])


class MethodNotFound(ScalarizrError):
    """There is no such method; the facts name the nearest."""

    code = -32601

    def __init__(self, method: str, nearest: str | None) -> None:
        super().__init__("Method not found", {"method": method, "nearest": nearest})

    def facts_as_text(self) -> str:
        hint = f"; did you mean {self.facts['nearest']}?" if self.facts["nearest"] else ""
        return f"{self.facts['method']}{hint}"


class NamespaceNotFound(ScalarizrError):
    """There is no such namespace; the facts name those that are."""

    code = -32099

    def __init__(self, namespace: str, namespaces: list[str]) -> None:
        super().__init__("Namespace not found", {"namespace": namespace, "namespaces": list(namespaces)})

    def facts_as_text(self) -> str:
        names = self.facts["namespaces"]
        assert isinstance(names, list)
        return f"{self.facts['namespace']}; there are {', '.join(str(name) for name in names)}"


class InternalError(ScalarizrError):
    """A bug of ours: the log explains the reference, the caller learns nothing else."""

    code = -32603

    def __init__(self, reference: str) -> None:
        super().__init__(
            f"An internal error happened; the agent's log explains it under {reference}.",
            {"reference": reference},
        )


class _Parts(msgspec.Struct):
    method: Raw | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    id: Raw | UnsetType = UNSET
    jsonrpc: Raw | UnsetType = UNSET


class Call(NamedTuple):
    """One call, read.

    :ivar method: the method's name as sent.
    :ivar params: an object or an array.
    :ivar id: the JSON text of its id as sent; None for a notification.
    :ivar modern: whether it is JSON-RPC 2.0.
    """

    method: str
    params: dict[str, Any] | list[Any]
    id: bytes | None
    modern: bool


_decode_parts = msgspec.json.Decoder(_Parts).decode
_decode_any = msgspec.json.Decoder().decode
_decode_batch = msgspec.json.Decoder(list[Raw]).decode


def _plain(value: object) -> object:
    """Give what JSON knows for a value of a derived type; a secret stays masked."""
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Secret | Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is nothing that JSON knows")


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


def split_batch(text: bytes) -> list[Raw] | None:
    """Split a batch into its requests; None for what is no array.

    :raises ParseError: it is not JSON.
    :raises InvalidRequest: an empty batch, one of more than 1,000, or a message of more than 300,000 values.
    """
    # Parsing holds up everybody: this many values take it less than a tenth of a second. What looks like one in a
    # string counts, too.
    if len(text) > MOST_VALUES and sum(text.count(mark) for mark in (b",", b"{", b"[")) > MOST_VALUES:
        raise InvalidRequest(f"more than {MOST_VALUES} values in one message")
    if not text.lstrip(b" \t\r\n").startswith(b"["):
        return None
    try:
        # All of it, before any of it is run: where one request is no JSON the whole text is none.
        str(memoryview(text), "utf-8")
        _decode_any(text)
        requests = _decode_batch(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ParseError from None
    if not requests:
        raise InvalidRequest("an empty batch")
    if len(requests) > MOST_IN_BATCH:
        raise InvalidRequest(f"a batch of {len(requests)} requests; at most {MOST_IN_BATCH} are accepted")
    return requests


def looks_modern(text: bytes | Raw) -> bool:
    """Guess the dialect of something that is no request, for its error's shape."""
    return b'"jsonrpc"' in bytes(text)


def read_call(text: bytes | Raw, *, in_batch: bool = False) -> Call:
    """Read one request.

    :raises BadCall: it is none; carries the answer's id and dialect.
    """
    try:
        str(memoryview(text), "utf-8")  # JSON is UTF-8 (RFC 8259, section 8.1), also where nothing decodes a member
        parts = _decode_parts(text)
    except msgspec.ValidationError:
        error = InvalidRequest("an object was expected") if _is_json(text) else ParseError()
        raise BadCall(error, _NULL, in_batch or looks_modern(text)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadCall(ParseError(), _NULL, in_batch or looks_modern(text)) from None
    modern = parts.jsonrpc is not UNSET
    identity = None if parts.id is UNSET else bytes(parts.id)
    known_id = identity if identity is not None and _is_id(identity) else None

    def bad(error: ScalarizrError) -> BadCall:
        return BadCall(error, known_id or _NULL, modern or in_batch)

    try:
        if parts.jsonrpc is not UNSET and _decode_any(parts.jsonrpc) != "2.0":
            raise bad(InvalidRequest('jsonrpc is not "2.0"'))
        if in_batch and not modern:
            raise bad(InvalidRequest('a batch is JSON-RPC 2.0: each request carries "jsonrpc": "2.0"'))
        if identity is not None and known_id is None:
            raise bad(InvalidRequest("id is neither a string nor a number nor null"))
        method = None if parts.method is UNSET else _decode_any(parts.method)
        if not isinstance(method, str):
            raise bad(InvalidRequest("method is missing" if method is None else "method is not a string"))
        if parts.params is UNSET:
            params: Any = {} if modern else None
        else:
            params = _decode_any(parts.params)
        if not isinstance(params, dict | list):
            raise bad(InvalidRequest("params is neither an object nor an array"))
        if not modern and identity in (None, _NULL):
            raise bad(InvalidRequest("id is missing"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadCall(ParseError(), _NULL, modern or in_batch) from None
    return Call(method, params, identity, modern)


class BadCall(Exception):
    """What came is no request.

    :ivar error: why.
    :ivar id: the JSON text of the id that the answer carries.
    :ivar modern: whether the answer is JSON-RPC 2.0.
    """

    def __init__(self, error: ScalarizrError, identity: bytes, modern: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.id = identity
        self.modern = modern


def result_text(result: object, identity: bytes, modern: bool) -> bytes:
    """Write a result."""
    version = b'"jsonrpc": "2.0", ' if modern else b""
    return b"".join((b"{", version, b'"result": ', _encode(result), b', "id": ', identity, b"}"))


def error_text(error: ScalarizrError, identity: bytes, modern: bool) -> bytes:
    """Write an error; `data` is an object in JSON-RPC 2.0, in the founding dialect a string or null."""
    data = (error.facts or None) if modern else error.facts_as_text()
    version = b'"jsonrpc": "2.0", ' if modern else b""
    described = _encode({"code": error.code, "message": error.message, "data": data})
    return b"".join((b"{", version, b'"error": ', described, b', "id": ', identity, b"}"))


def batch_text(answers: list[bytes]) -> bytes | None:
    """Write the answers of a batch; None where all were notifications."""
    return b"[" + b", ".join(answers) + b"]" if answers else None


def _is_json(text: bytes | Raw) -> bool:
    try:
        _decode_any(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _is_id(text: bytes) -> bool:
    return text == _NULL or text[:1] in b'"-0123456789'
