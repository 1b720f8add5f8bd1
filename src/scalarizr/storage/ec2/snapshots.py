"""Snapshots of EBS volumes: asked for while the file system is still, waited for while it is not."""

import re
import time
from typing import Any

from scalarizr.errors import InvalidParameter, NotFound, OutsideFailure, ScalarizrError, TimedOut
from scalarizr.operations.progress import current
from scalarizr.rpc.types import shown
from scalarizr.storage.context import Still
from scalarizr.storage.ec2.client import Ec2
from scalarizr.storage.ec2.errors import THROTTLED, code_of, may_pass
from scalarizr.storage.ec2.tags import KEY_TAG, plain_tags, specification
from scalarizr.storage.steps import step, wait_until

_ID = re.compile(r"snap-[0-9a-f]{8,17}", re.ASCII)
# The first snapshot of a large volume takes hours.
_USABLE_WITHIN = 24 * 3600.0
_LONGEST_STILL = 20.0
_PATIENT_FOR = 300.0
# EC2 takes one snapshot of a volume in 15 s.
_LONGEST_PAUSE = 16.0
# What a request made whose answer was lost shows up within this.
_SHOWS_UP_WITHIN = 3.0
_LONGEST_DESCRIPTION = 255


def identity(snapshot: dict[str, Any], path: str) -> str:
    """Give the id of a snapshot's dict.

    :param path: the parameter's name, for errors.
    :raises InvalidParameter: it is none of EBS.
    """
    kind, found = snapshot.get("type"), snapshot.get("id")
    if kind != "ebs":
        raise InvalidParameter(f"{path}.type", shown(kind), "ebs, like the volume")
    if not isinstance(found, str) or not _ID.fullmatch(found):
        raise InvalidParameter(f"{path}.id", shown(found), "the id of an EBS snapshot, such as snap-0123456789abcdef0")
    return found


def facts_of(ec2: Ec2, snapshot_id: str) -> dict[str, Any] | None:
    """Ask EC2 for a snapshot; None where it is gone."""
    try:
        found = ec2.call("describe_snapshots", SnapshotIds=[snapshot_id])["Snapshots"]
    except NotFound:
        return None
    facts: dict[str, Any] | None = next(iter(found), None)
    return facts


def present(ec2: Ec2, snapshot_id: str) -> dict[str, Any]:
    """Ask EC2 for a snapshot.

    :raises NotFound: it is gone.
    """
    facts = facts_of(ec2, snapshot_id)
    if facts is None:
        raise NotFound(f"EC2 has no snapshot {snapshot_id}. Nothing was made.", {"id": snapshot_id, "type": "ebs"})
    return facts


def shown_snapshot(facts: dict[str, Any]) -> dict[str, Any]:
    """Give the snapshot's dict of the API."""
    tags, name = plain_tags(facts.get("Tags", []))
    return {
        "type": "ebs",
        "id": facts["SnapshotId"],
        "description": facts.get("Description") or "",
        "tags": {**tags, **({"Name": name} if name is not None else {})},
        "status": facts["State"],
        "size": facts["VolumeSize"],
        "volume": facts.get("VolumeId"),
        "encrypted": bool(facts.get("Encrypted")),
        "started_at": facts["StartTime"].timestamp() if facts.get("StartTime") else None,
    }


def usable(ec2: Ec2, snapshot_id: str) -> dict[str, Any]:
    """Wait until a snapshot is complete.

    :return: what EC2 says of it.
    :raises NotFound: there is none.
    :raises OutsideFailure: it failed.
    """

    def look() -> dict[str, Any] | None:
        facts = present(ec2, snapshot_id)
        if facts["State"] == "completed":
            return facts
        if facts["State"] != "pending":
            raise OutsideFailure(
                f"The snapshot {snapshot_id} cannot be used: it is in the state {facts['State']}"
                f"{': ' + facts['StateMessage'] if facts.get('StateMessage') else ''}."
            )
        percent = str(facts.get("Progress") or "0%").rstrip("%")
        if percent.isdecimal():
            current().progress(int(percent), 100, "%", f"waiting for {snapshot_id}")
        return None

    return wait_until(look, f"waiting for {snapshot_id}", limit=_USABLE_WITHIN, pause=0.5, longest_pause=15)


def made_under(ec2: Ec2, key: str) -> list[dict[str, Any]]:
    """Give the snapshots that carry a key of the agent's."""
    found: list[dict[str, Any]] = ec2.call(
        "describe_snapshots", OwnerIds=["self"], Filters=[{"Name": f"tag:{KEY_TAG}", "Values": [key]}]
    )["Snapshots"]
    return found


def take(
    ec2: Ec2,
    volume_id: str,
    key: str,
    description: str,
    tags: dict[str, str],
    still: Still,
    limit: float,
    *,
    part: bool,
) -> dict[str, Any]:
    """Take a snapshot of a volume and wait for it.

    EC2's snapshot is of the instant in which it is asked for. So the file system is still for one request, which is not
    repeated in that time: where EC2 is overloaded, the file system runs on meanwhile.

    :param key: names it.
    :param still: `with still():` freezes the file system.
    :param limit: seconds that it may be frozen.
    :param part: the volume is part of another, whose file system is frozen all the while: nothing is waited for, and
        the snapshot is complete later.
    :return: the snapshot's dict.
    """
    if len(description) > _LONGEST_DESCRIPTION:
        raise InvalidParameter("description", shown(description), f"{_LONGEST_DESCRIPTION} characters at most")
    seconds = min(_LONGEST_STILL, limit / 3)
    request = {
        "VolumeId": volume_id,
        "Description": description,
        "TagSpecifications": specification("snapshot", key, tags),
    }
    deadline = time.monotonic() + (seconds if part else _PATIENT_FOR)
    pause = 1.0
    while True:
        step(f"taking a snapshot of {volume_id}")
        try:
            # So that neither the connection nor the credentials are waited for in the stillness.
            ec2.call_once("describe_volumes", seconds, VolumeIds=[volume_id])
            with still():
                made = ec2.call_once("create_snapshot", seconds, **request)
            break
        except ScalarizrError as failure:
            if not may_pass(failure):
                raise
            if code_of(failure) not in THROTTLED:
                # It may be made later than the file system was still.
                give_up(ec2, key)
            if time.monotonic() + pause >= deadline:
                raise
            current().log(f"{failure.message} Asking again in {pause:.0f} s, the file system running on meanwhile.")
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
    identity = str(made["SnapshotId"])
    return shown_snapshot({"Tags": [], **made} if part else _settled(ec2, identity))


def _settled(ec2: Ec2, snapshot_id: str) -> dict[str, Any]:
    """Wait for a snapshot just asked for, of which not all of EC2 may know yet."""
    try:
        wait_until(lambda: facts_of(ec2, snapshot_id), f"waiting for {snapshot_id}", limit=30)
    except TimedOut as late:
        raise OutsideFailure(f"EC2 said that it took {snapshot_id}, and does not know it.") from late
    return usable(ec2, snapshot_id)


def delete(ec2: Ec2, snapshot_id: str) -> None:
    """Delete a snapshot; one that is gone stays so.

    :raises Refused: an image of the account needs it.
    """
    try:
        ec2.call("delete_snapshot", SnapshotId=snapshot_id)
    except ScalarizrError as failure:
        if code_of(failure) != "InvalidSnapshot.NotFound":
            raise


def give_up(ec2: Ec2, key: str) -> None:
    """Delete whatever was made under a key, also by a request whose answer was lost."""
    deadline = time.monotonic() + _SHOWS_UP_WITHIN
    while True:
        found = made_under(ec2, key)
        for facts in found:
            delete(ec2, facts["SnapshotId"])
        if found or time.monotonic() >= deadline:
            return
        time.sleep(1)
