"""What names a key: an id that is a plain file name, and a plain word on the wire."""

import re

DEFAULT = "default"
EXPECTED = "1 to 64 letters, digits, - and _"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)


def is_key_id(text: str) -> bool:
    """Tell whether a text may name a key: 1 to 64 letters, digits, `-` and `_`, the first a letter or a digit."""
    return _ID.fullmatch(text) is not None
