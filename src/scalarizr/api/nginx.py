"""The `nginx` namespace."""

from scalarizr.api.parts import Parts


class NginxAPI:
    """nginx: reverse proxying, its upstreams and certificates, the service itself.

    :param parts: the agent's shared mechanisms.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
