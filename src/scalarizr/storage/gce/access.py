"""Who asks Google: the service account of a request's `_platform_access_data`, else what the SDK finds by itself."""

import re
from collections.abc import Mapping
from typing import Any

from scalarizr.errors import InvalidParameter, NotConfigured
from scalarizr.objectstore.access import TOKEN_URI, account_in_json_key, private_key_pem, revealed_text
from scalarizr.platform_access import current_platform_access
from scalarizr.secret import revealed
from scalarizr.storage.provider import sdk, told

_SCOPES = ("https://www.googleapis.com/auth/compute",)
_PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]{0,127}", re.ASCII)


class Access:
    """Credentials for one call.

    :ivar credentials: google-auth's object.
    :ivar project: the project that the credentials name; None where they name none.
    :ivar account: the service account, for errors; empty where the SDK found the credentials.
    """

    def __init__(self) -> None:
        data: Mapping[str, Any] = current_platform_access() or {}
        account = _service_account(data)
        named = revealed_text(data, "project_id") or (account or {}).get("project_id")
        if named is not None and not _PROJECT.fullmatch(named):
            raise InvalidParameter("_platform_access_data.project_id", None, "the id of a project")
        self.project = named
        if account is None:
            self.account = ""
            self.credentials, found = _found_by_the_sdk()
            self.project = self.project or found
            return
        self.account = account["client_email"]
        self.credentials = _credentials_of(account)


def google(module: str) -> Any:
    """Import a part of Google's SDK.

    :raises NotSupported: it is not installed.
    """
    return sdk(module, "Google Compute Engine", "gce")


def _service_account(data: Mapping[str, Any]) -> dict[str, str] | None:
    """Give name and key of a service account; None where the request brought none."""
    given = revealed(data.get("json_key"))
    if given:
        return account_in_json_key(given)
    name, key = revealed_text(data, "service_account_name"), revealed_text(data, "key")
    if name is None and key is None:
        return None
    if name is None or key is None:
        missing = "service_account_name" if name is None else "key"
        raise InvalidParameter(
            f"_platform_access_data.{missing}", None, "the name of a service account and its private key, both"
        )
    return {"client_email": name, "private_key": private_key_pem(key)}


def _credentials_of(account: dict[str, str]) -> Any:
    service_account = google("google.oauth2.service_account")
    try:
        return service_account.Credentials.from_service_account_info(
            {**account, "token_uri": TOKEN_URI}, scopes=_SCOPES
        )
    except ValueError:
        # Its words may quote the key.
        raise InvalidParameter(
            "_platform_access_data", None, "a service account's private key that can be read (RSA, PEM or PKCS#12)"
        ) from None


def _found_by_the_sdk() -> tuple[Any, str | None]:
    auth = google("google.auth")
    from google.auth.exceptions import DefaultCredentialsError

    try:
        credentials, project = auth.default(scopes=_SCOPES)
    except DefaultCredentialsError as error:
        raise NotConfigured(
            "There are no Google credentials: the call has no _platform_access_data, and this server has no service "
            f"account ({told(error)}). Nothing was changed."
        ) from None
    return credentials, project
