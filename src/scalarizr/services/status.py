"""The state of a service as init scripts tell it (LSB Core, "Init Script Actions")."""

from enum import IntEnum


class Status(IntEnum):
    """What `get_service_status` answers."""

    RUNNING = 0
    DEAD_WITH_PID_FILE = 1
    DEAD_WITH_LOCK = 2
    NOT_RUNNING = 3
    UNKNOWN = 4
