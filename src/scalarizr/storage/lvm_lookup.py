"""Finding groups, logical volumes and devices of LVM by what identifies them, and what may be done with them."""

import contextlib
from pathlib import Path
from typing import Any

from scalarizr.errors import InvalidParameter, Refused, ScalarizrError
from scalarizr.rpc.types import shown
from scalarizr.storage import devices, filesystems, lvm_programs
from scalarizr.storage.lvm_programs import Group, Logical
from scalarizr.storage.model import size_in_gigabytes


def require_unused(device: str) -> None:
    """See that a device holds nothing but, perhaps, the label of a physical volume without a group: an earlier try's.

    :raises Refused: it holds more; names what.
    """
    holds = devices.contents(Path(device))
    if holds.empty:
        return
    label = next((one for one in lvm_programs.physical_volumes() if number_of(one.device) == number_of(device)), None)
    if label is None or label.group_uuid or len(holds.found) > 1:
        raise Refused(
            f"{device} is not used: it holds {', '.join(holds.found)}. Nothing on it was changed.",
            {"device": device, "found": list(holds.found)},
        )


def fits(device: Path, size: int) -> bool:
    """Tell whether nothing that is on a device would be cut off at a size: what cannot be told, would."""
    try:
        holds = devices.contents(device)
        if holds.fstype is None:
            return holds.empty
        return filesystems.filesystem_size(device, holds.fstype) <= size
    except ScalarizrError:
        return False


def visible() -> list[Logical]:
    """Give every logical volume here, snapshots among them."""
    return lvm_programs.logical_volumes()


def tagged(tag: str) -> Logical | None:
    """Give the logical volume that carries a tag."""
    return next((one for one in visible() if tag in one.tags), None)


def group_named(name: str | None) -> Group | None:
    """Give the group of a name."""
    return next((one for one in lvm_programs.groups() if one.name == name), None) if name is not None else None


def logical_named(group: Group | None, name: str) -> Logical | None:
    """Give a group's logical volume of a name."""
    if group is None:
        return None
    return next((one for one in visible() if one.group_uuid == group.uuid and one.name == name), None)


def snapshots_of(volume: Logical) -> list[Logical]:
    """Give the snapshots of a logical volume."""
    return [one for one in visible() if one.origin_uuid == volume.uuid]


def devices_in(group_uuid: str) -> list[str]:
    """Give the devices of a group that are here."""
    return [one.device for one in lvm_programs.physical_volumes() if one.group_uuid == group_uuid and not one.missing]


def number_of(device: str | None) -> int | None:
    """Give a device's number; None where there is no such device."""
    with contextlib.suppress(ScalarizrError):
        return devices.device_number(Path(device)) if device else None
    return None


def uuid_of(identity: object, prefix: str, path: str = "volume.id") -> str:
    """Give the UUID that is in an id.

    :raises InvalidParameter: it is no id of ours.
    """
    text = identity if isinstance(identity, str) else ""
    if not text.startswith(prefix) or not lvm_programs.is_uuid(text[len(prefix) :]):
        raise InvalidParameter(path, shown(identity), f"an id that begins with {prefix}, as storage.create gave it")
    return text[len(prefix) :]


def at_most(group: Group, extents: int) -> str:
    """Say how large something may be in a group."""
    return f"at most the {size_in_gigabytes(extents * group.extent)} GB that are free in {group.name}"


def without(private: dict[str, Any], name: str) -> dict[str, Any]:
    """Give a record's private notes without one."""
    return {key: value for key, value in private.items() if key != name}
