"""Who asks CloudStack: the keys of a request's `_platform_access_data`, else what the SDK finds by itself."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from scalarizr.errors import InvalidParameter, NotConfigured
from scalarizr.objectstore.access import revealed_text
from scalarizr.platform_access import current_platform_access
from scalarizr.storage.provider import sdk

# Seconds for one request.
_REQUEST = 30


def connect() -> Any:
    """Give the SDK's client; nothing is asked yet. Requests are posted: addresses, and so logs, hold no key.

    :raises InvalidParameter: the credentials are not whole.
    :raises NotConfigured: there are none.
    """
    cs = sdk("cs", "CloudStack", "cloudstack")
    data: Mapping[str, Any] = current_platform_access() or {}
    url = revealed_text(data, "api_url")
    if url is None:
        return cs.CloudStack(**_found_by_the_sdk(cs))
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise InvalidParameter("_platform_access_data.api_url", None, "an http or https URL")
    return cs.CloudStack(
        endpoint=url,
        key=_needed(data, "api_key"),
        secret=_needed(data, "secret_key"),
        method="post",
        timeout=_REQUEST,
    )


def _needed(data: Mapping[str, Any], name: str) -> str:
    text = revealed_text(data, name)
    if text is None:
        raise InvalidParameter(f"_platform_access_data.{name}", None, f"{name}, beside api_url")
    return text


def _found_by_the_sdk(cs: Any) -> dict[str, Any]:
    try:
        found = cs.read_config()
    except (SystemExit, KeyError, OSError):  # it ends programs that have no configuration
        found = {}
    if not all(found.get(name) for name in ("endpoint", "key", "secret")):
        raise NotConfigured(
            "There are no CloudStack credentials: the call has no _platform_access_data, and neither the environment "
            "nor a cloudstack.ini of this server has any. Nothing was changed."
        )
    return {**{name: found[name] for name in ("endpoint", "key", "secret")}, "method": "post", "timeout": _REQUEST}
