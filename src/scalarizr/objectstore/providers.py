"""The stores behind obstore, one function each: from a bucket and credentials to obstore's object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from obstore.store import AzureStore, GCSStore, S3Store

from scalarizr.errors import NotSupported
from scalarizr.objectstore.access import account_in_json_key, key_file_of, private_key_pem, revealed_text

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

    from scalarizr.objectstore.remote import AnyStore


class Given(msgspec.Struct, frozen=True):
    """What a store is opened with; see `opening.open_store`."""

    bucket: str
    prefix: str | None
    endpoint_url: str | None
    access: Mapping[str, Any]
    region: str | None
    patience: float


def _client(given: Given) -> ClientConfig:
    # A part of an upload has this long to arrive; a connection that says nothing for 30 s is dead.
    options: ClientConfig = {
        "connect_timeout": timedelta(seconds=min(given.patience, 10)),
        "read_timeout": timedelta(seconds=min(given.patience, 30)),
        "timeout": timedelta(seconds=min(given.patience, 180)),
    }
    if given.endpoint_url and given.endpoint_url.startswith("http://"):
        options["allow_http"] = True
    proxy = _proxy(given.access)
    if proxy:
        options["proxy_url"] = proxy
    return options


def _proxy(access: Mapping[str, Any]) -> str | None:
    from urllib.parse import quote

    proxy = access.get("proxy")
    if not isinstance(proxy, Mapping) or not (host := revealed_text(proxy, "host")):
        return None
    kind = (revealed_text(proxy, "type") or "http").lower()
    if kind not in ("http", "https"):
        raise NotSupported("Object stores are reached through proxies of type http or https only. Nothing was changed.")
    port = proxy.get("port")
    user, word = revealed_text(proxy, "user"), revealed_text(proxy, "pass")
    who = f"{quote(user, safe='')}:{quote(word or '', safe='')}@" if user else ""
    number = revealed_text(proxy, "port") or (str(port) if isinstance(port, int) else "3128")
    return f"{kind}://{who}{host}:{number}"


def _retry(given: Given) -> RetryConfig:
    return {
        "max_retries": 1000,  # the time limits it
        "retry_timeout": timedelta(seconds=given.patience),
        "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=10), "base": 2},
    }


def _s3(given: Given) -> AnyStore:
    options: dict[str, Any] = {}
    key_id, key = revealed_text(given.access, "key_id"), revealed_text(given.access, "key")
    if key_id and key:
        token = revealed_text(given.access, "session_token")
        # Not as settings of the store: those would be mixed with a token that the environment has for another key.
        options["credential_provider"] = lambda: {
            "access_key_id": key_id,
            "secret_access_key": key,
            "token": token,
            "expires_at": None,
        }
    if given.region:
        options["region"] = given.region
    if given.endpoint_url:
        options["endpoint"] = given.endpoint_url
    return S3Store(
        given.bucket,
        prefix=given.prefix,
        client_options=_client(given),
        retry_config=_retry(given),
        **options,
    )


def _gs(given: Given) -> AnyStore:
    options: dict[str, Any] = {}
    account = _service_account(given.access)
    if account:
        options["service_account_key"] = account
    if given.endpoint_url:
        options["base_url"] = given.endpoint_url
    return GCSStore(
        given.bucket, prefix=given.prefix, client_options=_client(given), retry_config=_retry(given), **options
    )


def _service_account(access: Mapping[str, Any]) -> str | None:
    """Give a service account's key file, as text: made of the one that was sent, or of name and private key."""
    text = revealed_text(access, "json_key")
    if text:
        return key_file_of(account_in_json_key(text))
    name, key = revealed_text(access, "service_account_name"), revealed_text(access, "key")
    if not name or not key:
        return None
    return key_file_of({"client_email": name, "private_key": private_key_pem(key)})


def _azure(given: Given) -> AnyStore:
    options: dict[str, Any] = {}
    for name in ("account_name", "account_key", "client_id", "client_secret", "tenant_id"):
        value = revealed_text(given.access, name)
        if value:
            options[name] = value
    if given.endpoint_url:
        options["endpoint"] = given.endpoint_url
    return AzureStore(
        given.bucket, prefix=given.prefix, client_options=_client(given), retry_config=_retry(given), **options
    )


OPENERS: dict[str, Callable[[Given], AnyStore]] = {"s3": _s3, "swift": _s3, "gs": _gs, "azure": _azure}
