"""`python -m fuzz.long_inputs TARGET COUNT SEED`: what is long is read in a time that grows no faster than it does.

An input of the corpus has one piece of it repeated until it is 64 KiB long; what reads it may use a few seconds of the
processor's time for that, which is a hundred times what it needs. The time on the clock does not count.
"""

import importlib
import random
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from types import FrameType, ModuleType

from fuzz.corpora import CORPUS

LENGTH = 64 * 1024
_PAIRS = (
    (b"a{", b"}"),
    (b"<a>\n", b"</a>\n"),
    (b"<VirtualHost *:80>\n", b"</VirtualHost>\n"),
    (b"[", b"]"),
    (b'{"a":', b"}"),
    (b'{"0":[', b"]}"),
    (b"<item>", b"</item>"),
    (b"(", b")"),
)
SECONDS = 8.0


def main() -> None:
    """Try so many inputs; prints `NUMBER inputs, SECONDS at most`, or what was found, with status 77."""
    warnings.simplefilter("ignore")
    name, count, chance = sys.argv[1], int(sys.argv[2]), random.Random(sys.argv[3])
    target = importlib.import_module(f"fuzz.{name}")
    files = sorted((CORPUS / name).iterdir())
    signal.signal(signal.SIGVTALRM, _over)
    longest = 0.0
    for _ in range(count):
        data = _stretched(chance.choice(files).read_bytes(), target, chance)
        longest = max(longest, _tried(name, target, data))
    print(f"{count} inputs, {longest:.2f} s at most")


def _stretched(data: bytes, target: ModuleType, chance: random.Random) -> bytes:
    start = chance.randrange(1, len(data)) if len(data) > 1 else len(data)
    piece = data[start : start + chance.choice((1, 1, 1, 2, 3, 5, 8, 20))]
    if chance.random() < 0.4:
        piece = chance.choice((*target.WORDS, b" ", b"\n", b"\t", b"a", b"\\", b"<", b"[", b"{", b'"', b"0"))
    room = max(LENGTH - len(data), 0)
    if chance.random() < 0.2:
        opening, closing = chance.choice(_PAIRS)
        times = room // (len(opening) + len(closing))
        return data[:start] + opening * times + closing * times + data[start:]
    return data[:start] + piece * (room // max(len(piece), 1)) + data[start:]


def _tried(name: str, target: ModuleType, data: bytes) -> float:
    began = time.thread_time()
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        target.check(data)
    except BaseException:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        path = Path(__file__).with_name("found") / f"{name}-long-{abs(hash(data)):x}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        traceback.print_exc()
        print(f"found {path}")
        sys.exit(77)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return time.thread_time() - began


def _over(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"more than {SECONDS:g} s for {LENGTH} bytes")


if __name__ == "__main__":
    main()
