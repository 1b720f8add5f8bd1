"""MD arrays through mdadm and sysfs: which there are, what they are made of, how far they are synchronised, and each
change of them. An array is known by its UUID alone: names and numbers change from boot to boot."""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from scalarizr.errors import NotSupported, OutsideFailure, TimedOut
from scalarizr.host.paths import HostPaths
from scalarizr.host.run import Finished, run
from scalarizr.operations.progress import current

_TIMEOUT = 120.0
_SECTOR = 512
# linux/raid/md_p.h: where a superblock of version 1.2 is, and what it begins with; its UUID follows at 16.
_SUPERBLOCK = 4096
_MAGIC = 0xA92B4EFC.to_bytes(4, "little")
_UUID = re.compile(r"[0-9a-f]{8}(?::[0-9a-f]{8}){3}", re.ASCII)
_MODULES = {0: "raid0", 1: "raid1", 5: "raid456", 10: "raid10"}
# A synchronisation that stands still for so long does not go on by itself.
_STANDSTILL = 900.0
# The kernel begins by itself, a moment after it was told.
_BEGINS_WITHIN = 60.0
_STOP_PATIENCE = 15.0


class Member(msgspec.Struct, frozen=True):
    """A device of an array.

    :param device: such as `/dev/sdb`.
    :param place: which of the array's disks it is, from 0; None for a spare and for one that failed.
    :param states: the kernel's words: in_sync, spare, faulty, want_replacement, replacement…
    """

    device: str
    place: int | None
    states: frozenset[str]

    @property
    def working(self) -> bool:
        return "in_sync" in self.states and "faulty" not in self.states


class Array(msgspec.Struct, frozen=True):
    """An array that the kernel has.

    :param name: the kernel's, such as `md127`.
    :param uuid: its UUID, as mdadm writes it.
    :param level: 0, 1, 5, 10…; None for what is none of those.
    :param state: the kernel's word: clean, active, inactive…
    :param disks: how many it is meant to have.
    :param missing: how many of them do not work.
    :param action: what is being done: idle, resync, recover, reshape, check, repair, frozen.
    :param component: bytes that are used of each disk.
    :param members: its devices.
    """

    name: str
    uuid: str
    level: int | None
    state: str
    disks: int
    missing: int
    action: str
    component: int
    members: list[Member]

    @property
    def device(self) -> str:
        return f"/dev/{self.name}"

    @property
    def running(self) -> bool:
        return self.state not in ("clear", "inactive")

    def member_at(self, place: int) -> Member | None:
        """Give the device that is one of the array's disks; not the one that is about to replace it."""
        here = [one for one in self.members if one.place == place and "replacement" not in one.states]
        return next((one for one in here if one.working), here[0] if here else None)

    def member_of(self, device: str) -> Member | None:
        """Give what a device is in it."""
        return next((one for one in self.members if same_device(one.device, device)), None)


def uuid_of_key(key: str) -> str:
    """Give the UUID of the array that is made under a key: it is known before the array is made."""
    digits = hashlib.sha256(f"array {key}".encode()).hexdigest()
    return ":".join(digits[start : start + 8] for start in (0, 8, 16, 24))


def is_uuid(text: str) -> bool:
    """Tell whether a text has the form of an array's UUID."""
    return _UUID.fullmatch(text) is not None


def require_md(host: HostPaths, level: int) -> None:
    """See that this host can run arrays of a level.

    :raises NotSupported: mdadm is missing, or the kernel's part is.
    """
    if shutil.which("mdadm") is None:
        raise NotSupported("mdadm is not installed. Nothing was changed; install the package mdadm.")
    if not _kernel_knows(host, level) and shutil.which("modprobe") is not None:
        run(["modprobe", "--quiet", _MODULES[level]], timeout=30)
    if not _kernel_knows(host, level):
        raise NotSupported(f"This host's kernel has no RAID of level {level}. Nothing was changed.")


def _kernel_knows(host: HostPaths, level: int) -> bool:
    try:
        first = (host.proc / "mdstat").read_text().partition("\n")[0]
    except OSError:
        return False
    return f"[raid{level}]" in first.split()


def arrays(host: HostPaths) -> list[Array]:
    """Give every array that the kernel has."""
    found = []
    for directory in sorted((host.sys / "block").glob("md*")):
        array = read_array(directory)
        if array is not None:
            found.append(msgspec.structs.replace(array, uuid=_uuid_of(array)))
    return found


def find_array(host: HostPaths, uuid: str) -> Array | None:
    """Give the array of a UUID; the one that runs, where there are parts of it twice."""
    found = [one for one in arrays(host) if one.uuid == uuid]
    return next((one for one in found if one.running), found[0] if found else None)


def read_array(directory: Path) -> Array | None:
    """Read what the kernel shows of an array; all but its UUID, which it does not show.

    :param directory: in sysfs, such as `/sys/block/md127`.
    :return: None where there is none.
    """
    md = directory / "md"
    state = _read(md / "array_state")
    if state in ("", "clear"):
        return None
    level = _read(md / "level").removeprefix("raid")
    members = []
    for entry in sorted(md.glob("dev-*")):
        place = _read(entry / "slot")
        device = os.path.basename(os.path.realpath(entry / "block"))
        states = frozenset(word.strip() for word in _read(entry / "state").split(",") if word.strip())
        members.append(Member(f"/dev/{device}", int(place) if place.isdigit() else None, states))
    return Array(
        name=directory.name,
        uuid="",
        level=int(level) if level.isdigit() else None,
        state=state,
        disks=_number(_read(md / "raid_disks")),
        missing=_number(_read(md / "degraded")),
        action=_read(md / "sync_action") or "idle",
        component=_number(_read(md / "component_size")) * 1024,
        members=members,
    )


def _uuid_of(array: Array) -> str:
    uuid = _exported(["mdadm", "--detail", "--export", array.device]).get("MD_UUID", "")
    if not uuid and array.members:
        # One that is not complete yet tells nothing by itself.
        uuid = uuid_on(array.members[0].device) or ""
    return uuid


def uuid_on(device: str) -> str | None:
    """Give the UUID of the array that a device says it belongs to; None where it says nothing."""
    return superblock(device).get("MD_UUID")


def superblock(device: str) -> dict[str, str]:
    """Give what the array's superblock on a device says, by mdadm's names; empty without one."""
    return _exported(["mdadm", "--examine", "--export", device])


def devices_with(host: HostPaths, uuid: str) -> list[str]:
    """Give every device here that says it belongs to an array of ours, which have superblocks of version 1.2."""
    found = []
    for directory in sorted((host.sys / "class" / "block").iterdir()):
        if directory.name.startswith(("md", "ram", "sr", "fd")) or _read(directory / "size") in ("", "0"):
            continue
        device = f"/dev/{directory.name}"
        if _may_belong_to(device, uuid) and uuid_on(device) == uuid:
            found.append(device)
    return found


def _may_belong_to(device: str, uuid: str) -> bool:
    """Look at the superblock's first words alone: asking mdadm about each of many devices takes long (md(4))."""
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.posix_fadvise(descriptor, _SUPERBLOCK, 4096, os.POSIX_FADV_DONTNEED)
        words = os.pread(descriptor, 32, _SUPERBLOCK)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return words[:4] == _MAGIC and words[16:].hex() == uuid.replace(":", "")


def create(name: str, uuid: str, level: int, devices: Sequence[str]) -> None:
    """Make an array of devices that hold nothing.

    Its name belongs to no host, so that it is found wherever its disks are. A bitmap makes short what has to be
    synchronised after a power cut.
    """
    change(
        [
            *("mdadm", "--create", f"/dev/md/{name}", "--run", "--metadata=1.2", f"--level={level}"),
            *(f"--raid-devices={len(devices)}", f"--uuid={uuid}", "--homehost=any", f"--name={name}"),
            *(() if level == 0 else ("--bitmap=internal",)),
            *devices,
        ],
        "No array was made.",
    )
    settle()


def assemble(name: str, uuid: str, devices: Sequence[str], *, renamed: bool = False, degraded: bool = False) -> None:
    """Start an array.

    :param uuid: its UUID; with `renamed` the one that it gets: its disks are copies of those of another array.
    :param degraded: some of its disks are missing, and it is started all the same.
    """
    identity = ["--update=uuid", f"--uuid={uuid}"] if renamed else [f"--uuid={uuid}"]
    change(
        [
            *("mdadm", "--assemble", f"/dev/md/{name}", *identity),
            *(("--run",) if degraded else ()),
            *devices,
        ],
        "The array was not started; nothing on its disks was changed.",
    )
    settle()


def stop(array: Array) -> None:
    """Stop an array that nobody uses; udev's programs hold one for an instant.

    :raises OutsideFailure: somebody uses it.
    """
    deadline = time.monotonic() + _STOP_PATIENCE
    while True:
        finished = run(["mdadm", "--stop", array.device], timeout=_TIMEOUT)
        if finished.returncode == 0:
            settle()
            return
        if time.monotonic() >= deadline:
            raise OutsideFailure(
                f"The array {array.name} could not be stopped: {_words(finished)} It runs on.", {"array": array.name}
            )
        time.sleep(0.3)


def forget(device: str) -> None:
    """Take the array's superblock off a device."""
    change(["mdadm", "--zero-superblock", device], f"{device} still carries it.")


def add(array: Array, device: str) -> None:
    """Add a device as a spare; it takes the place of one that failed at once."""
    change(["mdadm", "--manage", array.device, "--add", device], "The array is as it was.")


def replace(array: Array, old: str, new: str) -> None:
    """Begin to copy one of the disks to a spare, which takes its place at the end."""
    change(["mdadm", "--manage", array.device, "--replace", old, "--with", new], "The array is as it was.")


def take_out(array: Array, device: str) -> None:
    """Take a device out of an array: at once, whatever it was."""
    member = array.member_of(device)
    if member is None:
        return
    if member.place is not None and "faulty" not in member.states:
        change(["mdadm", "--manage", array.device, "--fail", member.device], "The array is as it was.")
    deadline = time.monotonic() + _STOP_PATIENCE
    while True:
        # The kernel lets go of it only when what was under way has ended.
        finished = run(["mdadm", "--manage", array.device, "--remove", member.device], timeout=_TIMEOUT)
        if finished.returncode == 0:
            settle()
            return
        if time.monotonic() >= deadline:
            raise OutsideFailure(f"{device} could not be taken out of {array.name}: {_words(finished)}")
        time.sleep(0.3)


def keep(host: HostPaths, array: Array, member: Member) -> None:
    """Forget that one of the disks is to be replaced."""
    state = host.sys / "block" / array.name / "md" / f"dev-{os.path.basename(member.device)}" / "state"
    try:
        state.write_text("-want_replacement")
    except OSError as error:
        raise OutsideFailure(f"{member.device} is still to be replaced in {array.name}: {error.strerror}.") from error


def use_all_of_the_disks(array: Array) -> None:
    """Use the whole of disks that have become larger."""
    change(["mdadm", "--grow", array.device, "--size=max"], "The array has the size that it had.", leaves_daemon=True)


def use_more_disks(array: Array, count: int) -> None:
    """Spread an array over more disks, which were added as spares. From here on there is no way back."""
    change(["mdadm", "--grow", array.device, f"--raid-devices={count}"], "The array is as it was.", leaves_daemon=True)


def wait_until_synchronised(host: HostPaths, uuid: str, words: str, done: Callable[[Array], bool]) -> Array:
    """Wait until something that is synchronised or reshaped is as it is to be, telling how far it is.

    :param words: what is done, for people.
    :param done: tells whether the array is as it is to be.
    :return: the array as it is then; also where the kernel has not gone on with it for a minute.
    :raises OutsideFailure: it is gone.
    :raises TimedOut: it stands still.
    """
    last, moved = "", time.monotonic()
    idle_since: float | None = None
    while True:
        array = find_array(host, uuid)
        if array is None:
            raise OutsideFailure(f"The array {uuid} is not there any more while {words}.")
        now = time.monotonic()
        completed = _read(host.sys / "block" / array.name / "md" / "sync_completed")
        if array.action in ("idle", "check"):
            idle_since = now if idle_since is None else idle_since
            if done(array) or now - idle_since > _BEGINS_WITHIN:
                return array
        else:
            idle_since = None
        _tell(host, array, completed, words)
        if completed != last:
            last, moved = completed, now
        elif now - moved > _STANDSTILL:
            raise TimedOut(f"{words[:1].upper()}{words[1:]} has stood still for {_STANDSTILL:.0f} s.")
        time.sleep(0.3)


def _tell(host: HostPaths, array: Array, completed: str, words: str) -> None:
    done, total = parse_completed(completed)
    if not total:
        current().progress(0, None, "", words)
        return
    speed = _number(_read(host.sys / "block" / array.name / "md" / "sync_speed")) / 1024
    current().progress(done, total, "bytes", f"{words}: {100 * done / total:.0f} %, {speed:.0f} MB/s")


def parse_completed(text: str) -> tuple[int, int]:
    """Read the kernel's `sync_completed`: bytes done and all bytes; (0, 0) where nothing is synchronised."""
    done, slash, total = text.partition(" / ")
    if not slash or not done.strip().isdigit() or not total.strip().isdigit():
        return 0, 0
    return int(done) * _SECTOR, int(total) * _SECTOR


def is_quiet(host: HostPaths, array: Array) -> bool:
    """Tell whether the array has noted on its disks that nothing is being written."""
    return _read(host.sys / "block" / array.name / "md" / "array_state") in ("clean", "readonly", "read-auto")


def settle() -> None:
    """Wait until udev has done with what has just changed."""
    if shutil.which("udevadm") is not None:
        run(["udevadm", "settle", "--timeout=20"], timeout=30)


def same_device(one: str, other: str) -> bool:
    """Tell whether two names are the same device file."""
    return os.path.realpath(one) == os.path.realpath(other)


def change(command: Sequence[str], unchanged: str, *, leaves_daemon: bool = False) -> None:
    """Run mdadm to change something.

    :param unchanged: the sentence that ends the error.
    :raises OutsideFailure: it failed; with its own words.
    """
    # Half of an array is none.
    with current().uninterrupted():
        finished = run(command, timeout=_TIMEOUT, leaves_daemon=leaves_daemon)
    if finished.returncode != 0:
        raise OutsideFailure(f"mdadm failed: {_words(finished)} {unchanged}", {"program": "mdadm"})


def parse_exported(text: str) -> dict[str, str]:
    """Read what mdadm prints with `--export`."""
    return {name: value for name, equals, value in (line.partition("=") for line in text.splitlines()) if equals}


def _exported(command: Sequence[str]) -> dict[str, str]:
    finished = run(command, timeout=_TIMEOUT)
    return parse_exported(finished.stdout.decode("utf-8", "replace")) if finished.returncode == 0 else {}


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _words(finished: Finished) -> str:
    words = " ".join(finished.last_words().split())
    return words if words.endswith(".") else f"{words}."
