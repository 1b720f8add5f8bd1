"""What a store said, in an error that may be read: classified, trimmed, without secrets."""

import re
from collections.abc import Sequence

from obstore import exceptions

from scalarizr.errors import NotFound, NotSupported, OutsideFailure, PermissionRefused, ScalarizrError, TimedOut
from scalarizr.secret import without

# A store may sign by query (Azure), and answers a wrong signature with what it would have signed.
_QUERY = re.compile(r"\?[^\s\"')]*")
_CODE = re.compile(r"<Code>([^<]{1,80})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,300})</Message>")
_STATUS = re.compile(r"\b(?:status|error)[: ]+([1-5][0-9]{2}\b[^:<\n]{0,40})", re.IGNORECASE)
_ANSWERED = re.compile(r"status code: ([1-5][0-9]{2})\b")
_ENDS = ("error sending request", "Connection refused", "timed out", "connection closed", "dns error")
_DENIED = (PermissionError, exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)


def failure(error: Exception, url: str, path: str, secrets: Sequence[str], *, left: str) -> Exception:
    """Translate what obstore raised; what is one of ours already, or no word of a store at all, is left as it is.

    :param left: what was left unchanged, as the beginning of a sentence.
    """
    if isinstance(error, ScalarizrError):
        return error
    # Of a listing that failed obstore does not say which kind of failure it was.
    answered = _ANSWERED.search(str(error)) if isinstance(error, exceptions.BaseError) else None
    status = answered.group(1) if answered is not None else ""
    if isinstance(error, FileNotFoundError) or status == "404":
        words = _said(str(error), secrets)
        if "NoSuchBucket" in words or "ContainerNotFound" in words or "bucket does not exist" in words:
            return NotFound(f"{url} does not exist: {words}. {left}; make the bucket, or name another.")
        return NotFound(f"There is no {path} in {url}.", {"path": path})
    if status in ("401", "403") or isinstance(error, _DENIED):
        return PermissionRefused(
            f"{url} refuses these credentials for {path}: {_said(str(error), secrets)}. {left}; check the credentials "
            "and what they may do."
        )
    if isinstance(error, exceptions.NotSupportedError):
        return NotSupported(f"{url} cannot do that: {_said(str(error), secrets)}. {left}.")
    if isinstance(error, exceptions.BaseError | OSError):
        words = _said(str(error), secrets)
        kind = TimedOut if "timed out" in words else OutsideFailure
        return kind(
            f"{url} failed, and failed again when tried again, at {path}: {words}. {left}; try again when the "
            "store is well."
        )
    return error


def _said(text: str, secrets: Sequence[str]) -> str:
    """Give the part of obstore's words that a person needs."""
    code, message, status = _CODE.search(text), _MESSAGE.search(text), _STATUS.search(text)
    if code is not None:
        said = f"{code.group(1)}" + (f", {message.group(1).rstrip('. ')}" if message is not None else "")
    elif status is not None:
        said = status.group(1).strip()
    else:
        lowered = text.lower()
        known = [words for words in _ENDS if words.lower() in lowered]
        said = ", ".join(known) if known else text.split("\n", 1)[0]
    said = " ".join(_QUERY.sub("", without(said, secrets)).split())
    return said if len(said) <= 300 else said[:300] + "…"
