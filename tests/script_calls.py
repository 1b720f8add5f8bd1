"""Calls of `system.execute_scripts`, and what scripts say of themselves."""

from pathlib import Path
from typing import Any

from scalarizr.client import Client, Operation
from scalarizr.host.processes import wait_until


def sh(text: str, **given: Any) -> dict[str, Any]:
    """Describe a shell script."""
    return {"name": "job", "body": f"#!/bin/sh\n{text}\n", **given}


def started(client: Client, *scripts: dict[str, Any], **given: Any) -> Operation:
    operation = client.system.execute_scripts(scripts=list(scripts), async_=True, **given)
    assert isinstance(operation, Operation)
    return operation


def pid_in(file: Path) -> int:
    """Wait until a script has written its process id; give that."""
    assert wait_until(lambda: file.exists() and file.read_text().endswith("\n"), 30), f"{file} was not written"
    return int(file.read_text())
