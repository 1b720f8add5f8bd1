"""`tmpfs`: memory as a file system. What is in it is gone with it."""

from typing import Any, ClassVar

import msgspec

from scalarizr.errors import InvalidParameter, NotSupported, OutsideFailure
from scalarizr.host.memory import mem_info
from scalarizr.host.run import run
from scalarizr.rpc.types import shown
from scalarizr.storage.model import size_in_bytes, size_in_gigabytes
from scalarizr.storage.volume_type import VolumeType, growth_to_size

_PAGE = 4096


class TmpfsVolumes(VolumeType):
    """Volumes of type `tmpfs`."""

    name: ClassVar[str] = "tmpfs"
    memory_only: ClassVar[bool] = True

    def check(self, volume: Any, path: str) -> None:
        if volume.mpoint is None:
            raise InvalidParameter(f"{path}.mpoint", None, "a mount point: memory is nowhere else")
        if volume.snap is not None:
            raise InvalidParameter(f"{path}.snap", shown(volume.snap), "nothing: memory has no snapshots")
        if volume.fstype is not None:
            raise InvalidParameter(f"{path}.fstype", shown(volume.fstype), "nothing: it is a tmpfs")
        if volume.size is not None:
            self._check_size(volume.size, f"{path}.size")

    def _check_size(self, size: Any, path: str) -> int:
        memory = mem_info(self.context.host)
        there = (memory["total_real"] + memory["total_swap"]) * 1024
        wished = size_in_bytes(size, path, {"RAM": memory["total_real"] * 1024}, _PAGE)
        if wished > there:
            expected = f"at most {size_in_gigabytes(there)} GB, which memory and swap are together"
            raise InvalidParameter(path, shown(size), expected)
        return wished

    def find(self, volume: Any) -> Any | None:
        record = self.context.records.of_id("volume", volume.id or "")
        return None if record is None or record.type != self.name or record.state == "destroyed" else volume

    def find_made(self, volume: Any, key: str) -> Any | None:
        record = self.context.records.find(key)
        return None if record is None or record.id is None else msgspec.structs.replace(volume, id=record.id)

    def make(self, volume: Any, key: str) -> tuple[Any, bool]:
        return msgspec.structs.replace(volume, id=f"tmpfs-{key[:12]}"), True

    def attach(self, volume: Any) -> Any:
        return volume

    def detach(self, volume: Any, force: bool) -> None:
        """Unmounting it was all."""

    def delete(self, volume: Any, force: bool) -> None:
        """Unmounting it was all."""

    def mount_options(self, volume: Any) -> tuple[str, ...]:
        return () if volume.size is None else (f"size={self._check_size(volume.size, 'size')}",)

    def fstab_source(self, volume: Any, uuid: str | None) -> tuple[str, tuple[str, ...]]:
        return "tmpfs", ()

    def fstab_sources(self, volume: Any, uuid: str | None) -> list[str]:
        return ["tmpfs"]

    def check_growth(self, volume: Any, growth: dict[str, Any]) -> None:
        wished = self._check_size(growth_to_size(growth, ("size",), self.name), "growth.size")
        present = volume.size
        if present is not None and wished <= self._check_size(present, "size"):
            raise InvalidParameter("growth.size", shown(growth["size"]), f"more than the {present} GB that it has")

    def grow(self, volume: Any, growth: dict[str, Any]) -> Any:
        if volume.mpoint is None:
            raise NotSupported(f"{volume.id} is mounted nowhere. Nothing was changed.")
        wished = self._check_size(growth["size"], "growth.size")
        done = run(["mount", "-o", f"remount,size={wished}", volume.mpoint], timeout=30)
        if done.returncode != 0:
            raise OutsideFailure(f"{volume.mpoint} cannot grow: {done.last_words()}. It is as it was.")
        return msgspec.structs.replace(volume, size=growth["size"])
