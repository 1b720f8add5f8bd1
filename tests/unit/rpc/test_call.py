"""Reading requests: both dialects, and everything that is no request."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalarizr.rpc.call import BadCall, InvalidRequest, ParseError, read_call, split_batch


def bad(text: bytes) -> BadCall:
    with pytest.raises(BadCall) as caught:
        read_call(text)
    return caught.value


def test_a_founding_call() -> None:
    call = read_call(b'{"params": {"a": 1}, "method": "create", "id": 1340184043.523402, "other": [1]}')
    assert call == ("create", {"a": 1}, b"1340184043.523402", False)


def test_a_modern_call_may_lack_params_and_id() -> None:
    assert read_call(b'{"jsonrpc": "2.0", "method": "x"}') == ("x", {}, None, True)
    assert read_call(b'{"jsonrpc": "2.0", "method": "x", "id": null, "params": [1]}') == ("x", [1], b"null", True)


@pytest.mark.parametrize("identity", [b"1", b"-0", b"1e400", b'"x\\u0000"', b"123456789012345678901234567890", b"1.50"])
def test_an_id_is_kept_byte_for_byte(identity: bytes) -> None:
    assert read_call(b'{"method": "x", "params": {}, "id": ' + identity + b"}").id == identity


def test_of_a_duplicate_name_the_last_counts() -> None:
    assert read_call(b'{"method": "a", "method": "b", "params": {}, "id": 1, "id": 2}')[:3:2] == ("b", b"2")


@pytest.mark.parametrize(
    ("text", "code", "identity"),
    [
        (b"", -32700, b"null"),
        (b"{", -32700, b"null"),
        (b"\xef\xbb\xbf{}", -32700, b"null"),
        (b'{"method": "\xff", "params": {}, "id": 1}', -32700, b"null"),
        (b'{"x": "\xff", "method": "x", "params": {}, "id": 1}', -32700, b"null"),
        (b'{"method": "x", "params": {"a": NaN}, "id": 1}', -32700, b"null"),
        (b'{"method": "x", "params": {"a": Infinity}, "id": 1}', -32700, b"null"),
        (b'{"method": "x", "params": {"a": ' + b"[" * 5000 + b"]" * 5000 + b'}, "id": 1}', -32700, b"null"),
        (b"5x", -32700, b"null"),
        (b'"x', -32700, b"null"),
        (b"5", -32600, b"null"),
        (b'"x"', -32600, b"null"),
        (b"{}", -32600, b"null"),
        (b'{"method": "x", "id": 1}', -32600, b"1"),
        (b'{"method": "x", "params": null, "id": 1}', -32600, b"1"),
        (b'{"method": "x", "params": "y", "id": 1}', -32600, b"1"),
        (b'{"method": "x", "params": {}}', -32600, b"null"),
        (b'{"method": "x", "params": {}, "id": null}', -32600, b"null"),
        (b'{"method": "x", "params": {}, "id": [1]}', -32600, b"null"),
        (b'{"method": "x", "params": {}, "id": true}', -32600, b"null"),
        (b'{"method": 5, "params": {}, "id": 7}', -32600, b"7"),
        (b'{"jsonrpc": "1.0", "method": "x", "id": 7}', -32600, b"7"),
        (b'{"jsonrpc": 2.0, "method": "x", "id": 7}', -32600, b"7"),
        (b'{"jsonrpc": "2.0", "method": "x", "params": null, "id": 7}', -32600, b"7"),
    ],
)
def test_what_is_no_request(text: bytes, code: int, identity: bytes) -> None:
    found = bad(text)
    assert (found.error.code, found.id) == (code, identity)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_else(text: bytes) -> None:
    try:
        split_batch(text)
        read_call(text)
    except (BadCall, ParseError, InvalidRequest):
        return


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda i: st.lists(i) | st.dictionaries(st.text(), i)
    )
)
def test_arbitrary_json_raises_nothing_else(value: Any) -> None:
    import json

    test_arbitrary_bytes_raise_nothing_else.hypothesis.inner_test(json.dumps(value).encode())  # type: ignore[attr-defined]


def test_a_batch_is_split() -> None:
    assert split_batch(b' [{"a": 1}, 5]') is not None and split_batch(b'{"a": [1]}') is None
    with pytest.raises(InvalidRequest):
        split_batch(b"[]")
    with pytest.raises(InvalidRequest):
        split_batch(b"[" + b"1," * 1000 + b"1]")
    with pytest.raises(InvalidRequest, match="Invalid Request"):
        split_batch(b'{"a": [' + b"1," * 300_001 + b"1]}")
    with pytest.raises(ParseError):
        split_batch(b"[1")
    with pytest.raises(ParseError):
        split_batch(b"[" * 100_000)
