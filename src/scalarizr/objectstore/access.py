"""Reading credentials of a request: `_platform_access_data`, whose texts are secrets."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from scalarizr.errors import InvalidParameter
from scalarizr.secret import Secret

TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105  an address
# What Google's consoles protect every PKCS#12 key with.
_GOOGLE_PASSWORD = b"notasecret"


def revealed_text(access: Mapping[str, Any], name: str) -> str | None:
    """Give one text of the credentials; None where it is not there or empty."""
    value = access.get(name)
    text = value.reveal() if isinstance(value, Secret) else value
    return text if isinstance(text, str) and text else None


def private_key_pem(text: str) -> str:
    """Give a private key as PEM.

    :param text: base64 of the key, as PEM or PKCS#12; PEM itself is taken too.
    :raises InvalidParameter: it is none.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.serialization import pkcs12

    try:
        data = text.encode() if text.lstrip().startswith("-----BEGIN") else base64.b64decode(text, validate=False)
        if data.lstrip().startswith(b"-----BEGIN"):
            key: Any = serialization.load_pem_private_key(data, None)
        else:
            key = pkcs12.load_key_and_certificates(data, _GOOGLE_PASSWORD)[0]
        if key is None:
            raise ValueError("a container without a key")
        pem: bytes = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    except (ValueError, TypeError, binascii.Error):
        raise InvalidParameter(
            "_platform_access_data.key",
            None,
            "base64 of a private key, as PEM or PKCS#12, without a password of its own",
        ) from None
    return pem.decode()


def account_in_json_key(given: Any) -> dict[str, str]:
    """Read the key file of a Google service account, as its text or what that says.

    Of other kinds of credentials some name programs to run or addresses to ask, and libraries take more from such a
    file than Google puts there, the address of the store itself among it: what comes over the wire is not trusted with
    any of that. Nothing but name and key is taken.

    :return: `client_email`, `private_key`, and where they are there `private_key_id` and `project_id`.
    :raises InvalidParameter: it is none.
    """
    try:
        found = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("type", "service_account") != "service_account":
        raise InvalidParameter("_platform_access_data.json_key", None, "the JSON of a service account's key")
    account = {
        name: value
        for name in ("client_email", "private_key", "private_key_id", "project_id")
        if isinstance(value := found.get(name), str) and value
    }
    if "client_email" not in account or "private_key" not in account:
        raise InvalidParameter(
            "_platform_access_data.json_key", None, "a service account's key with client_email and private_key"
        )
    return account


def key_file_of(account: Mapping[str, str]) -> str:
    """Write the key file of a Google service account, with nothing in it but what `account_in_json_key` takes."""
    return json.dumps({"type": "service_account", "private_key_id": "", **account, "token_uri": TOKEN_URI})
