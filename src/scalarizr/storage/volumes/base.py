"""`base`: a block device that is there already. It is used, and let go; nothing here ever deletes one."""

import os
import stat
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from scalarizr.errors import InvalidParameter, NotFound, OutsideFailure
from scalarizr.storage import devices
from scalarizr.storage.model import size_in_gigabytes
from scalarizr.storage.volume_type import VolumeType

_PREFIX = "base-"


class BaseVolumes(VolumeType):
    """Volumes of type `base`: the `id` is the device's name, from which it is found."""

    name: ClassVar[str] = "base"
    lets_go: ClassVar[bool] = True

    def identified(self, volume: Any, path: str) -> Any:
        if volume.id is not None:
            return volume
        if volume.device is None:
            raise InvalidParameter(f"{path}.device", None, "an existing block device")
        device = devices.require_block_device(Path(volume.device))
        return msgspec.structs.replace(volume, id=f"{_PREFIX}{device.relative_to('/dev')}")

    def find(self, volume: Any) -> Any | None:
        name = (volume.id or "").removeprefix(_PREFIX)
        device = Path(os.path.normpath(f"/dev/{name}"))
        if not volume.id.startswith(_PREFIX) or not device.is_relative_to("/dev") or not _is_block_device(device):
            return None
        try:
            size = size_in_gigabytes(devices.device_size(device))
        except OutsideFailure:
            size = None  # whoever wants to do something with it will hear why it cannot be read
        return msgspec.structs.replace(volume, device=str(device), size=size)

    def make(self, volume: Any, key: str) -> tuple[Any, bool]:
        raise NotFound(
            f"There is no device {(volume.id or '').removeprefix(_PREFIX)}, and one of type base cannot be made. "
            "Nothing was changed."
        )

    def attach(self, volume: Any) -> Any:
        return volume

    def detach(self, volume: Any, force: bool) -> None:
        """It stays where it is."""

    def delete(self, volume: Any, force: bool) -> None:
        """It stays what it is."""


def _is_block_device(path: Path) -> bool:
    try:
        return stat.S_ISBLK(path.stat().st_mode)
    except OSError:
        return False
