"""Which agent a command speaks to: the options that all such commands share, and the errors that end them."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import click

from scalarizr.client import (
    AgentError,
    AuthenticationFailed,
    CertificateUnusable,
    Client,
    ClientError,
    Unreachable,
)
from scalarizr.envelope.keyring import key_file, keys_directory
from scalarizr.settings.address import read_address
from scalarizr.settings.key_id import DEFAULT, EXPECTED, is_key_id
from scalarizr.settings.load import BadSettings, default_etc, load_settings
from scalarizr.settings.model import Settings

_FILE = click.Path(path_type=Path)
ANSWERED_WITH_ERROR, USAGE, UNREACHABLE, UNAUTHENTICATED = 1, 2, 3, 4


class Target(NamedTuple):
    """An agent, and how to speak to it.

    :ivar etc: the configuration directory that the defaults come from.
    :ivar url: where it is; None: the local one.
    :ivar key: the key's file; None: the local one's.
    :ivar key_id: the id that the agent knows the key by; None for its default key.
    :ivar ca: for https, the file of the issuers that are believed; None: the system's.
    :ivar certificate: for https, the file of the client's certificate.
    :ivar certificate_key: the file of its key.
    :ivar envelope: `sealed` or `founding`.
    :ivar timeout: seconds for one call.
    """

    etc: Path
    url: str | None
    key: Path | None
    key_id: str | None
    ca: Path | None
    certificate: Path | None
    certificate_key: Path | None
    envelope: str
    timeout: float


def chosen_etc(context: click.Context) -> Path:
    """Give the configuration directory that stands before the command's name, else the default one."""
    return Path(context.obj or default_etc())


def etc_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option `--etc`, which may also stand before its name."""

    def chosen(context: click.Context, _parameter: click.Parameter, value: str | None) -> Path:
        return Path(value) if value else chosen_etc(context)

    option = click.option(
        "--etc", metavar="DIR", callback=chosen, help="Configuration directory ($SCALARIZR_ETC, else /etc/scalr)."
    )
    return option(function)


def target_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that name an agent; it receives a `target`."""

    def wrapped(
        *arguments: Any,
        etc: Path,
        url: str | None,
        key: str | None,
        key_id: str | None,
        ca: Path | None,
        certificate: Path | None,
        certificate_key: Path | None,
        envelope: str,
        timeout: float,
        **options: Any,
    ) -> Any:
        target = Target(
            etc, url, Path(key) if key else None, key_id, ca, certificate, certificate_key, envelope, timeout
        )
        return function(*arguments, target=target, **options)

    wrapped.__name__ = function.__name__
    wrapped.__doc__ = function.__doc__
    wrapped.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    for option in (
        click.option(
            "--timeout", type=click.FloatRange(min=0.1), default=150.0, metavar="SECONDS", help="For one call."
        ),
        click.option("--envelope", type=click.Choice(["sealed", "founding"]), default="sealed", show_default=True),
        click.option("--certificate-key", type=_FILE, metavar="FILE", help="Its key; in the same file when not given."),
        click.option("--certificate", type=_FILE, metavar="FILE", help="For https: this client's certificate."),
        click.option(
            "--ca", type=_FILE, metavar="FILE", help="For https: who is believed; the system's issuers if not."
        ),
        click.option("--key-id", metavar="ID", help="The id of the key; the agent's default key when not given."),
        click.option("--key", metavar="FILE", help="Its key; the local one's when not given."),
        click.option("--url", metavar="URL", help="Where the agent is; the local one when not given."),
        etc_option,
    ):
        wrapped = option(wrapped)
    return wrapped


def local_url(settings: Settings) -> str:
    """Give the URL under which the agent with these settings is reached from its own machine."""
    listen = settings.api.listen
    host, port = read_address(listen if isinstance(listen, str) else listen[0])
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _local_key(settings: Settings, target: Target) -> Path:
    default = settings.paths.key
    assert default is not None
    identity = target.key_id or DEFAULT
    if not is_key_id(identity):
        fail(USAGE, f"{identity!r} is no id of a key: {EXPECTED}.")
    return key_file(keys_directory(target.etc), default, identity)


def _key_advice(error: ClientError) -> str:
    if isinstance(error.__cause__, PermissionError):
        return "The key is readable by root alone: sudo may be needed, or --key or --etc."
    if isinstance(error.__cause__, FileNotFoundError):
        return "Is this the agent's directory? --etc names another, --key a key; `scalarizr init` makes both."
    return "--key names another one."


@contextlib.contextmanager
def connected(target: Target) -> Iterator[Client]:
    """Give a client, and end the program where a call of it fails: with a paragraph, and the status that says why."""
    try:
        url, key = target.url, target.key
        if url is None or key is None:
            settings = load_settings(target.etc)
            url = url or local_url(settings)
            key = key or _local_key(settings, target)
        try:
            client = Client(
                url,
                key_file=key,
                key_id=target.key_id,
                ca=target.ca,
                certificate=target.certificate,
                certificate_key=target.certificate_key,
                envelope=target.envelope,
                timeout=target.timeout,
            )
        except CertificateUnusable as error:
            fail(UNAUTHENTICATED, str(error))
        except ClientError as error:
            fail(UNAUTHENTICATED, f"{error} {_key_advice(error)}")
        except ValueError as error:
            fail(USAGE, f"{error}.")
        with client:
            yield client
    except BadSettings as error:
        fail(USAGE, str(error))
    except AgentError as error:
        fail(ANSWERED_WITH_ERROR, explained(error))
    except AuthenticationFailed as error:
        fail(UNAUTHENTICATED, str(error))
    except Unreachable as error:
        local = "" if target.url else " Is it running? `scalarizr serve` starts it, `scalarizr doctor` looks closer."
        fail(UNREACHABLE, f"{error}{local}")
    except ClientError as error:
        fail(UNREACHABLE, str(error))


def explained(error: AgentError) -> str:
    """Put an agent's error into one paragraph."""
    facts = error.data if isinstance(error.data, dict) else {}
    if error.code == -32602 and "parameter" in facts:
        came = f"got {facts['got']}, " if facts.get("got") is not None else ""
        return f"{facts['parameter']}: {came}expected {facts['expected']}. Nothing was changed."
    if error.code == -32601 and "method" in facts:
        near = f" Did you mean {facts['nearest']}?" if facts.get("nearest") else ""
        return f"The agent has no method {facts['method']}.{near}"
    if error.code == -32099 and "namespaces" in facts:
        import difflib

        close = difflib.get_close_matches(str(facts["namespace"]), facts["namespaces"], 1)
        near = f" Did you mean {close[0]}?" if close else ""
        return (
            f"The agent has no namespace {facts['namespace']}.{near} There are "
            f"{', '.join(str(name) for name in facts['namespaces'])}."
        )
    if error.code == -32600 and "reason" in facts:
        return f"The agent takes this for no request: {facts['reason']}."
    return str(error)


def fail(status: int, paragraph: str) -> NoReturn:
    """Print why a command ends, and end it."""
    click.echo(paragraph, err=True)
    sys.exit(status)
