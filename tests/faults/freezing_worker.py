"""A worker that freezes: for each line `SECONDS LIMIT` on standard input one freeze of that length.

It says `working`, `frozen SINCE`, and at the end `ended UNTIL ERROR`; both times as of CLOCK_MONOTONIC, which all
processes share. Its note is a file.
"""

import sys
import time
from pathlib import Path

from scalarizr.errors import ScalarizrError
from scalarizr.storage.freezing import frozen


def main() -> None:
    mpoint, note = Path(sys.argv[1]), Path(sys.argv[2])

    def write_note() -> int:
        note.write_text(str(mpoint))
        return 7

    def forget(number: int) -> None:
        assert number == 7
        note.unlink()

    for line in sys.stdin:
        seconds, limit = map(float, line.split())
        print("working", flush=True)
        until, error = 0.0, "none"
        try:
            with frozen(mpoint, limit, write_note, forget):
                print("frozen", time.monotonic(), flush=True)
                time.sleep(seconds)
                until = time.monotonic()
        except ScalarizrError as failure:
            error = type(failure).__name__
        print("ended", until, error, flush=True)


if __name__ == "__main__":
    main()
