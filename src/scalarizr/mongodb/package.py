"""Fetching the monitoring agent's package, from a file or over HTTP: within limits, and checked before it is opened."""

import contextlib
import hashlib
import hmac
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from scalarizr.errors import UNCHANGED, NotConfigured, NotFound, OutsideFailure, Refused, TimedOut
from scalarizr.settings.model import MonitoringAgent

LARGEST_PACKAGE = 512 << 20
_CHUNK = 1 << 16
# Seconds without a byte, and to the last one.
_SILENCE = 20.0
_WHOLE = 600.0
_DIGEST = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_SETTING = "[mongodb] monitoring_agent"


@contextlib.contextmanager
def fetched(setting: str | MonitoringAgent | None, directory: Path) -> Iterator[tuple[Path, str]]:
    """Have a private copy of the package while the block runs.

    :param setting: the file or URL of the settings, with its checksum; a URL is not accepted without.
    :param directory: where the copy is made.
    :return: the copy, and its SHA-256 in hex.
    :raises NotConfigured: the setting is absent or cannot be used.
    :raises NotFound: there is no such file.
    :raises Refused: the package is another one than the checksum says, or too large.
    :raises OutsideFailure: it cannot be read or fetched.
    :raises TimedOut: it did not come in time.
    """
    source, expected = _read(setting)
    path = directory / f".package.{os.getpid()}.{os.urandom(4).hex()}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as copy:
            digest = _copy(source, copy)
        if expected and not hmac.compare_digest(digest, expected.lower()):
            raise Refused(
                f"The package of the monitoring agent from {shown(source)} is not the one that the settings name: its "
                f"SHA-256 is {digest}. It was not opened. {UNCHANGED} Fetch it again, or correct {_SETTING}.",
                {"source": shown(source), "sha256": digest},
            )
        yield path, digest
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def shown(source: str) -> str:
    """Give a source without what may be secret in it: credentials, and what follows a question mark."""
    if not _is_url(source):
        return source
    split = urlsplit(source)
    return f"{split.scheme}://{split.netloc.rpartition('@')[2]}{split.path}"


def _read(setting: str | MonitoringAgent | None) -> tuple[str, str]:
    source, expected = (
        (setting, "") if isinstance(setting, str) else (setting.package, setting.sha256) if setting else ("", "")
    )
    if not source:
        raise NotConfigured(
            f"The setting {_SETTING} does not say where the monitoring agent's package is. {UNCHANGED} Set it to "
            '{ package = "a file or a URL", sha256 = "…" }.',
            {"setting": _SETTING},
        )
    if expected and not _DIGEST.fullmatch(expected):
        raise NotConfigured(
            f"The checksum in the setting {_SETTING} is no SHA-256: 64 hexadecimal digits. {UNCHANGED} Correct it.",
            {"setting": _SETTING},
        )
    if _is_url(source) and not expected:
        raise NotConfigured(
            f"The setting {_SETTING} names a URL and no checksum, so that anything might come from there. {UNCHANGED} "
            "Add its SHA-256: { package, sha256 }.",
            {"setting": _SETTING},
        )
    return source, expected


def _is_url(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def _copy(source: str, copy: IO[bytes]) -> str:
    deadline = time.monotonic() + _WHOLE
    digest, size = hashlib.sha256(), 0
    with _opened(source) as read:
        while chunk := read():
            size += len(chunk)
            if size > LARGEST_PACKAGE:
                raise Refused(
                    f"The package from {shown(source)} is larger than {LARGEST_PACKAGE >> 20} MiB, which no monitoring "
                    f"agent is. {UNCHANGED} Correct {_SETTING}.",
                    {"source": shown(source)},
                )
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"The package from {shown(source)} did not come within {_WHOLE:.0f} s. {UNCHANGED} Try again.",
                    {"source": shown(source), "limit": _WHOLE},
                )
            digest.update(chunk)
            copy.write(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def _opened(source: str) -> Iterator[Callable[[], bytes]]:
    """Give what reads the next bytes; none at the end."""
    if _is_url(source):
        with _answered(source) as read:
            yield read
        return
    path = Path(source)
    if not path.is_absolute() or not path.is_file():
        raise NotFound(
            f"{path} is no file, named by {_SETTING} with its whole path. {UNCHANGED} Put the package there.",
            {"path": str(path)},
        )
    with contextlib.ExitStack() as stack:
        file: IO[bytes] | None = None

        def read() -> bytes:
            nonlocal file
            try:
                if file is None:
                    file = stack.enter_context(open(path, "rb"))
                return file.read(_CHUNK)
            except OSError as error:
                raise OutsideFailure(
                    f"{path} cannot be read: {error.strerror}. {UNCHANGED} Correct its permissions.",
                    {"path": str(path)},
                ) from error

        yield read


@contextlib.contextmanager
def _answered(source: str) -> Iterator[Callable[[], bytes]]:
    from http.client import HTTPException
    from urllib.request import (
        HTTPDefaultErrorHandler,
        HTTPErrorProcessor,
        HTTPHandler,
        HTTPRedirectHandler,
        HTTPSHandler,
        OpenerDirector,
        ProxyHandler,
        Request,
    )

    # Of the library's handlers only those of HTTP: a redirection leads to no file and no other protocol.
    opener = OpenerDirector()
    for handler in (ProxyHandler, HTTPHandler, HTTPSHandler, HTTPDefaultErrorHandler, HTTPErrorProcessor):
        opener.add_handler(handler())
    opener.add_handler(HTTPRedirectHandler())
    try:
        request = Request(source, headers={"User-Agent": "scalarizr"})  # noqa: S310  it begins with http
        response = opener.open(request, timeout=_SILENCE)
    except (OSError, HTTPException, ValueError) as error:
        raise _not_fetched(source, error) from None
    if response is None:
        raise _not_fetched(source, ValueError("it leads to what is no HTTP"))

    def read() -> bytes:
        try:
            # What is there, and no more: one that sends a byte now and then would hold up a whole piece for days.
            return bytes(response.read1(_CHUNK))
        except (OSError, HTTPException) as error:
            raise _not_fetched(source, error) from None

    with response:
        yield read


def _not_fetched(source: str, error: Exception) -> OutsideFailure | TimedOut:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return TimedOut(
            f"{shown(source)} sent nothing for {_SILENCE:.0f} s. {UNCHANGED} Try again.",
            {"source": shown(source), "limit": _SILENCE},
        )
    code = getattr(error, "code", None)
    why = f"it answered {code}" if isinstance(code, int) else getattr(reason, "strerror", None) or type(error).__name__
    return OutsideFailure(
        f"The package cannot be fetched from {shown(source)}: {why}. {UNCHANGED} Correct {_SETTING}, or try again.",
        {"source": shown(source)},
    )
