"""Where the host's own trees are: one setting (`[paths] root`) moves them all, to a recorded tree or a private one."""

from pathlib import Path

import msgspec


class HostPaths(msgspec.Struct, frozen=True):
    """The host's trees below `root`.

    :param root: `/` on a live host.
    """

    root: Path = Path("/")

    @property
    def proc(self) -> Path:
        return self.root / "proc"

    @property
    def sys(self) -> Path:
        return self.root / "sys"

    @property
    def etc(self) -> Path:
        return self.root / "etc"

    @property
    def dev(self) -> Path:
        return self.root / "dev"

    @property
    def usr(self) -> Path:
        return self.root / "usr"

    @property
    def live(self) -> bool:
        """Whether this is the running host itself, not a recorded tree."""
        return self.root == Path("/")
