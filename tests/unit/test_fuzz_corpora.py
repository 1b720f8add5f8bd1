"""Every input in `fuzz/corpus` still keeps every promise: `make fuzz` looks for more of them."""

import importlib
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from fuzz.targets import SHARES  # noqa: E402  the repository's root is no place that tests are found in


@pytest.mark.parametrize("name", SHARES)
def test_every_input_of_a_corpus_keeps_every_promise(name: str) -> None:
    target = importlib.import_module(f"fuzz.{name}")
    inputs = sorted((ROOT / "fuzz" / "corpus" / name).iterdir())
    assert len(inputs) >= 10
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of regular expressions in the inputs
        for path in inputs:
            try:
                target.check(path.read_bytes())
            except AssertionError as broken:
                raise AssertionError(f"{path}: {broken}") from broken


@pytest.mark.parametrize("name", SHARES)
def test_what_was_made_by_hand_is_in_the_corpus(name: str) -> None:
    target = importlib.import_module(f"fuzz.{name}")
    for seed, data in target.seeds().items():
        assert (ROOT / "fuzz" / "corpus" / name / seed).read_bytes() == data, "run python -m fuzz.corpora"
