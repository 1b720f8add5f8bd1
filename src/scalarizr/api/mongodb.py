"""The `mongodb` namespace."""

from scalarizr.api.parts import Parts


class MongoDBAPI:
    """MongoDB: passwords and the monitoring agent.

    :param parts: the agent's shared mechanisms.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
