"""Masking texts in a stream of bytes, also where one of them comes in pieces."""

import re
from collections.abc import Iterable

from scalarizr.secret import MASK

_SHORTEST = 4  # as `secret.without`: to mask shorter ones would make the text unreadable and hide nothing
_SHORTEST_LINE = 8
_MASK = MASK.encode()


class MaskingStream:
    """A stream in which some texts are masked.

    What may be the beginning of one of them is held back until more comes, and nothing else.

    :param texts: what must not be seen. Of one with several lines each longer line must not, either: programs print
        such texts line by line.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        whole = {text for text in texts if len(text) >= _SHORTEST}
        lines = {line for text in whole for line in text.splitlines() if len(line) >= _SHORTEST_LINE}
        self._hidden = sorted((text.encode() for text in whole | lines), key=len, reverse=True)
        # The longest first: an alternation takes the first that fits.
        self._any = re.compile(b"|".join(map(re.escape, self._hidden))) if self._hidden else None
        self._longest = len(self._hidden[0]) if self._hidden else 0
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; gives what can be shown now."""
        if self._any is None:
            return data
        held = self._held + data
        shown = bytearray()
        place = 0
        while True:
            doubtful = self._doubtful(held, place)
            match = self._any.search(held, place)
            if match is None or match.start() >= doubtful:
                shown += held[place:doubtful]
                self._held = held[doubtful:]
                return bytes(shown)
            shown += held[place : match.start()] + _MASK
            place = match.end()

    def end(self) -> bytes:
        """Give what was held back: nothing more comes."""
        held, self._held = self._held, b""
        if self._any is None:
            return held
        shown = self._any.sub(_MASK, held)
        # The beginning of one whose end was never written, by a script that was killed in the middle of it.
        doubtful = self._doubtful(shown, 0)
        return shown if len(shown) - doubtful < _SHORTEST else shown[:doubtful] + _MASK

    def _doubtful(self, held: bytes, place: int) -> int:
        """Give where the first text may begin that has not come to its end yet."""
        first = len(held)
        for text in self._hidden:
            start = held.find(text[:1], max(place, len(held) - len(text) + 1))
            while 0 <= start < first:
                if text.startswith(held[start:]):
                    first = start
                    break
                start = held.find(text[:1], start + 1)
        return first
