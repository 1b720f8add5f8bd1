"""An agent with an operation that eats memory, beside those of `slow_methods.py`; started as that is."""

import asyncio
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import slow_methods
from scalarizr.api.parts import Parts
from scalarizr.operations.progress import current
from scalarizr.rpc.method import operation


class GreedyAPI:
    """One method."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @operation(resource="memory")
    def eat(self, size: int, async_: bool = False) -> int:
        """Tell by progress that it is there, wait for the file `eat`, and then fill so many bytes of memory."""
        del async_
        state = self._parts.settings.paths.state
        leftover = state / "half-eaten"
        current().before("slow_methods:remove", path=str(leftover))
        leftover.touch()
        current().progress(0, size)
        deadline = time.monotonic() + 100
        while not (state / "eat").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        return len(b"\1" * size)


if __name__ == "__main__":
    os.umask(0o077)
    here = Path(__file__).parent
    os.environ["PYTHONPATH"] = f"{here}:{here.parent}"
    slow_methods.TABLE["greedy"] = "greedy_program:GreedyAPI"
    asyncio.run(slow_methods.main())
