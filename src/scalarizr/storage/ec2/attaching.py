"""Attaching a volume to this server and taking it off again, each waited for, within limits."""

import random
import time
from pathlib import Path

from scalarizr.errors import NotSupported, OutsideFailure, Refused, ScalarizrError, TimedOut
from scalarizr.host.files import make_private_directory
from scalarizr.host.locks import locked
from scalarizr.operations.progress import current
from scalarizr.storage.ec2.device_names import free_names
from scalarizr.storage.ec2.errors import code_of, may_pass
from scalarizr.storage.ec2.this_server import Facts, ThisServer, attachments, told_attachments
from scalarizr.storage.steps import wait_until

# Seconds.
_DEVICE_WITHIN = 60.0
_NAMED_WITHIN = 300.0
_ANSWERS_WITHIN = 20.0
_SETTLED_WITHIN = 30.0
_PATIENT_FOR = 300.0


def attach(server: ThisServer, identity: str, lock: Path, limit: float) -> Facts:
    """Make sure that a volume is attached here and its device has appeared.

    :param lock: a file: of the calls on this server one at a time chooses a device name.
    :param limit: seconds from EC2's taking it on to its being done; the device then has a minute.
    :raises Refused: it is attached elsewhere, which is named.
    :raises NotSupported: it is in another zone, or this server holds as many as it can.
    :raises TimedOut: it hangs; the message says where.
    """
    facts = server.present(identity)
    try:
        if (mine := server.attachment(facts)) is not None and mine.get("State") == "detaching":
            _wait_until_off(server, identity, limit)
            mine = None
        if mine is None:
            _refuse_what_cannot_be(server, server.present(identity))
            _attach_under_a_free_name(server, identity, lock)
        return _wait_for_device(server, identity, limit)
    except TimedOut as late:
        late.say_further(server.where(identity))
        raise


def detach(server: ThisServer, identity: str, limit: float, *, force: bool) -> None:
    """Take a volume off this server; what is not attached here stays as it is.

    :param limit: seconds.
    :raises Refused: it is the root disk, or something here still uses it.
    :raises TimedOut: it hangs; the message says where.
    """
    facts = server.facts(identity)
    mine = server.attachment(facts) if facts is not None else None
    if facts is None or mine is None:
        return
    server.refuse_root(mine)
    if not force and mine.get("State") in ("attached", "busy") and server.device(facts) is None:
        raise Refused(
            f"{identity} is attached here as {mine.get('Device')}, but no device of this server is known to be it: "
            "whether it is mounted or in use cannot be told. Nothing was changed; look at [storage] by_id_dir, or say "
            "force.",
            {"volume": identity},
        )
    if mine.get("State") != "detaching" or force:
        try:
            server.ec2.call("detach_volume", VolumeId=identity, InstanceId=server.instance_id, Force=force)
        except ScalarizrError as failure:
            # It is off already, or on its way.
            if code_of(failure) not in ("IncorrectState", "InvalidAttachment.NotFound", "InvalidVolume.NotFound"):
                raise
    try:
        _wait_until_off(server, identity, limit)
    except TimedOut as late:
        late.say_further(server.where(identity))
        raise


def _refuse_what_cannot_be(server: ThisServer, facts: Facts) -> None:
    identity = facts["VolumeId"]
    if facts["State"] == "error":
        raise Refused(f"{identity} is in the state error: it can only be destroyed. Nothing was changed.")
    if attachments(facts) and not facts.get("MultiAttachEnabled"):
        raise Refused(
            f"{identity} cannot be attached here: it is {told_attachments(facts)}. Nothing was changed; "
            "detach it there first.",
            {"volume": identity, "instances": [str(one.get("InstanceId")) for one in attachments(facts)]},
        )
    if facts["AvailabilityZone"] != server.zone:
        raise NotSupported(
            f"{identity} is in {facts['AvailabilityZone']} and this server in {server.zone}: a volume is attached in "
            "its own availability zone only. Nothing was changed; make one here from a snapshot of it.",
            {"volume": identity, "avail_zone": facts["AvailabilityZone"]},
        )


def _attach_under_a_free_name(server: ThisServer, identity: str, lock: Path) -> None:
    make_private_directory(lock.parent)
    began = time.monotonic()
    pause = 0.5
    while True:
        try:
            # One at a time on this server, or two would choose the same name. Each holds it for a moment: where EC2
            # is overloaded, that is waited for outside.
            with locked(lock, what="the device names of this instance", timeout=_NAMED_WITHIN):
                return _ask(server, identity)
        except ScalarizrError as failure:
            code = code_of(failure)
            # What has just been made, or let go, is not known for that everywhere at once.
            settles = code in ("InvalidVolume.NotFound", "IncorrectState")
            limit = _SETTLED_WITHIN if settles else _PATIENT_FOR if may_pass(failure) else 0
            if time.monotonic() - began >= limit:
                raise
        delay = random.uniform(pause / 2, pause)  # noqa: S311
        current().log(f"EC2 does not attach {identity} yet ({code}); trying again in {delay:.1f} s")
        time.sleep(delay)
        pause = min(pause * 2, 10.0)


def _ask(server: ThisServer, identity: str) -> None:
    """Ask for the attachment, under the first name that nobody has."""
    for name in free_names(server.names_taken(_ANSWERS_WITHIN), xen=server.xen):
        try:
            server.ec2.call_once(
                "attach_volume", _ANSWERS_WITHIN, VolumeId=identity, InstanceId=server.instance_id, Device=name
            )
        except ScalarizrError as failure:
            if code_of(failure) == "InvalidParameterValue" and "already in use" in str(failure):
                continue  # somebody else was faster
            if code_of(failure) != "VolumeInUse":
                raise
            facts = server.present(identity)
            if server.attachment(facts) is None:
                _refuse_what_cannot_be(server, facts)
                raise
            # The answer to an earlier request was lost.
        return
    raise OutsideFailure(f"EC2 takes no device name for {identity}: each is in use, it says. Nothing was attached.")


def _wait_for_device(server: ThisServer, identity: str, limit: float) -> Facts:
    def look() -> Facts | None:
        facts = server.present(identity)
        mine = server.attachment(facts)
        return facts if mine is not None and mine.get("State") in ("attached", "busy") else None

    facts = wait_until(look, f"attaching {identity}", limit=limit, pause=0.5)
    words = f"waiting for the device of {identity}"
    wait_until(lambda: server.device(facts), words, limit=_DEVICE_WITHIN, longest_pause=1)
    return facts


def _wait_until_off(server: ThisServer, identity: str, limit: float) -> None:
    def look() -> bool | None:
        facts = server.facts(identity)
        mine = server.attachment(facts) if facts is not None else None
        if mine is not None and mine.get("State") == "busy":
            raise Refused(
                f"{identity} stays attached to {server.instance_id} as {mine.get('Device')}: EC2 calls it busy, so "
                "something on this server still uses it. Unmount it, or say force.",
                {"volume": identity},
            )
        return True if mine is None else None

    wait_until(look, f"detaching {identity}", limit=limit, pause=0.5)
