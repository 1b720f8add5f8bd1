"""Runs in the small virtual machine, as a unit of its own: does what the test tells it over a port of the machine.

A request is a line of JSON, `{"command": [...], "input": text, "timeout": seconds}`, and so is its answer,
`{"status": number, "output": text, "errors": text}`. Beyond that the first line of each boot is `{"boot": id}`.
"""

import json
import os
import subprocess
import time
from pathlib import Path

PORT = Path("/dev/virtio-ports/test.commands")


def answer(request: dict[str, object]) -> dict[str, object]:
    try:
        done = subprocess.run(
            request["command"],  # type: ignore[call-overload]
            input=str(request["input"]).encode(),
            capture_output=True,
            timeout=request["timeout"],
            cwd="/",
        )
        status, output, errors = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        status, output, errors = -1, late.stdout or b"", (late.stderr or b"") + b"\n(it did not end in time)"
    except OSError as failure:
        status, output, errors = 127, b"", str(failure).encode()
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
