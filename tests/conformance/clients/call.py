"""A client of the founding envelope as scripts of 2012 had it: the standard library and a cipher. Shares nothing with
the agent.

    call.py http://HOST:8010/NAMESPACE KEYFILE METHOD PARAMS_JSON
"""

import base64
import hashlib
import hmac
import json
import sys
import time
import urllib.request
from pathlib import Path

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.padding import PKCS7


def encrypt(raw: bytes, text: bytes) -> bytes:
    padder = PKCS7(64).padder()
    encryptor = Cipher(TripleDES(raw[0:24]), modes.CBC(raw[-8:])).encryptor()
    data = encryptor.update(padder.update(text) + padder.finalize()) + encryptor.finalize()
    return base64.encodebytes(data)  # folded, and with a newline at its end, as that library did it


def decrypt(raw: bytes, body: bytes) -> bytes:
    decryptor = Cipher(TripleDES(raw[0:24]), modes.CBC(raw[-8:])).decryptor()
    return (decryptor.update(base64.b64decode(body)) + decryptor.finalize()).rstrip(bytes(range(32)))


def sign(raw: bytes, body: bytes, date: str) -> str:
    return base64.b64encode(hmac.new(raw, body + date.encode(), hashlib.sha1).digest()).decode()


def call(url: str, key_file: str, method: str, params: dict[str, object]) -> str:
    raw = base64.b64decode(Path(key_file).read_text())
    body = encrypt(raw, json.dumps({"params": params, "method": method, "id": time.time()}).encode())
    date = time.strftime("%a %d %b %Y %H:%M:%S UTC", time.gmtime())
    request = urllib.request.Request(url, body, {"Date": date, "X-Signature": sign(raw, body, date)})
    with urllib.request.urlopen(request) as answer:
        sealed = answer.read()
        if sign(raw, sealed, answer.headers["Date"]) != answer.headers["X-Signature"]:
            raise SystemExit("the answer's signature does not match")
    return decrypt(raw, sealed).decode()


if __name__ == "__main__":
    print(call(sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])))
