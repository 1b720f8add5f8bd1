"""Under which device name a volume is attached: EC2 wants one, free, for every attachment."""

import re
import string
from collections.abc import Collection

from scalarizr.errors import NotSupported

# What Amazon recommends for EBS volumes on both; a Xen guest has no more.
_EVERYWHERE = [f"/dev/sd{letter}" for letter in "fghijklmnop"]
# On Nitro a name is a mere label; EC2's own limit, 27 volumes and more by instance type, comes first.
_NITRO = [
    *(f"/dev/sd{letter}" for letter in "qrstuvwxyz"),
    *(f"/dev/xvd{first}{second}" for first in "bc" for second in string.ascii_lowercase),
]
_ANY = re.compile(r"(?:/dev/)?(?:sd|xvd)([a-z]{1,2})[0-9]*", re.ASCII)


def free_names(taken: Collection[str], *, xen: bool) -> list[str]:
    """Give the names that are free, in the order in which they are to be tried.

    :param taken: those of the attachments that there are; `/dev/xvdf` takes `/dev/sdf`, too.
    :param xen: whether the names are those of Xen's virtual disks.
    :raises NotSupported: there is none left.
    """
    letters = {matched[1] for name in taken if (matched := _ANY.fullmatch(name)) is not None}
    names = _EVERYWHERE if xen else _EVERYWHERE + _NITRO
    left = [name for name in names if _letters(name) not in letters]
    if not left:
        raise NotSupported(
            f"This server can hold no more volumes: the device names {names[0]} to {names[-1]} are all taken. "
            "Nothing was attached; detach a volume first.",
            {"taken": [*sorted(taken)]},
        )
    return left


def _letters(name: str) -> str:
    matched = _ANY.fullmatch(name)
    return matched[1] if matched is not None else ""
