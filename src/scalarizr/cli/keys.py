"""`scalarizr key`: who may call this server's agent, and what."""

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from scalarizr.cli.key_files import KeyFiles, kinds_of, problem_of
from scalarizr.cli.output import colours, for_people, moment, print_json
from scalarizr.cli.running_agent import put_in_force
from scalarizr.cli.target import USAGE, chosen_etc, etc_option, fail
from scalarizr.errors import InvalidParameter, ScalarizrError
from scalarizr.settings.key_id import DEFAULT
from scalarizr.settings.key_rules import READ_ONLY, KeyRules
from scalarizr.settings.load import BadSettings, load_settings
from scalarizr.settings.quantities import Seconds

_LONGEST = 365 * 86400.0


class _Duration(click.ParamType):  # type: ignore[type-arg]
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            read = float(Seconds.parse(float(value) if re.fullmatch(r"[0-9.]+", str(value)) else value))
        except ValueError as error:
            self.fail(f"{value!r}: expected {error}", param, ctx)
        if read > _LONGEST:
            self.fail(f"{value!r}: expected 365 d at most", param, ctx)
        return read


class _Moment(click.ParamType):  # type: ignore[type-arg]
    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            if re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
                read = datetime.fromisoformat(value)
                return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
            return datetime.fromtimestamp(time.time() + Seconds.parse(value), UTC).timestamp()
        except (ValueError, OverflowError):
            self.fail(f'{value!r}: expected 2027-01-31, 2027-01-31T12:00:00Z, or from now on "90 d"', param, ctx)


@click.group(invoke_without_command=True)
@click.pass_context
def key(context: click.Context) -> None:
    """Show, make, renew and revoke the keys of this server. Without a command: list them."""
    if context.invoked_subcommand is None:
        context.invoke(list_keys, etc=chosen_etc(context))


@key.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on a terminal, too.")
@etc_option
def list_keys(etc: Path, as_json: bool = False) -> None:
    """List the keys: what each may call, from where, until when. No key is shown."""
    files, _state = _opened(etc)
    with _told():
        described = [_described(identity, rules, files) for identity, rules in files.rules().items()]
    if not for_people(as_json):
        print_json(described)
        return
    width = max(len(one["id"]) for one in described)
    for one in described:
        click.secho(f"{one['id']:{width}}  {', '.join(one['allow']) or 'nothing'}", bold=True, color=colours())
        for line in _lines(one):
            click.echo(f"{'':{width}}  {line}")


@key.command()
@click.argument("identity", metavar="ID")
@click.option("--allow", multiple=True, metavar="NAME", help='"system.uname", "nginx.*", "*"; may be repeated.')
@click.option("--read-only", is_flag=True, help="Allow every method that only reads.")
@click.option("--from", "sources", multiple=True, metavar="NETWORK", help="Accept it from there only; may be repeated.")
@click.option("--expires", type=_Moment(), metavar="WHEN", help='Such as 2027-01-31, or from now on "90 d".')
@click.option("--show", is_flag=True, help="Print the key itself, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on a terminal, too.")
@etc_option
def add(
    identity: str,
    allow: tuple[str, ...],
    read_only: bool,
    sources: tuple[str, ...],
    expires: float | None,
    show: bool,
    as_json: bool,
    etc: Path,
) -> None:
    """Make a key that may call what is allowed, and nothing else."""
    patterns = [*((READ_ONLY,) if read_only else ()), *allow]
    if not patterns:
        raise click.UsageError('Say what the key may call: --read-only, --allow "nginx.*", or --allow "*" for all.')
    if expires is not None and expires <= time.time():
        raise click.UsageError("--expires lies in the past.")
    files, state = _opened(etc)
    with _told():
        rules = files.add(identity, patterns, sources, expires)
    put_in_force(state, "The key")
    _print_made(identity, files, rules, show=show, as_json=as_json)
    _hint_at_following(rules.allow)


@key.command()
@click.argument("identity", metavar="ID")
@click.option(
    "--overlap",
    type=_Duration(),
    default="1 d",
    show_default=True,
    metavar="DURATION",
    help="How long the old key is accepted, too; 0 ends it at once.",
)
@click.option("--show", is_flag=True, help="Print the new key itself, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on a terminal, too.")
@etc_option
def rotate(identity: str, overlap: float, show: bool, as_json: bool, etc: Path) -> None:
    """Renew a key; for a while the old one is accepted, too."""
    files, state = _opened(etc)
    with _told():
        rules = files.rotate(identity, overlap)
    put_in_force(state, "The new key")
    _print_made(identity, files, rules, show=show, as_json=as_json)


@key.command()
@click.argument("identity", metavar="ID")
@etc_option
def revoke(identity: str, etc: Path) -> None:
    """End a key at once, also for connections that are open, and remove it."""
    files, state = _opened(etc)
    with _told():
        files.revoke(identity)
    put_in_force(state, "The end of the key")
    click.echo(f"The key {identity} is revoked. Operations that it began go on; `scalarizr operations` shows them.")
    if identity == DEFAULT:
        click.echo("Whoever names no key is refused from now on; this command line, too, without --key-id.", err=True)


def _opened(etc: Path) -> tuple[KeyFiles, Path]:
    try:
        settings = load_settings(etc)
    except BadSettings as error:
        fail(USAGE, str(error))
    return KeyFiles(etc.absolute(), settings), settings.paths.state


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except InvalidParameter as error:
        raise click.UsageError(str(error.facts_as_text())) from None
    except (ScalarizrError, BadSettings) as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}.") from error


def _described(identity: str, rules: KeyRules, files: KeyFiles) -> dict[str, Any]:
    path = files.file_of(identity)
    return {
        "id": identity,
        "state": _state_of(rules),
        "allow": list(rules.allow),
        "from": list(rules.sources),
        "expires": rules.expires,
        "made": rules.made,
        "previous_until": rules.previous_until,
        "file": str(path),
        "problem": problem_of(path) if rules.enabled or identity != DEFAULT else None,
    }


def _state_of(rules: KeyRules) -> str:
    now = time.time()
    if not rules.enabled:
        return "off"
    if rules.expires is not None and now >= rules.expires:
        return "expired"
    return "both" if rules.previous_until is not None and now < rules.previous_until else "ok"


def _lines(one: dict[str, Any]) -> Iterator[str]:
    if one["from"]:
        yield f"from {', '.join(one['from'])}"
    if one["state"] == "off":
        yield click.style("off: not accepted", fg="yellow")
    elif one["expires"] is not None:
        expired = one["state"] == "expired"
        yield (
            click.style(f"expired {moment(one['expires'])}", fg="red") if expired else f"until {moment(one['expires'])}"
        )
    if one["made"] is not None:
        yield f"made {moment(one['made'])}"
    if one["state"] == "both":
        yield f"its predecessor is accepted until {moment(one['previous_until'])}"
    if one["problem"]:
        yield click.style(f"{one['file']}: {one['problem']}", fg="red")


def _print_made(identity: str, files: KeyFiles, rules: KeyRules, *, show: bool, as_json: bool) -> None:
    described = _described(identity, rules, files)
    if show:
        described["key"] = files.file_of(identity).read_text().strip()
    if not for_people(as_json):
        print_json(described)
        return
    click.echo(f"The key {identity} is in {described['file']}. It may call: {', '.join(rules.allow) or 'nothing'}.")
    for line in _lines(described):
        click.echo(f"  {line}")
    if show:
        click.echo(described["key"])


def _hint_at_following(allow: Sequence[str]) -> None:
    """Say what is missing for following the operations that a key may begin."""
    if "operation.*" in allow or "*" in allow or "operation.result" in allow or READ_ONLY in allow:
        return
    begins = [name for name, kind in kinds_of(allow).items() if kind == "operation"]
    if begins:
        click.echo(
            f"{', '.join(begins)} may run for long; to follow and cancel that by its id, a key needs operation.* too.",
            err=True,
        )
