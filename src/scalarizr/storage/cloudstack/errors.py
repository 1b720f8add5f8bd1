"""What CloudStack's refusals mean, in the agent's own errors and without a word of the credentials."""

from typing import Any

from scalarizr.errors import Busy, NotFound, OutsideFailure, PermissionRefused, ScalarizrError
from scalarizr.storage.provider import told

# CloudStack's own codes (ApiErrorCode); those of parameters are told apart by their words.
_CODES: dict[int, type[ScalarizrError]] = {
    401: PermissionRefused,
    531: PermissionRefused,
    532: PermissionRefused,
    536: Busy,
}
_NO_SUCH = ("entity does not exist", "unable to find", "does not exist")


def passes(failure: Exception) -> bool:
    """Tell whether CloudStack has only too much to do."""
    response = getattr(failure, "response", None)
    return getattr(response, "status_code", None) in (429, 503)


def translated(failure: Exception, doing: str, left: str) -> ScalarizrError | None:
    """Give the error that a failure of the SDK is told as; None where it is none of the SDK's.

    :param doing: what was asked, such as `make a volume`.
    :param left: how things are now, a sentence.
    """
    from cs import CloudStackApiException, CloudStackException
    from requests.exceptions import RequestException

    if isinstance(failure, CloudStackApiException):
        return of_error(failure.error, doing, left, throttled=passes(failure))
    if isinstance(failure, CloudStackException):
        status = getattr(failure.response, "status_code", 0)
        kind = PermissionRefused if status in (401, 403) else OutsideFailure
        return kind(
            f"CloudStack could not be asked to {doing}: it answered with HTTP {status}. {left}{_advice(failure)}"
        )
    if isinstance(failure, RequestException | OSError):
        return OutsideFailure(f"CloudStack could not be reached to {doing} ({type(failure).__name__}). {left}")
    return None


def of_error(error: Any, doing: str, left: str, *, throttled: bool = False) -> ScalarizrError:
    """Give the error of what CloudStack answered, at once or as a job's result."""
    found = error if isinstance(error, dict) else {}
    code = found.get("errorcode")
    words = str(found.get("errortext") or error)
    kind = _CODES.get(code, OutsideFailure) if isinstance(code, int) else OutsideFailure
    if code in (431, 530) and any(part in words.lower() for part in _NO_SUCH):
        kind = NotFound
    advice = " It has too much to do: call again later." if throttled else ""
    return kind(
        f"CloudStack refused to {doing}: {told(words)}. {left}{advice}",
        {"errorcode": code if isinstance(code, int) else None},
    )


def _advice(failure: Exception) -> str:
    return " It has too much to do: call again later." if passes(failure) else ""
