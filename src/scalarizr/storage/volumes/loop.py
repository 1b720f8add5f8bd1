"""`loop`: a sparse file as a block device. The embedded default: it works on any Linux."""

import contextlib
import os
import stat
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from scalarizr.errors import InvalidParameter, NotFound, OutsideFailure, Refused
from scalarizr.host.files import fsync_directory, fsync_file, make_private_directory
from scalarizr.host.run import run
from scalarizr.operations.progress import current
from scalarizr.rpc.types import shown
from scalarizr.storage import devices, filesystems, images, loop_devices, mounting
from scalarizr.storage.context import Still
from scalarizr.storage.model import Volume, size_in_bytes, size_in_gigabytes
from scalarizr.storage.records import Record
from scalarizr.storage.steps import wait_until
from scalarizr.storage.volume_type import VolumeType, growth_to_size

_UNIT = 4096
_SMALLEST = 1 << 20
_SMALLEST_NUMBER = "0.001"


class LoopVolume(Volume, frozen=True, kw_only=True):
    """A `loop` volume.

    :param file: its image; made in `[storage] loop_dir` when not named.
    :param zerofill: take all of its space from the disk at once, so that it cannot run out later.
    """

    file: str | None = None
    zerofill: bool = False


class LoopVolumes(VolumeType):
    """Volumes of type `loop`."""

    name: ClassVar[str] = "loop"
    config: ClassVar[type[Volume]] = LoopVolume

    @property
    def directory(self) -> Path:
        """Where images are made."""
        return self.context.settings.storage.loop_dir or self.context.state / "volumes"

    def check(self, volume: LoopVolume, path: str) -> None:
        if volume.file is not None:
            file = _checked_file(volume.file, path)
            if os.path.lexists(file):
                self._check_foreign(volume, file, path)
                return
            directory = file.parent
        else:
            directory = self.directory
        if volume.snap is not None:
            smallest = self._snapshot_file(volume.snap, path).stat().st_size
            if volume.size is not None and self._bytes(volume, path) < smallest:
                expected = f"at least {size_in_gigabytes(smallest)} GB, the size of the snapshot"
                raise InvalidParameter(f"{path}.size", shown(volume.size), expected)
        elif volume.size is None:
            raise InvalidParameter(f"{path}.size", None, 'a size in GB, or a percentage such as "75%ROOT"')
        if volume.size is not None:
            self._check_room(self._bytes(volume, path), directory, volume.size, f"{path}.size")

    def _bytes(self, volume: LoopVolume, path: str) -> int:
        assert volume.size is not None
        root = os.statvfs("/")
        size = size_in_bytes(volume.size, f"{path}.size", {"ROOT": root.f_blocks * root.f_frsize}, _UNIT)
        if size < _SMALLEST:
            raise InvalidParameter(f"{path}.size", shown(volume.size), f"at least {_SMALLEST_NUMBER} GB")
        return size

    def _check_room(self, needed: int, directory: Path, size: object, path: str) -> None:
        place = directory
        while not place.exists():
            place = place.parent
        free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
        if needed > free:
            expected = f"at most {size_in_gigabytes(free)} GB, which is what is free in {directory}"
            raise InvalidParameter(path, shown(size), expected)

    def _check_foreign(self, volume: LoopVolume, file: Path, path: str) -> None:
        """Refuse a file that is no image: what is there already is used as it is, and never deleted."""
        status = file.lstat()
        whole = status.st_size >= _SMALLEST and status.st_size % 512 == 0
        if not stat.S_ISREG(status.st_mode) or not whole or status.st_nlink > 1:
            expected = "the name of a new file, or an image of at least 1 MiB that has no other name"
            raise InvalidParameter(f"{path}.file", shown(volume.file), expected)
        if volume.snap is not None or volume.zerofill:
            raise InvalidParameter(f"{path}.file", shown(volume.file), "the name of a new file: there is one already")
        if volume.size is not None and self._bytes(volume, path) != status.st_size:
            expected = f"{size_in_gigabytes(status.st_size)} GB, or nothing: {file} is there already"
            raise InvalidParameter(f"{path}.size", shown(volume.size), expected)

    def find(self, volume: LoopVolume) -> LoopVolume | None:
        record = self.context.records.of_id("volume", volume.id or "")
        if record is None or record.state == "destroyed" or record.type != self.name:
            return None
        return self._of_record(volume, record)

    def find_made(self, volume: LoopVolume, key: str) -> LoopVolume | None:
        record = self.context.records.find(key)
        return self._of_record(volume, record) if record is not None else None

    def _of_record(self, volume: LoopVolume, record: Record) -> LoopVolume | None:
        named = record.private.get("file")
        if not named or not os.path.isfile(named):
            return None
        file = Path(named)
        device = loop_devices.loop_device_of(self.context.host, file)
        return msgspec.structs.replace(
            volume,
            id=record.id or _id_of(record.key),
            file=named,
            size=_size(volume.size, file.stat().st_size),
            device=str(device) if device is not None else None,
        )

    def make(self, volume: LoopVolume, key: str) -> tuple[LoopVolume, bool]:
        record = self._record(key)
        identity = _id_of(key)
        file = Path(volume.file) if volume.file is not None else self.directory / f"{identity}.img"
        ours = not os.path.lexists(file) or bool(record.private.get("making"))
        record = self.context.records.put(record, private={"file": str(file), "making": ours})
        if ours and not os.path.lexists(file):
            if volume.file is None:
                make_private_directory(self.directory)
            if volume.snap is not None:
                size = self._bytes(volume, "storage_config") if volume.size is not None else None
                images.copy_image(self._snapshot_file(volume.snap, "storage_config"), file, size=size)
            else:
                images.make_image(file, self._bytes(volume, "storage_config"), filled=volume.zerofill)
        status = file.stat()
        inode = [status.st_dev, status.st_ino]
        self.context.records.put(record, private={**record.private, "inode": inode})
        made = msgspec.structs.replace(volume, id=identity, file=str(file), size=_size(volume.size, status.st_size))
        return made, ours

    def attach(self, volume: LoopVolume) -> LoopVolume:
        device = loop_devices.attach(self.context.host, Path(volume.file or ""))
        return msgspec.structs.replace(volume, device=str(device))

    def detach(self, volume: LoopVolume, force: bool) -> None:
        host, file = self.context.host, Path(volume.file or "")
        device = loop_devices.loop_device_of(host, file)
        if device is None:
            return
        loop_devices.detach(device)
        if not force:
            wait_until(
                lambda: loop_devices.loop_device_of(host, file) is None or None,
                f"detaching {volume.id}",
                limit=15,
                pause=0.01,
            )

    def delete(self, volume: LoopVolume, force: bool) -> None:
        record = self.context.records.of_id("volume", volume.id or "")
        self._delete_file(record, Path(volume.file or ""))

    def _delete_file(self, record: Record | None, file: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            status = file.lstat()
            recorded = record.private.get("inode") if record is not None else None
            if record is not None and recorded is not None and recorded != [status.st_dev, status.st_ino]:
                raise Refused(
                    f"{file} is not the file that this agent made: another stands in its place. It was not deleted.",
                    {"file": str(file)},
                )
            os.unlink(file)
        with contextlib.suppress(FileNotFoundError):
            fsync_directory(file.parent)

    def give_up(self, volume: LoopVolume, key: str) -> None:
        record = self.context.records.find(key)
        named = record.private.get("file") if record is not None else None
        if record is None or not named:
            return
        file = Path(named)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(images.partial_of(file))
        made = self._of_record(volume, record)
        if made is not None:
            self.detach(made, force=True)
        if record.private.get("making"):
            self._delete_file(record, file)

    def fstab_source(self, volume: LoopVolume, uuid: str | None) -> tuple[str, tuple[str, ...]]:
        return volume.file or "", ("loop",)

    def fstab_sources(self, volume: LoopVolume, uuid: str | None) -> list[str]:
        return [*([volume.file] if volume.file else []), *super().fstab_sources(volume, uuid)]

    # Snapshots

    def snapshot(
        self, volume: LoopVolume, key: str, description: str, tags: dict[str, str], still: Still
    ) -> dict[str, Any]:
        source = Path(volume.file or "")
        identity = f"loop-snap-{key[:12]}"
        file = source.parent / f"{identity}.snap"
        self.context.records.put(self._record(key), private={**self._record(key).private, "file": str(file)})
        with images.forming(file) as target, images.reading(source) as original:
            if not self._shared(original, target, still):
                self._copied(volume, original, target, still, file)
            size = os.fstat(original).st_size
        return {
            "type": self.name,
            "id": identity,
            "description": description,
            "tags": tags,
            "status": "completed",
            "size": _size(volume.size, size),
            "fstype": volume.fstype,
            "file": str(file),
        }

    def _shared(self, original: int, target: int, still: Still) -> bool:
        # Outside of the freeze first: it finds out whether it can be, and writes what is dirty. The second replaces it.
        if not images.share(original, target):
            return False
        with still():
            return images.share(original, target)

    def _copied(self, volume: LoopVolume, original: int, target: int, still: Still, file: Path) -> None:
        """Copy what is in the image under the freeze, where that is short enough."""
        if not volume.zerofill and volume.device is not None:
            # What the file system does not use any more is not copied either.
            for mpoint in mounting.mount_points(self.context.host, Path(volume.device))[:1]:
                run(["fstrim", mpoint], timeout=600)
        os.fsync(original)
        used = images.used_bytes(original)
        free = os.statvfs(file.parent).f_bavail * os.statvfs(file.parent).f_frsize
        if used > free:
            raise Refused(
                f"The snapshot needs {size_in_gigabytes(used)} GB, and {file.parent} has {size_in_gigabytes(free)} GB "
                "free. Nothing was changed."
            )
        limit = self.context.settings.storage.freeze_limit
        seconds = used / images.copy_speed(original, file.parent)
        if volume.device is not None and seconds > limit:
            raise Refused(
                f"The file system of {volume.id} would stand still for about {seconds:.0f} s while "
                f"{size_in_gigabytes(used)} GB are copied: [storage] freeze_limit allows {limit:g} s. Nothing was "
                "changed; images on XFS or btrfs are shared in an instant instead.",
                {"seconds": round(seconds), "limit": float(limit)},
            )
        with still():
            images.copy(original, target, f"copying {volume.id}")

    def find_snapshot(self, snapshot: dict[str, Any]) -> dict[str, Any] | None:
        record = self.context.records.of_id("snapshot", str(snapshot.get("id")))
        if record is None or record.type != self.name or record.state != "present":
            return None
        return record.data if os.path.isfile(record.private["file"]) else None

    def delete_snapshot(self, snapshot: dict[str, Any]) -> None:
        record = self.context.records.of_id("snapshot", str(snapshot.get("id")))
        if record is not None:
            self._delete_file(None, Path(record.private["file"]))

    def give_up_snapshot(self, key: str, volume: Any) -> None:
        record = self.context.records.find(key)
        named = record.private.get("file") if record is not None else None
        if named:
            for file in (images.partial_of(Path(named)), Path(named)):
                self._delete_file(None, file)

    def _snapshot_file(self, snap: dict[str, Any], path: str) -> Path:
        identity = snap.get("id")
        record = self.context.records.of_id("snapshot", identity) if isinstance(identity, str) else None
        if record is None or record.type != self.name or record.state != "present":
            raise NotFound(
                f"This agent has no snapshot {str(identity)[:200]} of type loop. Nothing was made.",
                {"parameter": f"{path}.snap", "id": str(identity)[:200]},
            )
        file = Path(record.private["file"])
        if not file.is_file():
            raise NotFound(
                f"The file {file} of the snapshot {identity} is gone. Nothing was made.", {"file": str(file)}
            )
        return file

    # Growing

    def check_growth(self, volume: LoopVolume, growth: dict[str, Any]) -> None:
        size = growth_to_size(growth, ("size",), self.name)
        wished = self._bytes(msgspec.structs.replace(volume, size=size), "growth")
        present = Path(volume.file or "").stat()
        if wished <= present.st_size:
            expected = f"more than the {size_in_gigabytes(present.st_size)} GB that it has"
            raise InvalidParameter("growth.size", shown(size), expected)
        self._check_room(wished - present.st_blocks * 512, Path(volume.file or "").parent, size, "growth.size")

    def grow(self, volume: LoopVolume, growth: dict[str, Any]) -> LoopVolume:
        wished = self._bytes(msgspec.structs.replace(volume, size=growth["size"]), "growth")
        file = Path(volume.file or "")
        before = file.stat().st_size
        try:
            with open(file, "r+b") as image:
                os.ftruncate(image.fileno(), wished)
                if volume.zerofill:
                    images.fill(image.fileno(), before, wished)
                os.fsync(image.fileno())
            if volume.device is not None:
                loop_devices.notice_size(Path(volume.device))
        except OSError as error:
            self._resize(file, before, volume.device)
            raise OutsideFailure(
                f"{file} cannot grow: {error.strerror}. It is as it was.", {"file": str(file)}
            ) from error
        return msgspec.structs.replace(volume, size=_size(growth["size"], wished))

    def shrink_back(self, volume: LoopVolume, grown: LoopVolume) -> None:
        file = Path(grown.file or "")
        before = _bytes_of(volume.size)
        if before == 0 or file.stat().st_size <= before:
            return
        used = before
        if grown.device is not None:
            held = devices.contents(Path(grown.device))
            used = filesystems.filesystem_size(Path(grown.device), held.fstype) if held.fstype else before
        if used <= before:
            self._resize(file, before, grown.device)
        else:
            current().log(f"the file system of {grown.id} had grown already, and stays so")

    def _resize(self, file: Path, size: int, device: str | None) -> None:
        os.truncate(file, size)
        fsync_file(file)
        if device is not None:
            loop_devices.notice_size(Path(device))

    def _record(self, key: str) -> Record:
        record = self.context.records.find(key)
        assert record is not None, "a record is there before the thing that it records"
        return record


def _id_of(key: str) -> str:
    return f"loop-vol-{key[:12]}"


def _checked_file(name: str, path: str) -> Path:
    file = Path(name)
    if (
        not file.is_absolute()
        or os.path.normpath(name) != name
        or not name.isprintable()
        or len(name) > 1000
        or not file.parent.is_dir()
        or file.parent.resolve() != file.parent
        or file.name.startswith(".")
    ):
        raise InvalidParameter(
            f"{path}.file", shown(name), "an absolute path without links in it, in a directory that exists"
        )
    return file


def _bytes_of(size: float | str | None) -> int:
    return 0 if size is None or isinstance(size, str) else size_in_bytes(size, "size", None, _UNIT)


def _size(said: float | str | None, size: int) -> float | int:
    """Give the size in the caller's own words where it is that."""
    if said is not None and not isinstance(said, str) and _bytes_of(said) == size:
        return said
    return size_in_gigabytes(size)
