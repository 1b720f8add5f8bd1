"""Making a volume: asked for once, whatever becomes of the answer, and waited for."""

import time
from collections.abc import Callable
from typing import Any

from scalarizr.errors import OutsideFailure, ScalarizrError
from scalarizr.storage.ec2.errors import code_of
from scalarizr.storage.ec2.this_server import Facts, ThisServer
from scalarizr.storage.steps import wait_until

_MADE_WITHIN = 300.0
# So long may EC2 not know, in one place, what it has just done in another.
_SETTLED_WITHIN = 30.0


def make(server: ThisServer, request: dict[str, Any], key: str, known: Callable[[str], None]) -> Facts:
    """Ask for a volume and wait until it can be used.

    :param request: of CreateVolume.
    :param key: names it: what is asked for twice under the same key is made once.
    :param known: is told the id, as soon as EC2 has told it.
    :raises OutsideFailure: EC2 could not make it.
    """
    # As long as EC2 remembers the token, requests with it make one volume; after that the tag is there to be found.
    for token in (key, f"{key}-{time.time_ns():x}"):
        try:
            identity = str(server.ec2.call("create_volume", ClientToken=token, **request)["VolumeId"])
        except ScalarizrError as failure:
            if code_of(failure) == "IdempotentParameterMismatch" and token == key:
                continue  # another was made under this key, and is deleted
            raise
        known(identity)
        facts = _wait(server, identity)
        if facts is not None:
            return facts
    raise OutsideFailure("EC2 said that it made a volume, and does not know it. Nothing was made; ask again later.")


def delete(server: ThisServer, identity: str) -> None:
    """Delete a volume that is attached nowhere; one that is gone stays so."""
    deadline = time.monotonic() + _SETTLED_WITHIN
    while True:
        try:
            server.ec2.call("delete_volume", VolumeId=identity)
        except ScalarizrError as failure:
            if code_of(failure) == "InvalidVolume.NotFound":
                return
            # That it has just been detached is not known everywhere at once.
            if code_of(failure) != "VolumeInUse" or time.monotonic() >= deadline:
                raise
            time.sleep(1)
            continue
        return


def wait_while_it_is_made(server: ThisServer, identity: str) -> Facts | None:
    """Wait until a volume is not being made any more; None where it is gone."""

    def look() -> Facts | None:
        facts = server.facts(identity)
        return None if facts is not None and facts["State"] == "creating" else facts or {}

    return wait_until(look, f"making {identity}", limit=_MADE_WITHIN, pause=0.5) or None


def _wait(server: ThisServer, identity: str) -> Facts | None:
    """Wait for a new volume; None where EC2 does not know it: an old answer to a request repeated, of a deleted one."""
    began = time.monotonic()
    seen = False

    def look() -> Facts | None:
        nonlocal seen
        facts = server.facts(identity)
        if facts is None and seen:
            raise OutsideFailure(
                f"{identity} vanished while EC2 made it: as a rule it may not use the key of its encryption. "
                "Nothing was made."
            )
        if facts is None:
            return {} if time.monotonic() - began > _SETTLED_WITHIN else None
        seen = True
        if facts["State"] == "error":
            server.ec2.call("delete_volume", VolumeId=identity)
            raise OutsideFailure(f"EC2 could not make {identity}: it ended in the state error. It was deleted.")
        return None if facts["State"] == "creating" else facts

    return wait_until(look, f"making {identity}", limit=_MADE_WITHIN, pause=0.3) or None
