"""`scalarizr audit`: read the audit log, and look whether every line is the one that was written."""

import contextlib
import re
import sys
from collections import deque
from pathlib import Path
from typing import Any

import click
import msgspec

from scalarizr.audit.chain import BEGINNING, files_of
from scalarizr.audit.log import AUDIT_LOG, head_file_of, read_head
from scalarizr.audit.verification import Verification, verify
from scalarizr.cli.output import colours, for_people, moment, print_json
from scalarizr.cli.target import USAGE, etc_option
from scalarizr.settings.load import BadSettings, load_settings

_HASH = re.compile(r"[0-9a-fA-F]{64}")


@click.group()
def audit() -> None:
    """Show and verify the log of all commands: who, what, when, and how it ended."""


@audit.command(name="verify")
@click.option("--head", "heads", multiple=True, metavar="HASH", help="A head that syslog holds; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on a terminal, too.")
@etc_option
def verify_log(etc: Path, heads: tuple[str, ...], as_json: bool) -> None:
    """Find lines that were altered, removed or put in.

    Exit status 1 where there are any, or where a --head is not in the log.
    """
    for head in heads:
        if not _HASH.fullmatch(head):
            raise click.BadParameter(f"{head[:70]!r} is no SHA-256 in hex (64 digits).", param_hint="--head")
    path, head_file = _places(etc)
    with _readable():
        # Read before the log, which may grow meanwhile.
        noted = read_head(head_file)
        wanted = (*heads, noted.head) if noted.head != BEGINNING else heads
        found = verify(files_of(path), wanted)
        findings = [f"{finding.file}, line {finding.line}: {finding.words}." for finding in found.findings]
    if noted.n and not found.heads.get(noted.head, True):
        findings.append(
            f"The agent noted line {noted.n} as the last one; the log ends at line {found.end.n} without it: its tail "
            "was cut off or altered (a power failure can do that, too)."
        )
    findings += [f"No line of the log has the head {head}." for head in heads if not found.heads[head.lower()]]
    if for_people(as_json):
        _print_verification(found, findings, path)
    else:
        summary = {"lines": found.lines, "first": found.first, "last": found.end.n, "head": found.end.head}
        print_json({"ok": not findings, "findings": findings, "cut_off": found.cut_off, **summary})
    if findings:
        sys.exit(1)


@audit.command(name="list")
@click.option("--last", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many lines.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on a terminal, too.")
@etc_option
def list_lines(etc: Path, last: int, as_json: bool) -> None:
    """List the last commands."""
    path, _head_file = _places(etc)
    kept: deque[dict[str, Any]] = deque(maxlen=last)
    with _readable():
        for file in files_of(path):
            with file.open("rb") as stream:
                for line in stream:
                    with contextlib.suppress(msgspec.MsgspecError):
                        kept.append(msgspec.json.decode(line, type=dict[str, Any]))
    if not for_people(as_json):
        print_json(list(kept))
        return
    if not kept:
        click.echo(f"{path} holds no line.")
    for entry in kept:
        click.echo(_one_line(entry), color=colours())


def _places(etc: Path) -> tuple[Path, Path]:
    try:
        settings = load_settings(etc)
    except BadSettings as error:
        click.echo(str(error), err=True)
        sys.exit(USAGE)
    return settings.paths.logs / AUDIT_LOG, head_file_of(settings.paths.state)


@contextlib.contextmanager
def _readable() -> Any:
    try:
        yield
    except OSError as error:
        click.echo(f"{error.filename} cannot be read: {error.strerror}. Root may be needed.", err=True)
        sys.exit(1)


def _print_verification(found: Verification, findings: list[str], path: Path) -> None:
    if not found.lines:
        click.echo(f"{path} holds no line.")
    for finding in findings:
        click.secho(finding, fg="red", color=colours())
    if found.cut_off:
        click.echo(f"{found.cut_off} of its lines were cut off by a crash; they are chained like all others.")
    if found.lines and not findings:
        click.echo(f"All lines from {found.first} to {found.end.n} are as they were written.")
    if found.lines:
        click.echo(f"Head: {found.end.head}")


def _one_line(entry: dict[str, Any]) -> str:
    error = entry.get("error")
    ended = click.style(f"error {error}", fg="red") if error is not None else entry.get("outcome", "")
    made = " ".join(f"{name}={entry[name]}" for name in ("change_id", "operation_id") if entry.get(name))
    who = f"{entry.get('key', '-')}@{entry.get('address', '-')}"
    what = entry.get("method") or entry.get("event", "?")
    return f"{moment(entry['time']) if 'time' in entry else '-':20}  {who:24}  {what:28}  {ended} {made}".rstrip()
