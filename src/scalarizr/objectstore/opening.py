"""Opening a store by its URL, with the credentials of the request or those that the SDK finds by itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from scalarizr.errors import InvalidParameter, NotConfigured, NotSupported
from scalarizr.secret import secrets_in

if TYPE_CHECKING:
    from scalarizr.objectstore.store import Store

# Requests are signed once and then repeated: stores accept a signature for some minutes only.
_LONGEST_PATIENCE = 280.0
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}", re.ASCII)
_EXPECTED = (
    "file:///directory, s3://bucket/prefix, gs://bucket/prefix, azure://container/prefix or swift://container/prefix"
)


def open_store(
    url: str,
    endpoint_url: str | None = None,
    access: Mapping[str, Any] | None = None,
    *,
    region: str | None = None,
    patience: float = 180.0,
) -> Store:
    """Open a store; nothing is connected to yet.

    :param url: `file:///directory`, `s3://bucket/prefix`, `gs://…`, `azure://container/…` or `swift://container/…`.
    :param endpoint_url: where a store answers that is not at its provider's address: S3-compatible ones, Swift.
    :param access: what `current_platform_access()` gives; where it has no keys for this kind of store, or is None, the
        SDK finds credentials by itself: environment, instance profile, metadata service.
    :param region: of S3; `AWS_REGION`, else us-east-1, where not given.
    :param patience: seconds for which a request that fails is tried again.
    :raises InvalidParameter: the URL is none of those.
    :raises NotSupported: it is, and cannot be used with what is given.
    """
    parts = _split(url)
    if parts.scheme == "file":
        from scalarizr.objectstore.files import FileStore

        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/") or ".." in parts.path.split("/"):
            raise _wrong(url)
        return FileStore(Path(parts.path))
    if not _BUCKET.fullmatch(parts.netloc):
        raise _wrong(url)
    from scalarizr.objectstore import providers
    from scalarizr.objectstore.remote import RemoteStore
    from scalarizr.objectstore.store import checked_directory

    access = access or {}
    prefix = checked_directory(parts.path.strip("/"))
    shown = f"{parts.scheme}://{parts.netloc}" + (f"/{prefix}" if prefix else "")
    given = providers.Given(
        bucket=parts.netloc,
        prefix=prefix or None,
        endpoint_url=_endpoint(endpoint_url),
        access=access,
        region=region,
        patience=min(max(patience, 0.1), _LONGEST_PATIENCE),
    )
    if parts.scheme == "swift" and not endpoint_url:
        raise NotSupported(
            f"{shown}: Swift is written to through its S3-compatible endpoint (s3api), whose address is not known. "
            "Nothing was changed; set [backup] endpoint_url to it, and give its EC2 credentials (key_id and key)."
        )
    return RemoteStore(
        providers.OPENERS[parts.scheme](given),
        shown,
        secrets=secrets_in(dict(access)),
        md5_etags=parts.scheme in ("s3", "swift"),
    )


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _wrong("") from None
    if (
        parts.scheme not in ("file", "s3", "gs", "azure", "swift")
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise _wrong(url)
    return parts


def _wrong(url: str) -> InvalidParameter:
    # Who writes credentials into the URL does not want them shown.
    return InvalidParameter("store", None if "@" in url or "?" in url else url[:200], _EXPECTED)


def _endpoint(url: str | None) -> str | None:
    if not url:
        return None
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        sound = False
    if not sound or parts.query or parts.fragment or "@" in parts.netloc:
        raise NotConfigured(
            "The store's endpoint_url is not of the form http(s)://host:port without credentials. Nothing was changed; "
            "set [backup] endpoint_url."
        )
    return url.rstrip("/")
