"""`scalarizr doctor`: a look at the whole installation, with what to do where it is not well."""

import sys
from pathlib import Path

import click
import msgspec

from scalarizr.cli.output import colours, for_people, print_json
from scalarizr.cli.target import etc_option
from scalarizr.settings.load import FILE_NAME, BadSettings, load_settings

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON on a terminal, too.")
@etc_option
def doctor(etc: Path, as_json: bool) -> None:
    """Check the installation: key, clock, port, services, programs, logs, disk space, TLS.

    Exit status 1 where a check failed.
    """
    from scalarizr.cli.checks import CHECKS, Finding, check_keys
    from scalarizr.cli.tls_check import check_tls

    try:
        settings = load_settings(etc)
    except BadSettings as error:
        findings = [Finding("settings", "fail", str(error))]
    else:
        path = etc / FILE_NAME
        found = Finding("settings", "ok", str(path))
        absent = Finding("settings", "warn", f"{path} is not there, the defaults count; `scalarizr init` writes it.")
        findings = [found if path.exists() else absent, *check_keys(etc.absolute(), settings)]
        for check in (*CHECKS, check_tls):
            findings += check(settings)
    if for_people(as_json):
        for finding in findings:
            verdict = click.style(f"{finding.verdict:4}", fg=_COLOURS[finding.verdict])
            click.echo(f"{verdict}  {finding.check:<10}  {finding.words}", color=colours())
    else:
        print_json([msgspec.structs.asdict(finding) for finding in findings])
    if any(finding.verdict == "fail" for finding in findings):
        sys.exit(1)
