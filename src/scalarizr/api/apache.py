"""The `apache` namespace."""

from scalarizr.api.parts import Parts


class ApacheAPI:
    """Apache httpd: virtual hosts, certificates, statistics, the service itself.

    :param parts: the agent's shared mechanisms.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
