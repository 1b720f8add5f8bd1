"""LVM2 through its own programs: what groups, logical and physical volumes there are, and each change of them.

Everything is found by UUIDs and tags. Names are LVM's allow-list, and narrower.
"""

import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from scalarizr.errors import InvalidParameter, NotSupported, OutsideFailure
from scalarizr.host.paths import HostPaths
from scalarizr.host.run import Finished, run
from scalarizr.operations.progress import current
from scalarizr.rpc.types import shown

_TIMEOUT = 120.0
_CHANGE_TIMEOUT = 600.0
# lvm(8), "VALID NAMES": what begins or contains these is LVM's own.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,59}", re.ASCII)
_RESERVED = re.compile(
    r"\A(?:snapshot|pvmove)|_(?:cdata|cmeta|corig|cvol|iorig|mimage|mlog|pmspare|rimage|rmeta|tdata|tmeta|vdata|vorigin|wcorig)"
)
_UUID = re.compile(r"[A-Za-z0-9]{6}(?:-[A-Za-z0-9]{4}){5}-[A-Za-z0-9]{6}", re.ASCII)
_GROUP_COLUMNS = (
    "vg_uuid,vg_name,vg_tags,vg_extent_size,vg_extent_count,vg_free_count,vg_missing_pv_count,lv_count,snap_count"
)
_LOGICAL_COLUMNS = (
    "lv_uuid,lv_name,vg_uuid,vg_name,lv_size,lv_tags,lv_attr,lv_active,lv_path,lv_dm_path,origin,origin_uuid,"
    "origin_size,snap_percent"
)
_PHYSICAL_COLUMNS = "pv_uuid,pv_name,vg_uuid,vg_name,pv_missing,pv_pe_count"


class Group(msgspec.Struct, frozen=True):
    """A volume group.

    :param uuid: its UUID.
    :param name: its name.
    :param tags: its tags.
    :param extent: bytes of an extent.
    :param extents: how many it has.
    :param free: how many of them are free.
    :param missing: how many of its physical volumes are missing.
    :param volumes: how many logical volumes it has, snapshots among them.
    """

    uuid: str
    name: str
    tags: list[str]
    extent: int
    extents: int
    free: int
    missing: int
    volumes: int


class Logical(msgspec.Struct, frozen=True):
    """A logical volume, or a snapshot of one.

    :param uuid: its UUID.
    :param name: its name.
    :param group_uuid: its group's UUID.
    :param group: its group's name.
    :param size: bytes; of a snapshot the space for what it keeps.
    :param tags: its tags.
    :param active: whether it has a device.
    :param path: its device.
    :param mapper_path: the same device by device mapper's own name.
    :param origin_uuid: of a snapshot: what it was taken of; else "".
    :param origin_size: of a snapshot: bytes of what it shows; else 0.
    :param used: of a snapshot: the percentage of its space that is used; None where that is not known.
    :param invalid: of a snapshot: its space was used up, and it shows nothing any more.
    """

    uuid: str
    name: str
    group_uuid: str
    group: str
    size: int
    tags: list[str]
    active: bool
    path: str
    mapper_path: str
    origin_uuid: str
    origin_size: int
    used: float | None
    invalid: bool

    @property
    def full_name(self) -> str:
        return f"{self.group}/{self.name}"


class Physical(msgspec.Struct, frozen=True):
    """A physical volume.

    :param uuid: its UUID.
    :param device: its device; a word of LVM's where that is missing.
    :param group_uuid: its group's UUID; "" without one.
    :param missing: its device is not there.
    """

    uuid: str
    device: str
    group_uuid: str
    missing: bool


def check_name(name: str, path: str) -> str:
    """Give a group's or logical volume's name back that may be one.

    :raises InvalidParameter: it may not.
    """
    if not _NAME.fullmatch(name) or _RESERVED.search(name) or name in (".", ".."):
        raise InvalidParameter(
            path, shown(name), "a name of LVM: at most 60 letters, digits and _.+-, none that LVM uses itself"
        )
    return name


def is_uuid(text: str) -> bool:
    """Tell whether a text has the form of LVM's UUIDs."""
    return _UUID.fullmatch(text) is not None


def require_lvm(host: HostPaths) -> None:
    """See that this host has LVM.

    :raises NotSupported: its programs are missing, or its kernel has no device mapper.
    """
    if shutil.which("lvm") is None:
        raise NotSupported("LVM's programs are not installed. Nothing was changed; install the package lvm2.")
    driver = host.sys / "class" / "misc" / "device-mapper"
    if not driver.exists():
        run(["modprobe", "--quiet", "dm_mod"], timeout=30) if shutil.which("modprobe") else None
        if not driver.exists():
            raise NotSupported("This host's kernel has no device mapper, which LVM needs. Nothing was changed.")


def groups() -> list[Group]:
    """Give every volume group that is visible here."""
    return parse_groups(_report("vgs", _GROUP_COLUMNS))


def logical_volumes() -> list[Logical]:
    """Give every logical volume that is visible here."""
    return parse_logical_volumes(_report("lvs", _LOGICAL_COLUMNS))


def physical_volumes() -> list[Physical]:
    """Give every physical volume that is visible here."""
    return parse_physical_volumes(_report("pvs", _PHYSICAL_COLUMNS))


def parse_groups(report: bytes) -> list[Group]:
    """Read what `vgs --reportformat json` printed."""
    return [
        Group(
            row["vg_uuid"],
            row["vg_name"],
            _list(row["vg_tags"]),
            int(row["vg_extent_size"]),
            int(row["vg_extent_count"]),
            int(row["vg_free_count"]),
            int(row["vg_missing_pv_count"]),
            int(row["lv_count"]),
        )
        for row in _rows(report, "vg")
    ]


def parse_logical_volumes(report: bytes) -> list[Logical]:
    """Read what `lvs --reportformat json` printed."""
    return [
        Logical(
            uuid=row["lv_uuid"],
            name=row["lv_name"],
            group_uuid=row["vg_uuid"],
            group=row["vg_name"],
            size=int(row["lv_size"]),
            tags=_list(row["lv_tags"]),
            active=row["lv_active"] == "active",
            path=row["lv_path"],
            mapper_path=row["lv_dm_path"],
            origin_uuid=row["origin_uuid"],
            origin_size=int(row["origin_size"] or 0),
            used=float(row["snap_percent"]) if row["snap_percent"] else None,
            # The fifth letter is the state: I is an invalid snapshot, S an invalid suspended one (lvs(8)).
            invalid=row["lv_attr"][4:5] in ("I", "S"),
        )
        for row in _rows(report, "lv")
    ]


def parse_physical_volumes(report: bytes) -> list[Physical]:
    """Read what `pvs --reportformat json` printed."""
    return [
        Physical(row["pv_uuid"], row["pv_name"], row["vg_uuid"], row["pv_missing"] != "") for row in _rows(report, "pv")
    ]


def change(command: Sequence[str | Path], unchanged: str) -> Finished:
    """Run one of LVM's programs that changes something.

    :param unchanged: the sentence that ends the error.
    :raises OutsideFailure: it failed; with its own words.
    """
    # One that is killed half-way may leave a device suspended, and whoever writes to it waiting for ever.
    with current().uninterrupted():
        finished = run(command, timeout=_CHANGE_TIMEOUT)
    if finished.returncode != 0:
        raise OutsideFailure(f"{command[0]} failed: {_words(finished)} {unchanged}", {"program": str(command[0])})
    return finished


def create_group(name: str, devices: Sequence[Path], tag: str) -> None:
    """Make a volume group of devices that hold nothing.

    It is asked before anything is overwritten that LVM finds on one of them, and nobody answers: then it fails.
    """
    change(["vgcreate", "--addtag", tag, "--", name, *devices], "Nothing was made.")


def extend_group(name: str, devices: Sequence[Path]) -> None:
    """Add devices that hold nothing to a group."""
    change(["vgextend", "--", name, *devices], "The group is as it was.")


def take_out_of_group(name: str, device: str) -> None:
    """Take an unused device out of a group, and its label off it."""
    change(["vgreduce", "--", name, device], "The group is as it was.")
    remove_label(device)


def remove_group(name: str, devices: Sequence[str]) -> None:
    """Remove a group without logical volumes, and the labels of its devices.

    It fails, and says so, where the group has any: nothing here ever removes one along with it.
    """
    change(["vgremove", "--", name], "The group is as it was.")
    for device in devices:
        remove_label(device)


def remove_label(device: str) -> None:
    """Take LVM's label off a device that belongs to no group."""
    change(["pvremove", "--", device], f"{device} is still labelled as a physical volume.")


def create_logical(group: str, name: str, extents: int, tags: Sequence[str]) -> None:
    """Make a logical volume; what was found of earlier times in its space is wiped, since the space is its own now."""
    change(
        [
            *("lvcreate", "--yes", "--wipesignatures", "y", "--zero", "y", "--extents", str(extents)),
            *_tagged(tags),
            *("--name", name, "--", group),
        ],
        "No logical volume was made.",
    )


def create_snapshot(origin: Logical, name: str, extents: int, tags: Sequence[str]) -> None:
    """Take a snapshot; LVM holds the file system on it still for the instant."""
    change(
        [
            *("lvcreate", "--yes", "--snapshot", "--extents", str(extents)),
            *_tagged(tags),
            *("--name", name, "--", origin.full_name),
        ],
        "No snapshot was taken.",
    )


def remove_logical(volume: Logical) -> None:
    """Remove a logical volume that nobody has open."""
    change(["lvremove", "--yes", "--", volume.full_name], "It is still there.")


def resize_logical(volume: Logical, extents: int) -> None:
    """Give a logical volume another size. What is on it is not looked at."""
    change(
        ["lvresize", "--yes", "--force", "--extents", str(extents), "--", volume.full_name], "Its size is as it was."
    )


def remove_tag(volume: Logical, tag: str) -> None:
    """Take a tag off a logical volume."""
    change(["lvchange", "--deltag", tag, "--", volume.full_name], "Its tags are as they were.")


def activate(volume: Logical) -> None:
    """Give a logical volume its device."""
    change(["lvchange", "--yes", "--activate", "y", "--", volume.full_name], "It is not active.")


def deactivate(volume: Logical, patience: float = 10.0) -> None:
    """Take the device from a logical volume, as soon as nobody has it open: udev's programs do, for an instant.

    :raises OutsideFailure: somebody has it open for longer.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            change(["lvchange", "--activate", "n", "--", volume.full_name], "It is still active, and unchanged.")
        except OutsideFailure:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.3)
        else:
            return


def deactivate_group(name: str) -> None:
    """Take the devices of all of a group's logical volumes, where nobody has one open."""
    change(["vgchange", "--activate", "n", "--", name], "The group is still active.")


def _tagged(tags: Sequence[str]) -> list[str]:
    return [word for tag in tags for word in ("--addtag", tag)]


def _report(program: str, columns: str) -> bytes:
    finished = run(
        [program, "--reportformat", "json", "--units", "b", "--nosuffix", "--options", columns],
        timeout=_TIMEOUT,
        output_limit=64 << 20,
    )
    # 5: something failed for one group (a device that is missing), the rest is in the report.
    if finished.returncode not in (0, 5):
        raise OutsideFailure(f"{program} failed: {_words(finished)} Nothing was changed.", {"program": program})
    return finished.stdout


def _rows(report: bytes, kind: str) -> list[dict[str, str]]:
    try:
        decoded: Any = msgspec.json.decode(report)
        return [row for part in decoded["report"] for row in part.get(kind, ())]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise OutsideFailure(f"What LVM reports cannot be read: {error}. Nothing was changed.") from error


def _list(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _words(finished: Finished) -> str:
    words = " ".join(finished.last_words().split())
    return words if words.endswith(".") else f"{words}."
