"""What may be laid down of a key. `keys` reads it from `<etc>/keys.toml`, and is needed only where that file is."""

import msgspec

FILE_NAME = "keys.toml"
EVERYTHING, READ_ONLY = "*", "read-only"


class KeyRules(msgspec.Struct, frozen=True, kw_only=True):
    """What is laid down of one key.

    :param allow: what it may call: `*`, `read-only`, `namespace.*`, `namespace.method`; names are canonical.
    :param sources: networks that it may be used from, in CIDR; empty: from everywhere.
    :param expires: Unix time from which it is accepted no more.
    :param made: Unix time of its making, where that is known.
    :param previous_until: Unix time up to which the key before its last rotation is accepted as well.
    :param enabled: whether it is accepted at all.
    """

    allow: tuple[str, ...] = (EVERYTHING,)
    sources: tuple[str, ...] = ()
    expires: float | None = None
    made: float | None = None
    previous_until: float | None = None
    enabled: bool = True
