"""`python -m fuzz.one TARGET [libFuzzer's flags …]`: one target under atheris, in a process of its own."""

import importlib
import random
import sys
import warnings
from collections.abc import Callable
from types import ModuleType

import atheris

from fuzz.json_mutation import mutated

# What a warning says to a person is nothing that a target promises; printed, it would be all that it does.
warnings.simplefilter("ignore")


def main() -> None:
    """Fuzz until the flags say that it is enough, or something was found."""
    with atheris.instrument_imports(include=["scalarizr"]):
        target = importlib.import_module(f"fuzz.{sys.argv[1]}")
    if hasattr(target, "JSON_FROM"):
        atheris.Setup([sys.argv[0], *sys.argv[2:]], target.check, custom_mutator=_json_mutator(target))
    else:
        atheris.Setup([sys.argv[0], *sys.argv[2:]], target.check)
    atheris.Fuzz()


def _json_mutator(target: ModuleType) -> Callable[[bytes, int, int], bytes]:
    words = [word[1:-1].decode() for word in target.WORDS if word.startswith(b'"') and word.endswith(b'"')]

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        chance = random.Random(seed)
        data = bytes(data)
        if chance.random() < 0.8:
            head, text = data[: target.JSON_FROM], data[target.JSON_FROM :]
            if chance.random() < 0.1:
                head = bytes(chance.randrange(256) for _ in range(target.JSON_FROM))
            made = mutated(text, words, chance)
            if made is not None and len(head) + len(made) <= longest:
                return head + made
        return atheris.Mutate(data, longest)

    return mutate


if __name__ == "__main__":
    main()
