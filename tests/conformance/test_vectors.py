"""The golden messages: verified and made again, by the agent's own functions and by clients that share no code."""

import base64
import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwe
from joserfc.jwk import OctKey
from jwcrypto import jwe as other_jwe
from jwcrypto import jwk as other_jwk

from scalarizr.envelope import founding, sealed
from scalarizr.envelope.key import ServerKey

HERE = Path(__file__).parent
VECTORS = json.loads((HERE / "vectors.json").read_text())
FOUNDING = [vector for vector in VECTORS if vector["envelope"] == "founding"]
SEALED = [vector for vector in VECTORS if vector["envelope"] == "sealed"]


def named(vectors: list[Any]) -> Any:
    return pytest.mark.parametrize("vector", vectors, ids=[vector["name"] for vector in vectors])


def old_python_client() -> Any:
    spec = importlib.util.spec_from_file_location("old_client", HERE / "clients" / "call.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@named(FOUNDING)
def test_the_agent_opens_and_makes_founding_messages(vector: Any) -> None:
    key = ServerKey.from_text(vector["key"])
    body = vector["body"].encode()
    assert founding.open_body(key, body, vector["date"], vector["x_signature"]).decode() == vector["json"]
    assert founding.encrypt(key, vector["json"].encode()).decode() == "".join(vector["body"].split())
    signature = base64.b64encode(founding.sign(key, body, vector["date"].encode())).decode()
    assert signature == vector["x_signature"]


@named(SEALED)
def test_the_agent_opens_and_makes_sealed_messages(vector: Any) -> None:
    key = ServerKey.from_text(vector["key"])
    assert base64.b64encode(key.sealed).decode() == vector["derived_key"]
    header, text = sealed.open_token(key, vector["body"].encode())
    assert (header, text.decode()) == (vector["protected"], vector["json"])
    iv = base64.urlsafe_b64decode(vector["body"].split(".")[2])
    own = {name: value for name, value in vector["protected"].items() if name not in sealed.ALGORITHMS}
    assert sealed.seal(key, vector["json"].encode(), own, iv=iv).decode() == vector["body"]


@named(FOUNDING)
def test_an_old_python_client_agrees(vector: Any) -> None:
    client = old_python_client()
    raw = base64.b64decode(vector["key"])
    assert client.decrypt(raw, vector["body"].encode()).decode() == vector["json"]
    assert b"".join(client.encrypt(raw, vector["json"].encode()).split()) == "".join(vector["body"].split()).encode()
    assert client.sign(raw, vector["body"].encode(), vector["date"]) == vector["x_signature"]


@pytest.mark.skipif(not shutil.which("node"), reason="LEFT OUT: node is not installed")
@named(VECTORS)
def test_a_node_client_agrees(vector: Any) -> None:
    command = ["node", str(HERE / "clients" / "call.mjs"), "vector"]
    found = json.loads(
        subprocess.run(command, input=json.dumps(vector), capture_output=True, text=True, check=True).stdout
    )
    assert found["text"] == vector["json"]
    assert found["body"] == "".join(vector["body"].split())
    if vector["envelope"] == "founding":
        assert found["x_signature"] == vector["x_signature"]
    else:
        assert (found["header"], found["derived_key"]) == (vector["protected"], vector["derived_key"])


@named(SEALED)
def test_two_jose_libraries_open_what_the_agent_seals(vector: Any) -> None:
    key = ServerKey.from_text(vector["key"])
    token = sealed.seal(key, b'{"a": 1}', {"aud": "/x", "iat": 1, "jti": sealed.new_id()}).decode()
    registry = jwe.JWERegistry(algorithms=["dir", "A256GCM"], strict_check_header=False)
    assert jwe.decrypt_compact(token, OctKey.import_key(key.sealed), registry=registry).plaintext == b'{"a": 1}'
    other = other_jwe.JWE()
    other.deserialize(token, other_jwk.JWK(kty="oct", k=base64.urlsafe_b64encode(key.sealed).decode().rstrip("=")))
    assert other.payload == b'{"a": 1}'


@named(SEALED)
def test_the_agent_opens_what_two_jose_libraries_seal(vector: Any) -> None:
    key = ServerKey.from_text(vector["key"])
    header = vector["protected"]
    registry = jwe.JWERegistry(algorithms=["dir", "A256GCM"], strict_check_header=False)
    token = jwe.encrypt_compact(header, vector["json"], OctKey.import_key(key.sealed), registry=registry)
    assert sealed.open_token(key, token.encode()) == (header, vector["json"].encode())
    other = other_jwe.JWE(vector["json"].encode(), json.dumps(header))
    other.add_recipient(other_jwk.JWK(kty="oct", k=base64.urlsafe_b64encode(key.sealed).decode().rstrip("=")))
    assert sealed.open_token(key, other.serialize(compact=True).encode()) == (header, vector["json"].encode())
