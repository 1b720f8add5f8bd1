"""The fields of the kernel's tables of mounts and of fstab, in which some characters are written in octal."""

import os
import re

# A blank, a tab, a line feed, a backslash and `#` at least (proc(5), getmntent(3)); in fstab any byte may be.
_ESCAPED = re.compile(rb"\\([0-7]{3})")


def unescaped(field: bytes) -> str:
    """Give what a field stands for: a path or the name of a device, as the rest of this program has them."""
    return os.fsdecode(_ESCAPED.sub(lambda match: bytes([int(match[1], 8) & 255]), field))
