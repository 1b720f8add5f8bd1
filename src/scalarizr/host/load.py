"""The load average."""

import os

from scalarizr.errors import OutsideFailure
from scalarizr.host.paths import HostPaths


class LoadAverage:
    """Reads the load over 1, 5 and 15 minutes from /proc/loadavg (proc(5)).

    On a live host the file is held open: the kernel writes it anew for each pread(2), and monitoring asks often.

    :param host: where the host's trees are.
    """

    def __init__(self, host: HostPaths) -> None:
        self._path = str(host.proc / "loadavg")
        self._held = host.live
        self._descriptor = -1

    def read(self) -> list[float]:
        """Give the three figures.

        :raises OutsideFailure: the file cannot be read, or is of an unknown form.
        """
        try:
            if self._descriptor < 0:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                one, five, fifteen = os.pread(self._descriptor, 100, 0).split()[:3]
            except BaseException:
                self._let_go()
                raise
            if not self._held:
                self._let_go()
            return [float(one), float(five), float(fifteen)]
        except OSError as error:
            raise OutsideFailure(f"{self._path} cannot be read: {error.strerror}.", {"file": self._path}) from error
        except ValueError as error:
            raise OutsideFailure(f"{self._path} is not of the form of proc(5).", {"file": self._path}) from error

    def _let_go(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1

    def __del__(self) -> None:
        if self._descriptor >= 0:
            self._let_go()
