"""What Google's refusals mean, in the agent's own errors and without a word of the credentials."""

import re
from typing import Any

from scalarizr.errors import AlreadyExists, NotFound, OutsideFailure, PermissionRefused, Refused, ScalarizrError
from scalarizr.storage.provider import told

_PROVIDER = "Google Compute Engine"
# What the SDK puts before Google's words: the request, which tells nobody more.
_REQUEST = re.compile(r"^[A-Z]+ https?://\S+: ")
# Reasons of errors at once, and codes of operations that end in an error, by what they mean.
_MEANINGS: dict[str, type[ScalarizrError]] = {
    "notFound": NotFound,
    "RESOURCE_NOT_FOUND": NotFound,
    "alreadyExists": AlreadyExists,
    "RESOURCE_ALREADY_EXISTS": AlreadyExists,
    "resourceInUseByAnotherResource": Refused,
    "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE": Refused,
    "quotaExceeded": OutsideFailure,
    "QUOTA_EXCEEDED": OutsideFailure,
}
_STATUSES: dict[int, type[ScalarizrError]] = {
    401: PermissionRefused,
    403: PermissionRefused,
    404: NotFound,
    409: AlreadyExists,
}
_THROTTLED = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED"})


def passes(failure: Exception) -> bool:
    """Tell whether Google has only too much to do, and did nothing."""
    from google.api_core.exceptions import GoogleAPICallError

    if not isinstance(failure, GoogleAPICallError):
        return False
    return failure.code in (429, 503) or (failure.code == 403 and _reason(failure) in _THROTTLED)


def translated(failure: Exception, doing: str, left: str, account: str) -> ScalarizrError | None:
    """Give the error that a failure of the SDK is told as; None where it is none of the SDK's.

    :param doing: what was asked, such as `make the disk data`.
    :param left: how things are now, a sentence.
    :param account: the service account that asked.
    """
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    if isinstance(failure, GoogleAPICallError):
        reason = _reason(failure)
        status = failure.code if isinstance(failure.code, int) else 0
        kind = _MEANINGS.get(reason) or _STATUSES.get(status, OutsideFailure)
        return kind(
            f"{_PROVIDER} refused to {doing}{_who(account) if kind is PermissionRefused else ''}: "
            f"{told(_REQUEST.sub('', failure.message))}. {left}{_advice(kind, failure)}",
            {"status": status, "reason": reason or None},
        )
    if isinstance(failure, GoogleAuthError):
        return PermissionRefused(
            f"Google did not accept the credentials{_who(account)}, to {doing}: {told(failure)}. {left}"
        )
    if isinstance(failure, RequestException | OSError):
        # The words of a connection's failure name addresses and Python's objects, nothing that helps more.
        return OutsideFailure(
            f"{_PROVIDER} could not be reached to {doing} ({type(failure).__name__}). {left} Call again later."
        )
    return None


def of_operation(operation: Any, doing: str, left: str) -> ScalarizrError:
    """Give the error of an operation that Google took up and that ended badly."""
    first = operation.error.errors[0] if operation.error.errors else None
    code = first.code if first is not None else ""
    words = first.message if first is not None else operation.http_error_message
    # Its status says too little: a zone that is full is 403, too.
    kind = PermissionRefused if code == "PERMISSIONS_ERROR" else _MEANINGS.get(code, OutsideFailure)
    return kind(f"{_PROVIDER} could not {doing}: {told(words or code)}. {left}", {"reason": code or None})


def _who(account: str) -> str:
    return f" for the service account {account}" if account else " that it found for this server"


def _advice(kind: type[ScalarizrError], failure: Exception) -> str:
    if kind is OutsideFailure and passes(failure):
        return " It has too much to do: call again later."
    return ""


def _reason(failure: Any) -> str:
    for error in failure.errors or ():
        if isinstance(error, dict) and isinstance(error.get("reason"), str):
            return str(error["reason"])
    return ""
