"""The corpora in `fuzz/corpus`: messages made by hand, and beside them the least of what fuzzing found interesting.

`python -m fuzz.corpora` writes what is made by hand anew, after a target's `seeds` has changed.
"""

import hashlib
import importlib
from collections.abc import Iterable
from pathlib import Path

from fuzz.targets import SHARES

CORPUS = Path(__file__).with_name("corpus")
# All of them together stay under a megabyte.
MOST_BYTES = 60_000


def write_seeds() -> None:
    """Write what the targets make by hand."""
    for name in SHARES:
        directory = CORPUS / name
        directory.mkdir(parents=True, exist_ok=True)
        for seed, data in importlib.import_module(f"fuzz.{name}").seeds().items():
            (directory / seed).write_bytes(data)


def keep(name: str, found: Iterable[Path]) -> int:
    """Keep of what was found as many inputs as there is room for, the shortest first.

    :param found: files that reach what no other one does.
    :return: how many.
    """
    directory = CORPUS / name
    by_hand = set(importlib.import_module(f"fuzz.{name}").seeds())
    for old in directory.iterdir():
        if old.name not in by_hand:
            old.unlink()
    room = MOST_BYTES - sum(path.stat().st_size for path in directory.iterdir())
    there = {path.read_bytes() for path in directory.iterdir()}
    kept = 0
    for data in sorted({path.read_bytes() for path in found} - there, key=lambda one: (len(one), one)):
        room -= len(data)
        if room < 0:
            break
        (directory / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
        kept += 1
    return kept


if __name__ == "__main__":
    write_seeds()
