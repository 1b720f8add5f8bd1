"""Keys by their ids, from clients that share no code with the agent: two JOSE libraries, and a founding client."""

import base64
import importlib.util
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc import jwe
from joserfc.jwk import OctKey
from jwcrypto import jwe as other_jwe
from jwcrypto import jwk as other_jwk

from running_agent import RunningAgent
from scalarizr.envelope.key import make_key_text

CALL = {"method": "uname", "params": {}, "id": 7}
REFUSED = (400, b"Signature doesn't match\n")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    made = RunningAgent(tmp_path_factory.mktemp("agent"))
    for identity in ("monitoring", "web-1"):
        made.key_file.with_name(identity).write_bytes(make_key_text())
    (made.etc / "keys.toml").write_text('[monitoring]\nallow = ["read-only"]\n[web-1]\nallow = ["nginx.*"]\n')
    (made.etc / "keys.toml").chmod(0o600)
    with made as running:
        yield running


def raw_key(agent: RunningAgent, identity: str) -> bytes:
    return base64.b64decode(agent.key_file.with_name(identity).read_text())


def derived(agent: RunningAgent, identity: str) -> bytes:
    hkdf = HKDF(SHA256(), length=32, salt=b"", info=b"scalarizr jwe A256GCM")
    return hkdf.derive(raw_key(agent, identity))


def joserfc_seals(key: bytes, header: dict[str, Any], text: str) -> str:
    registry = jwe.JWERegistry(algorithms=["dir", "A256GCM"], strict_check_header=False)
    return jwe.encrypt_compact(header, text, OctKey.import_key(key), registry=registry)


def joserfc_opens(key: bytes, token: str) -> tuple[dict[str, Any], bytes]:
    registry = jwe.JWERegistry(algorithms=["dir", "A256GCM"], strict_check_header=False)
    opened = jwe.decrypt_compact(token, OctKey.import_key(key), registry=registry)
    assert opened.plaintext is not None
    return dict(opened.protected), opened.plaintext


def jwcrypto_key(key: bytes) -> Any:
    return other_jwk.JWK(kty="oct", k=base64.urlsafe_b64encode(key).decode().rstrip("="))


def jwcrypto_seals(key: bytes, header: dict[str, Any], text: str) -> str:
    token = other_jwe.JWE(text.encode(), json.dumps(header))
    token.add_recipient(jwcrypto_key(key))
    return str(token.serialize(compact=True))


def jwcrypto_opens(key: bytes, token: str) -> tuple[dict[str, Any], bytes]:
    opened = other_jwe.JWE()
    opened.deserialize(token, jwcrypto_key(key))
    return json.loads(opened.objects["protected"]), opened.payload


Library = tuple[Callable[..., str], Callable[..., tuple[dict[str, Any], bytes]]]
EVERY_LIBRARY = pytest.mark.parametrize(
    "library", [(joserfc_seals, joserfc_opens), (jwcrypto_seals, jwcrypto_opens)], ids=["joserfc", "jwcrypto"]
)


def header_of(**more: Any) -> dict[str, Any]:
    identity = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
    made = {"alg": "dir", "enc": "A256GCM", "typ": "scalarizr", "aud": "/system", "iat": int(time.time())}
    return {**made, "jti": identity, **more}


def post(agent: RunningAgent, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, Any]:
    request = urllib.request.Request(f"{agent.url}/system", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def post_sealed(agent: RunningAgent, token: str) -> tuple[int, bytes]:
    return post(agent, token.encode(), {"Content-Type": "application/jose"})[:2]


@EVERY_LIBRARY
@pytest.mark.parametrize("place", ["first", "last"])
def test_a_jose_library_names_its_key_by_kid(agent: RunningAgent, library: Library, place: str) -> None:
    seals, opens = library
    key = derived(agent, "monitoring")
    header = header_of()
    named = {"kid": "monitoring", **header} if place == "first" else {**header, "kid": "monitoring"}
    status, answer = post_sealed(agent, seals(key, named, json.dumps(CALL)))
    assert status == 200
    protected, text = opens(key, answer.decode())
    assert protected["irt"] == header["jti"] and json.loads(text)["result"]["kernel_name"] == "Linux"


@EVERY_LIBRARY
def test_what_the_key_may_not_do_is_answered_sealed_with_it(agent: RunningAgent, library: Library) -> None:
    seals, opens = library
    key = derived(agent, "web-1")
    status, answer = post_sealed(agent, seals(key, header_of(kid="web-1"), json.dumps(CALL)))
    assert status == 200
    error = json.loads(opens(key, answer.decode())[1])["error"]
    assert (error["code"], error["data"]) == (-32017, "method: system.uname")


@EVERY_LIBRARY
@pytest.mark.parametrize("kid", ["web-1", "default", "nobody", "Monitoring", 5, ["monitoring"], None])
def test_another_kid_than_the_keys_own_is_refused(agent: RunningAgent, library: Library, kid: Any) -> None:
    seals, _opens = library
    if not isinstance(kid, str):
        # The libraries themselves refuse to make such a header; the token is made with a text and given another head.
        token = forged(derived(agent, "monitoring"), header_of(kid=kid))
    else:
        token = seals(derived(agent, "monitoring"), header_of(kid=kid), json.dumps(CALL))
    assert post_sealed(agent, token) == REFUSED


def forged(key: bytes, header: dict[str, Any]) -> str:
    """Seal by AES-GCM alone, so that the header may be any."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    def text(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    protected, nonce = text(json.dumps(header).encode()), os.urandom(12)
    data = AESGCM(key).encrypt(nonce, json.dumps(CALL).encode(), protected.encode())
    return ".".join((protected, "", text(nonce), text(data[:-16]), text(data[-16:])))


def test_the_forger_of_these_tests_makes_what_is_accepted(agent: RunningAgent) -> None:
    assert post_sealed(agent, forged(derived(agent, "monitoring"), header_of(kid="monitoring")))[0] == 200


def founding_client() -> Any:
    spec = importlib.util.spec_from_file_location("old_client", Path(__file__).parent / "clients" / "call.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("identity", "named", "accepted"),
    [
        ("monitoring", "monitoring", True),
        ("default", "default", True),
        ("default", None, True),
        ("monitoring", None, False),
        ("monitoring", "default", False),
        ("monitoring", "web-1", False),
        ("default", "monitoring", False),
        ("monitoring", "MONITORING", False),
    ],
)
def test_a_founding_client_names_its_key_by_a_header(
    agent: RunningAgent, identity: str, named: str | None, accepted: bool
) -> None:
    client, raw = founding_client(), raw_key(agent, identity)
    body = client.encrypt(raw, json.dumps({**CALL, "id": time.time()}).encode())
    date = time.strftime("%a %d %b %Y %H:%M:%S UTC", time.gmtime())
    headers = {"Date": date, "X-Signature": client.sign(raw, body, date)}
    status, answer, received = post(agent, body, headers | ({"X-Key-Id": named} if named else {}))
    if not accepted:
        assert (status, answer) == REFUSED
        return
    assert status == 200 and client.sign(raw, answer, received["Date"]) == received["X-Signature"]
    assert json.loads(client.decrypt(raw, answer))["result"]["kernel_name"] == "Linux"
