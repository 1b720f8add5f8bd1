"""Following an operation: a progress bar, its log lines above it, and Ctrl-C that asks what is meant."""

import sys
from typing import Any

import click

from scalarizr.cli.output import make_console
from scalarizr.client import Client, OperationRecord
from scalarizr.client.operation import Operation


def follow(client: Client, operation_id: str) -> Any:
    """Wait for an operation's end; its lines and progress go to standard error.

    :return: its result.
    :raises AgentError: it failed or was cancelled.
    """
    operation = Operation(client, operation_id)
    with _Display(sys.stderr.isatty()) as display:
        while True:
            try:
                return operation.wait(display.show)
            except KeyboardInterrupt:
                display.pause()
                _interrupted(client, operation_id)
                display.resume()


def _interrupted(client: Client, operation_id: str) -> None:
    client.close()  # an answer may have been on its way
    try:
        cancel = click.confirm(f"\nCancel the operation {operation_id}?", default=False, err=True)
    except click.Abort:
        click.echo(f"\nIt goes on; `scalarizr operations follow {operation_id}` shows it again.", err=True)
        sys.exit(130)
    if cancel:
        client.call("operation.cancel", operation_id=operation_id)


class _Display:
    """Shows records as they come: a bar for people, plain lines else."""

    def __init__(self, interactive: bool) -> None:
        self._interactive = interactive
        self._printed = 0
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> "_Display":
        self.resume()
        return self

    def __exit__(self, *exception: object) -> None:
        self.pause()

    def resume(self) -> None:
        """Show the bar."""
        if not self._interactive:
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
        )
        self._bar = Progress(*columns, console=make_console(to_stderr=True), transient=True)
        self._task = self._bar.add_task("waiting", total=None, amount="")
        self._bar.start()

    def pause(self) -> None:
        """Take the bar away, so that something can be asked."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def show(self, record: OperationRecord) -> None:
        """Show what is new in a record."""
        for line in record.logs[self._printed :]:
            if self._bar is not None:
                self._bar.console.print(line, markup=False)
            else:
                click.echo(line, err=True)
        self._printed = len(record.logs)
        if self._bar is not None:
            progress = record.progress or {}
            amount = f"{progress['percent']:.0f} %" if progress.get("percent") is not None else ""
            self._bar.update(
                self._task,
                description=progress.get("step") or record.name,
                total=progress.get("total"),
                completed=progress.get("done") or 0,
                amount=amount,
            )
