"""What OpenStack's refusals mean, in the agent's own errors and without a word of the credentials."""

import json
from typing import Any

from scalarizr.errors import Busy, NotFound, OutsideFailure, PermissionRefused, Refused, ScalarizrError
from scalarizr.storage.provider import told

_STATUSES: dict[int, type[ScalarizrError]] = {
    401: PermissionRefused,
    403: PermissionRefused,
    404: NotFound,
    409: Busy,
}


def passes(failure: Exception) -> bool:
    """Tell whether the cloud has only too much to do."""
    return _status(failure) in (429, 503)


def translated(failure: Exception, doing: str, left: str) -> ScalarizrError | None:
    """Give the error that a failure of the SDK is told as; None where it is none of the SDK's.

    :param doing: what was asked, such as `make a volume`.
    :param left: how things are now, a sentence.
    """
    from keystoneauth1.exceptions import ClientException
    from openstack.exceptions import HttpException, SDKException
    from requests.exceptions import RequestException

    status = _status(failure)
    if isinstance(failure, HttpException) and status:
        kind = _kind(status, _words(failure))
        return kind(
            f"OpenStack refused to {doing}: {told(_words(failure))}. {left}{_advice(failure)}", {"status": status}
        )
    if isinstance(failure, ClientException):
        if status in (401, 403):
            return PermissionRefused(f"Keystone did not accept the credentials, to {doing}: {told(failure)}. {left}")
        # Behind that stand Python's names of what failed, which help nobody.
        words = str(failure).partition(": HTTP")[0]
        return OutsideFailure(f"OpenStack could not be asked to {doing}: {told(words)}. {left}{_advice(failure)}")
    if isinstance(failure, SDKException):
        return OutsideFailure(f"OpenStack could not be asked to {doing}: {told(failure)}. {left}")
    if isinstance(failure, RequestException | OSError):
        return OutsideFailure(f"OpenStack could not be reached to {doing} ({type(failure).__name__}). {left}")
    return None


def _kind(status: int, words: str) -> type[ScalarizrError]:
    if status == 403 and "quota" in words.lower():
        return OutsideFailure  # Nova's way to say it; Cinder's is 413
    if status == 400 and ("in use" in words.lower() or "dependent" in words.lower() or "must be available" in words):
        return Refused
    return _STATUSES.get(status, OutsideFailure)


def _advice(failure: Exception) -> str:
    return " It has too much to do: call again later." if passes(failure) else ""


def _status(failure: Any) -> int:
    for name in ("status_code", "http_status"):
        status = getattr(failure, name, None)
        if isinstance(status, int):
            return status
    return 0


def _words(failure: Any) -> str:
    """Give the cloud's own words: `{"badRequest": {"message": …}}`, or what the SDK took out of that."""
    details = failure.details or failure.message
    try:
        found = json.loads(details)
    except (TypeError, ValueError):
        return str(details)
    for value in found.values() if isinstance(found, dict) else ():
        if isinstance(value, dict) and isinstance(value.get("message"), str):
            return str(value["message"])
    return str(details)
