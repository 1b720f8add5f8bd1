"""A store's URL and credentials: what is taken, what is refused, and what is never shown."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from scalarizr.errors import InvalidParameter, NotConfigured, NotSupported
from scalarizr.objectstore.access import account_in_json_key, key_file_of, private_key_pem
from scalarizr.objectstore.opening import open_store
from scalarizr.objectstore.store import checked_directory, checked_path
from scalarizr.platform_access import PlatformAccess

KEY = rsa.generate_private_key(65537, 2048)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/var/backups",
        "ftp://host/x",
        "http://host/x",
        "file://relative/x",
        "file:///x/../etc",
        "s3://",
        "s3:///prefix",
        "s3://b",
        "s3://bucket/../x",
        "s3://bucket/a//b",
        "s3://bucket/.hidden",
        "s3://key:planted-secret@bucket/x",
        "s3://bucket/x?secret=planted-secret",
        "s3://bucket/x#planted",
        "s3://buck\0et/x",
        "s3://[::1/x",
        "azure://account name/x",
    ],
)
def test_a_url_that_is_none_is_refused_without_showing_a_secret(url: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        open_store(url, "http://127.0.0.1:1")
    assert "planted-secret" not in str(caught.value) + repr(caught.value.facts)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:80", "ftp://x", "http://", "http://u:planted-secret@h", "http://h:x"])
def test_an_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(NotConfigured) as caught:
        open_store("s3://bucket/x", endpoint)
    assert "planted-secret" not in str(caught.value)


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", "..", "a/../b", "a/.b", "-a", "a\nb", "a b", "ä", "a" * 1000])
def test_a_path_that_leads_elsewhere_is_none(path: str) -> None:
    with pytest.raises(InvalidParameter):
        checked_path(path)


def test_a_directory_may_end_in_a_slash() -> None:
    assert checked_directory("") == "" and checked_directory("a/b/") == "a/b"


@pytest.mark.parametrize(
    ("url", "access", "shown"),
    [
        ("file:///var/lib/x", {}, "file:///var/lib/x"),
        ("s3://bucket/a/b/", {"key_id": "planted-1", "key": "planted-2"}, "s3://bucket/a/b"),
        ("gs://bucket", {"service_account_name": "a@b", "key": base64.b64encode(PEM.encode()).decode()}, "gs://bucket"),
        ("azure://box/a", {"account_name": "me", "account_key": base64.b64encode(b"x" * 32).decode()}, "azure://box/a"),
        ("swift://box/a", {"key_id": "planted-1", "key": "planted-2"}, "swift://box/a"),
    ],
)
def test_every_kind_of_store_is_opened(url: str, access: dict[str, str], shown: str) -> None:
    store = open_store(url, "http://127.0.0.1:1" if not url.startswith("gs") else None, PlatformAccess(access))
    assert store.url == shown
    assert "planted" not in repr(store) + str(vars(store).get("_inner"))


def test_swift_without_its_s3_endpoint_says_why_it_cannot() -> None:
    with pytest.raises(NotSupported, match=r"S3-compatible endpoint.*endpoint_url"):
        open_store("swift://container/x")


def test_a_proxy_that_is_neither_http_nor_https_is_refused() -> None:
    access = PlatformAccess({"proxy": {"host": "p", "port": 1, "type": "socks4", "pass": "planted-secret"}})
    with pytest.raises(NotSupported) as caught:
        open_store("s3://bucket/x", "http://127.0.0.1:1", access)
    assert "planted-secret" not in str(caught.value)
    open_store(
        "s3://bucket/x", access=PlatformAccess({"proxy": {"host": "p", "port": "3128", "user": "u", "pass": "p"}})
    )


def test_googles_keys_are_read_in_every_form() -> None:
    again = PEM.strip()
    p12 = pkcs12.serialize_key_and_certificates(
        b"privatekey", KEY, None, None, serialization.BestAvailableEncryption(b"notasecret")
    )
    for text in (PEM, base64.b64encode(PEM.encode()).decode(), base64.b64encode(p12).decode()):
        assert private_key_pem(text).strip() == again
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "a")])
    now = datetime.now(UTC)
    certificate = x509.CertificateBuilder(name, name, KEY.public_key(), 1, now, now + timedelta(days=1)).sign(
        KEY, hashes.SHA256()
    )
    without_a_key = pkcs12.serialize_key_and_certificates(
        b"", None, certificate, None, serialization.BestAvailableEncryption(b"notasecret")
    )
    for wrong in (
        base64.b64encode(without_a_key).decode(),
        "",
        "x",
        base64.b64encode(b"planted-secret").decode(),
        "-----BEGIN PRIVATE KEY-----\nplanted-secret",
    ):
        with pytest.raises(InvalidParameter) as caught:
            private_key_pem(wrong)
        assert "planted-secret" not in str(caught.value)
    with pytest.raises(InvalidParameter, match="json_key"):
        open_store("gs://bucket", access=PlatformAccess({"json_key": "{planted-secret"}))
    key = {"type": "service_account", "client_email": "a@b", "private_key": PEM, "private_key_id": "x"}
    assert open_store("gs://bucket", access=PlatformAccess({"json_key": json.dumps(key)})).url == "gs://bucket"


def test_of_googles_key_file_nothing_is_taken_but_name_and_key() -> None:
    sent = {
        "type": "service_account",
        "client_email": "a@b",
        "private_key": PEM,
        "private_key_id": "x",
        "project_id": "p",
        "token_uri": "http://127.0.0.1:1/token",
        "gcs_base_url": "http://127.0.0.1:1",
        "disable_oauth": True,
    }
    for given in (sent, json.dumps(sent)):
        made = json.loads(key_file_of(account_in_json_key(given)))
        assert made == {
            **{name: sent[name] for name in ("type", "client_email", "private_key", "private_key_id", "project_id")},
            "token_uri": "https://oauth2.googleapis.com/token",
        }
    for wrong in ({**sent, "type": "external_account"}, {**sent, "client_email": ""}, [sent], "[" * 100_000, None):
        with pytest.raises(InvalidParameter):
            account_in_json_key(wrong)
