"""What the volumes of every cloud need: patience with a provider that has too much to do, the instance's metadata."""

import http.client
import random
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

from scalarizr.errors import InvalidParameter, NotConfigured, NotSupported, PermissionRefused, ScalarizrError
from scalarizr.operations.progress import current
from scalarizr.platform_access import PlatformAccess, current_platform_access
from scalarizr.secret import without

T = TypeVar("T")
# Seconds in which a call is made again where the provider has too much to do.
PATIENCE = 60.0
# A provider's own words are told, not whole pages of them.
_WORDS = 400
_LARGEST_METADATA = 1 << 18


def sdk(module: str, provider: str, extra: str) -> Any:
    """Import a provider's SDK: in the worker that needs it, never when the agent starts.

    :param module: its name, or that of a part.
    :param provider: for the error.
    :param extra: the extra of this package that installs it.
    :raises NotSupported: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise NotSupported(
            f"The SDK of {provider} is not installed ({error}). Nothing was changed; install `scalarizr[{extra}]`."
        ) from error


class Closes(Protocol):
    """Something that holds connections."""

    def close(self) -> None:
        """Let them go."""


Closing = TypeVar("Closing", bound=Closes)


class OfRequest(Generic[Closing]):
    """Something made with the credentials of one request, and made anew for the next: they are never mixed up.

    :param make: makes it, from `current_platform_access()`.
    """

    def __init__(self, make: Callable[[], Closing]) -> None:
        self._make = make
        self._made: tuple[PlatformAccess | None, Closing] | None = None

    def get(self) -> Closing:
        """Give that of the present request."""
        access = current_platform_access()
        if self._made is None or self._made[0] is not access:
            self.close()
            self._made = (access, self._make())
        return self._made[1]

    def close(self) -> None:
        """Close what there is."""
        if self._made is not None:
            self._made[1].close()
            self._made = None


def patiently(call: Callable[[], T], passes: Callable[[Exception], bool], limit: float = PATIENCE) -> T:
    """Make a call again and again while the provider says that it has too much to do.

    :param passes: tells whether a failure is such, and nothing was done.
    :param limit: seconds, after which the last failure is raised.
    """
    deadline = time.monotonic() + limit
    pause = 0.25
    while True:
        try:
            return call()
        except Exception as failure:
            if not passes(failure) or time.monotonic() + pause > deadline:
                raise
        current().log(f"the provider has too much to do; trying again in {pause:.1f} s")
        # Apart from one another: a fleet that was refused together does not come again together.
        time.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311
        pause = min(pause * 2, 8.0)


def answered(
    call: Callable[[], T],
    passes: Callable[[Exception], bool],
    translated: Callable[[Exception], ScalarizrError | None],
    limit: float = PATIENCE,
) -> T:
    """Make a call of an SDK, patiently, and have its failures as errors of ours.

    :param passes: as `patiently` takes it.
    :param translated: gives the error for a failure of the SDK's; None where it is no such failure.
    :param limit: seconds, as of `patiently`.
    """
    try:
        return patiently(call, passes, limit)
    except ScalarizrError:
        raise
    except Exception as failure:
        error = translated(failure)
        if error is None:
            raise
        raise error from None


def unless_so(ask: Callable[[], None], so: Callable[[], bool]) -> None:
    """Ask for something; a refusal counts only where it is not so: a try whose answer was lost may have done it."""
    try:
        ask()
    except ScalarizrError:
        if not so():
            raise


def until_accepted(action: Callable[[], None], limit: float = PATIENCE) -> None:
    """Do something again and again where it is refused: what was cut off here may still be at work at the provider.

    :param limit: seconds, after which the last refusal is raised.
    """
    deadline = time.monotonic() + limit
    while True:
        try:
            return action()
        except (PermissionRefused, NotConfigured, InvalidParameter):
            raise
        except ScalarizrError:
            if time.monotonic() > deadline:
                raise
        time.sleep(1.0)


def told(words: object, *secrets: str) -> str:
    """Give a provider's own words for an error: without the credentials of the call, on one line, short, no full stop.

    :param secrets: further texts that must not be seen.
    """
    access = current_platform_access()
    text = without(" ".join(str(words).split()), [*(access.texts() if access is not None else []), *secrets])
    return text[:_WORDS].rstrip(" .") or "it gave no reason"


def instance_metadata(url: str, path: str, headers: Mapping[str, str] | None = None, limit: float = 3.0) -> str | None:
    """Ask the service that tells an instance what it is.

    :param url: of the service, without a path; never through a proxy, and no redirection is followed.
    :param path: what is asked for.
    :param limit: seconds for each step.
    :return: its answer, stripped; None where it does not answer, or not with what was asked for.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        return None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=limit)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        answer = connection.getresponse()
        text = answer.read(_LARGEST_METADATA).decode("utf-8", "replace").strip()
        return text if answer.status == 200 and text else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def not_known(what: str, section: str, key: str, url: str) -> NotConfigured:
    """Give the error for what neither the settings nor the metadata service tell."""
    return NotConfigured(
        f"It is not known {what}: the instance metadata service at {url} does not tell, and [{section}] {key} is not "
        "set. Nothing was changed; set it where this server has no such service.",
        {"setting": f"{section}.{key}"},
    )
