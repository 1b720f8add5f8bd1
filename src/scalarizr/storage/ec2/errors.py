"""What EC2 and its SDK say of a failure, in the agent's errors: translated here, once, without any credential in it."""

from collections.abc import Sequence
from typing import Any

from scalarizr.errors import (
    Busy,
    InvalidParameter,
    NotConfigured,
    NotFound,
    NotSupported,
    OutsideFailure,
    PermissionRefused,
    Refused,
    ScalarizrError,
    TimedOut,
)
from scalarizr.secret import without

# The codes are those of https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
THROTTLED = {
    "BandwidthLimitExceeded",
    "RequestLimitExceeded",
    "RequestThrottled",
    "SnapshotCreationPerVolumeRateExceeded",
    "Throttling",
    "ThrottlingException",
}
NO_ANSWER = "NoAnswer"
_PASSING = {"InternalError", "InternalFailure", "NoAnswer", "ServiceUnavailable", "Unavailable"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_NOT_ACCEPTED = {
    "AuthFailure",
    "Blocked",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "MissingAuthenticationToken",
    "OptInRequired",
    "PendingVerification",
    "SignatureDoesNotMatch",
    "UnauthorizedClient",
    "UnrecognizedClientException",
}
_NOT_ALLOWED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
_NO_ROOM = {"InsufficientCapacity", "InsufficientInstanceCapacity", "InsufficientVolumeCapacity"}
_QUOTAS = {
    "ConcurrentSnapshotLimitExceeded",
    "MaxIOPSLimitExceeded",
    "PendingSnapshotLimitExceeded",
    "ResourceLimitExceeded",
    "SnapshotLimitExceeded",
    "TagLimitExceeded",
    "VolumeLimitExceeded",
    "VolumeIOPSLimit",
}
_NOT_HERE = {"Unsupported", "UnsupportedOperation", "UnsupportedHibernationConfiguration", "InvalidInstanceType"}
_VALUES = {"InvalidInput", "MissingParameter", "UnknownParameter", "UnknownVolumeType.Unsupported", "ValidationError"}
_VALUES_BEGIN = ("InvalidKmsKey", "InvalidParameter", "InvalidSnapshot.", "InvalidTag")
_LONGEST = 400


def translated(error: Exception, doing: str, secrets: Sequence[str]) -> ScalarizrError:
    """Make the agent's error of one of botocore's.

    :param error: a `ClientError` or a `BotoCoreError`.
    :param doing: what EC2 was asked for, as in "make the volume".
    :param secrets: texts that are masked in EC2's words.
    :return: with the fact `aws_code` where EC2 answered.
    """
    response: dict[str, Any] = getattr(error, "response", None) or {}
    told = response.get("Error")
    if not isinstance(told, dict):
        return _of_the_sdk(error, doing, secrets)
    code = str(told.get("Code") or "unknown")
    failure = _of_ec2(code, _words(str(told.get("Message") or ""), secrets), doing)
    failure.facts["aws_code"] = code
    return failure


def code_of(failure: ScalarizrError) -> str:
    """Give EC2's own code of a translated error."""
    return str(failure.facts.get("aws_code", ""))


def may_pass(failure: ScalarizrError) -> bool:
    """Tell whether it was EC2's moment, not what it was asked for."""
    return code_of(failure) in THROTTLED or code_of(failure) in _PASSING


def _words(text: str, secrets: Sequence[str]) -> str:
    # What follows is a kilobyte that only sts:DecodeAuthorizationMessage reads.
    text = text.partition("Encoded authorization failure message")[0].strip()
    text = without(text, secrets).rstrip(".") or "no reason was given"
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _of_ec2(code: str, words: str, doing: str) -> ScalarizrError:
    said = f"EC2 did not {doing}: {words} ({code})."
    if code in _EXPIRED:
        return PermissionRefused(
            f"{said} The credentials have expired, or this server's clock is wrong. Call again with new ones."
        )
    if code in _NOT_ACCEPTED:
        return PermissionRefused(
            f"{said} The credentials are not accepted: look at `key_id`, `key` and `session_token` of "
            "_platform_access_data, or at the instance's role."
        )
    if code in _NOT_ALLOWED:
        return PermissionRefused(f"{said} The credentials do not allow it: their policy has to.")
    if code in THROTTLED:
        return OutsideFailure(f"{said} It was asked again and again for minutes. Try again later.")
    if code == "AttachmentLimitExceeded":
        return NotSupported(
            f"{said} This instance can hold no more volumes: detach one, or take an instance type that holds more."
        )
    if code in _NO_ROOM:
        return OutsideFailure(
            f"{said} The availability zone has no room for it now. Try again later, or elsewhere, or another type."
        )
    if code in _QUOTAS or code.endswith("LimitExceeded"):
        return OutsideFailure(f"{said} It is a quota of the account: have it raised, or delete what is not needed.")
    if code == "VolumeModificationRateExceeded" or "maximum modification rate" in words:
        return OutsideFailure(
            f"{said} A volume can be modified again only hours after its last modification (EBS has 6 h as a rule). "
            "It is as it was; try again then."
        )
    if code == "IncorrectModificationState":
        return Busy(f"{said} Its last modification is still under way. It is as it was; try again later.")
    if code == "VolumeInUse":
        return Refused(f"{said} Nothing was changed; detach it first.")
    if code == "InvalidSnapshot.InUse":
        return Refused(f"{said} Nothing was changed; what uses it has to go first.")
    if code == "InvalidZone.NotFound":
        return InvalidParameter("avail_zone", None, f"an availability zone of the region; EC2 said: {words}")
    if code == "InvalidVolume.ZoneMismatch":
        return NotSupported(f"{said} A volume is attached in its own availability zone only. Nothing was changed.")
    if code.endswith(".NotFound"):
        return NotFound(f"{said} Nothing was changed.")
    if code in _NOT_HERE:
        return NotSupported(f"{said} Nothing was changed.")
    if _is_about_a_value(code):
        return InvalidParameter("volume", None, f"what EC2 accepts; it did not {doing}: {words} ({code})")
    return OutsideFailure(said)


def _is_about_a_value(code: str) -> bool:
    return code in _VALUES or code.endswith(".Malformed") or code.startswith(_VALUES_BEGIN)


def _of_the_sdk(error: Exception, doing: str, secrets: Sequence[str]) -> ScalarizrError:
    """Translate what the SDK itself found; by its class's name, for the SDK is not imported here."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    words = _words(str(error), secrets)
    if kinds & {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"}:
        return NotConfigured(
            f"There are no credentials with which EC2 could be asked to {doing}: {words}. Nothing was changed; send "
            "`key_id` and `key` in _platform_access_data, or give the instance a role."
        )
    if kinds & {"CredentialRetrievalError", "MetadataRetrievalError", "UnauthorizedSSOTokenError"}:
        return PermissionRefused(f"The instance's credentials could not be had: {words}. Nothing was changed.")
    if "ParamValidationError" in kinds:
        return InvalidParameter("volume", None, f"what EC2 accepts: {words}")
    facts = {"aws_code": NO_ANSWER}
    if "ReadTimeoutError" in kinds:
        return TimedOut(f"EC2 was asked to {doing} and did not answer in time.", facts)
    return OutsideFailure(f"EC2 could not be asked to {doing}: {words}.", facts)
