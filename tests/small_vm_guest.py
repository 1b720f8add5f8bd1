"""Runs in the small virtual machine, as a unit of its own: does what the test tells it over a port of the machine.

A request is a line of JSON, `{"command": [...], "input": text, "timeout": seconds}`, and so is its answer,
`{"status": number, "output": text, "errors": text}`. `{"method": name, "parameters": {...}, "timeout": seconds}` calls
the agent, and is answered as `scalarizr call --json` would: to start that each time takes an emulated processor long.
Beyond that the first line of each boot is `{"boot": id}`.
"""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from scalarizr.cli.target import ANSWERED_WITH_ERROR, UNREACHABLE, explained
from scalarizr.client import AgentError, Client, ClientError, Operation

PORT = Path("/dev/virtio-ports/test.commands")
KEY = Path("/etc/scalr/private.d/keys/default")


def ran(request: dict[str, Any]) -> tuple[int, bytes, bytes]:
    try:
        done = subprocess.run(
            request["command"],
            input=str(request["input"]).encode(),
            capture_output=True,
            timeout=request["timeout"],
            cwd="/",
        )
    except subprocess.TimeoutExpired as late:
        return -1, late.stdout or b"", (late.stderr or b"") + b"\n(it did not end in time)"
    except OSError as failure:
        return 127, b"", str(failure).encode()
    return done.returncode, done.stdout, done.stderr


def called(request: dict[str, Any]) -> tuple[int, bytes, bytes]:
    try:
        with Client("http://127.0.0.1:8010", key_file=KEY, timeout=request["timeout"]) as client:
            result = client.call(request["method"], **request["parameters"])
    except AgentError as error:
        return ANSWERED_WITH_ERROR, b"", explained(error).encode()
    except ClientError as error:
        return UNREACHABLE, b"", str(error).encode()
    return 0, json.dumps(result.id if isinstance(result, Operation) else result).encode(), b""


def answer(request: dict[str, Any]) -> dict[str, object]:
    status, output, errors = called(request) if "method" in request else ran(request)
    return {
        "status": status,
        "output": output.decode("utf-8", "replace"),
        "errors": errors.decode("utf-8", "replace"),
    }


def send(port: int, message: dict[str, object]) -> None:
    left = memoryview(json.dumps(message).encode() + b"\n")
    while left:
        left = left[os.write(port, left) :]


def main() -> None:
    while not PORT.exists():
        time.sleep(0.1)
    port = os.open(PORT, os.O_RDWR | os.O_CLOEXEC)
    send(port, {"boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip()})
    waiting = b""
    while True:
        line, end, rest = waiting.partition(b"\n")
        if end:
            waiting = rest
            send(port, answer(json.loads(line)))
            continue
        came = os.read(port, 65536)
        waiting += came
        if not came:
            time.sleep(0.2)  # nobody is at the other end yet


if __name__ == "__main__":
    main()
