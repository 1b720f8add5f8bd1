"""Growing a volume of EBS in place: more of it, faster, of another type."""

from typing import Any

from scalarizr.errors import InvalidParameter, NotFound, OutsideFailure
from scalarizr.rpc.types import shown
from scalarizr.storage.ec2.this_server import Facts, ThisServer
from scalarizr.storage.ec2.volume_kinds import check_kind, check_value, whole
from scalarizr.storage.model import GIGABYTE, size_in_bytes
from scalarizr.storage.steps import wait_until
from scalarizr.storage.volume_type import growth_to_size

GROWS_BY = ("size", "iops", "throughput", "volume_type")
_MODIFIED_WITHIN = 600.0
_SETTLED_WITHIN = 60.0
_SEEN_WITHIN = 120.0


def modification(facts: Facts, growth: dict[str, Any]) -> dict[str, Any]:
    """Give what ModifyVolume is to be asked for, checked against what the volume is now.

    :param growth: of the API: `size`, `iops`, `throughput`, `volume_type`.
    :raises InvalidParameter: it would shrink, cannot be so, or is so already.
    """
    size = growth_to_size(growth, GROWS_BY, "a volume of type ebs")
    name = growth.get("volume_type") or facts["VolumeType"]
    if not isinstance(name, str):
        raise InvalidParameter("growth.volume_type", shown(name), "a string")
    kind = check_kind(name, "growth.volume_type")
    request: dict[str, Any] = {}
    if name != facts["VolumeType"]:
        request["VolumeType"] = name
    if size is not None:
        wanted = size_in_bytes(size, "growth.size", unit=GIGABYTE) // GIGABYTE
        if wanted < facts["Size"]:
            raise InvalidParameter("growth.size", shown(size), f"more than its {facts['Size']} GB: EBS never shrinks")
        check_value(wanted, kind.sizes, "the size in GB", name, "growth.size")
        if wanted > facts["Size"]:
            request["Size"] = wanted
    for key, limits, what in (("iops", kind.iops, "IOPS"), ("throughput", kind.throughput, "throughput in MiB/s")):
        if growth.get(key) is not None:
            value = whole(growth[key], f"growth.{key}")
            check_value(value, limits, what, name, f"growth.{key}")
            if value != facts.get(key.capitalize()):
                request[key.capitalize()] = value
    if not request:
        now = f"{facts['Size']} GB, {facts['VolumeType']}, IOPS {facts.get('Iops')}"
        raise InvalidParameter("growth", shown(growth), f"something other than what it is now: {now}")
    return request


def modify(server: ThisServer, facts: Facts, request: dict[str, Any]) -> Facts:
    """Modify a volume and wait until that can be used: by EC2, and where it is attached by the kernel.

    :param facts: what it is now.
    :param request: as `modification` gives it.
    :return: what EC2 says of it then.
    :raises OutsideFailure: EC2 could not; the volume is as it was.
    """
    identity, size = str(facts["VolumeId"]), request.get("Size")
    # On Xen it is found by the size that it has.
    device = server.device(facts)
    server.ec2.call("modify_volume", VolumeId=identity, **request)
    words = f"modifying {identity}"
    wait_until(lambda: _is_modified(server, identity), words, limit=_MODIFIED_WITHIN, pause=0.5)
    grown = wait_until(lambda: _of_size(server.present(identity), size), words, limit=_SETTLED_WITHIN, pause=0.5)
    if device is not None and size is not None:
        wait_until(
            lambda: True if server.device_size(device) >= size * GIGABYTE else None,
            f"waiting for {device} to grow",
            limit=_SEEN_WITHIN,
            longest_pause=1,
        )
    return grown


def _is_modified(server: ThisServer, identity: str) -> bool | None:
    """Tell whether the latest modification can be used: while the volume is being optimized it can."""
    try:
        found = server.ec2.call("describe_volumes_modifications", VolumeIds=[identity])["VolumesModifications"]
    except NotFound:
        return None
    latest: Facts = max(found, key=lambda one: str(one.get("StartTime")), default={})
    state = latest.get("ModificationState")
    if state == "failed":
        why = latest.get("StatusMessage") or "it gave no reason"
        raise OutsideFailure(f"EC2 could not modify {identity}: {why}. It is as it was.")
    return True if state in ("optimizing", "completed") else None


def _of_size(facts: Facts, size: int | None) -> Facts | None:
    return facts if size is None or facts["Size"] >= size else None
