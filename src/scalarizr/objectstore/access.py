"""Reading credentials of a request: `_platform_access_data`, whose texts are secrets."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from scalarizr.errors import InvalidParameter
from scalarizr.secret import Secret

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
        assert key is not None
        pem: bytes = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    except (ValueError, TypeError, AssertionError, binascii.Error):
        raise InvalidParameter(
            "_platform_access_data.key",
            None,
            "base64 of a private key, as PEM or PKCS#12, without a password of its own",
        ) from None
    return pem.decode()
