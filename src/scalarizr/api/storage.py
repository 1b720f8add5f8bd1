"""The `storage` namespace."""

from scalarizr.api.parts import Parts


class StorageAPI:
    """Volumes: made, grown, snapshotted and given back.

    :param parts: the agent's shared mechanisms.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
