"""`python -m fuzz.words TARGET`: a target's words as libFuzzer's dictionary."""

import importlib
import sys


def main() -> None:
    """Print them."""
    for word in importlib.import_module(f"fuzz.{sys.argv[1]}").WORDS:
        print('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"')


if __name__ == "__main__":
    main()
