"""Who asks an OpenStack cloud: the user of a request's `_platform_access_data`, else what the SDK finds by itself."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from scalarizr.errors import InvalidParameter, NotConfigured
from scalarizr.objectstore.access import revealed_text
from scalarizr.platform_access import current_platform_access
from scalarizr.storage.provider import sdk, told

_NAME = "scalarizr"
# Seconds for one request.
_REQUEST = 30
# Keystone has had no version 2 since 2018; what control planes still send as its address leads to version 3.
_VERSION = re.compile(r"(?:/v(?:2\.0|3)(?:/(?:tokens|auth/tokens))?)?/*\Z", re.ASCII)
_NO = frozenset({"0", "false", "no", "off"})


def connect() -> Any:
    """Give the SDK's connection; nothing is asked yet.

    :raises InvalidParameter: the credentials are not whole.
    :raises NotConfigured: there are none.
    """
    data: Mapping[str, Any] = current_platform_access() or {}
    url = revealed_text(data, "keystone_url")
    if url is None:
        return _found_by_the_sdk(revealed_text(data, "cloud_location"))
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise InvalidParameter("_platform_access_data.keystone_url", None, "an http or https URL")
    auth = {
        "auth_url": _VERSION.sub("/v3", url, count=1),
        "username": _needed(data, "username"),
        "password": revealed_text(data, "password") or _needed(data, "api_key", "password or api_key"),
        "project_name": _needed(data, "tenant_name"),
        **_domain(revealed_text(data, "domain_name")),
    }
    return _connect(
        load_yaml_config=False,
        load_envvars=False,
        # Not the plugin that looks for the version itself: it waits for itself for ever where Keystone's root asks for
        # a password (keystoneauth1 5.18).
        auth_type="v3password",
        auth=auth,
        region_name=revealed_text(data, "cloud_location"),
        verify=_verifies(data),
    )


def _connect(**options: Any) -> Any:
    openstack = sdk("openstack", "OpenStack", "openstack")
    return openstack.connect(app_name=_NAME, api_timeout=_REQUEST, **options)


def _domain(name: str | None) -> dict[str, str]:
    # Every Keystone has the domain with the id `default`.
    key, value = ("name", name) if name is not None else ("id", "default")
    return {f"user_domain_{key}": value, f"project_domain_{key}": value}


def _verifies(data: Mapping[str, Any]) -> bool:
    """Tell whether certificates are verified: unless the request says in so many words that they are not."""
    value = data.get("ssl_verify_peer")
    text = revealed_text(data, "ssl_verify_peer")
    return not (value is False or value == 0 or (text is not None and text.lower() in _NO))


def _needed(data: Mapping[str, Any], name: str, words: str | None = None) -> str:
    text = revealed_text(data, name)
    if text is None:
        raise InvalidParameter(f"_platform_access_data.{name}", None, f"{words or name}, beside keystone_url")
    return text


def _found_by_the_sdk(region: str | None) -> Any:
    sdk("openstack", "OpenStack", "openstack")
    from keystoneauth1.exceptions import ClientException
    from openstack.exceptions import SDKException

    try:
        return _connect(region_name=region)
    except (SDKException, ClientException, ValueError) as error:
        raise NotConfigured(
            "There are no OpenStack credentials: the call has no _platform_access_data, and neither the environment "
            f"nor a clouds.yaml of this server has any ({told(error)}). Nothing was changed."
        ) from None
