"""The one interface of every kind of volume.

A type knows how its volumes are made, found, attached and deleted. It knows nothing of file systems, mounts, fstab,
locks or what is undone after a failure: that is the same for all, in `creating`, `growing`, `snapshots`, `giving_back`
and `undoing`. Every method may be called again after a kill at any instant, and then finds what it made before.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from scalarizr.errors import InvalidParameter, NotSupported
from scalarizr.rpc.types import shown
from scalarizr.storage.context import Context, Still
from scalarizr.storage.model import Volume


class VolumeType(ABC):
    """One kind of volume.

    :cvar name: the `type` of its dicts.
    :cvar config: the struct of its dicts.
    :cvar deletes_foreign: volumes that this agent did not make may be deleted too: what the caller's credentials allow.
    :cvar grows_online: it can grow while it is mounted.
    :cvar lets_go: destroying one only lets it go: what is on it is others' business.
    :cvar memory_only: it has no device: mounting it is making it.
    :param context: what it works with.
    """

    name: ClassVar[str]
    config: ClassVar[type[Volume]] = Volume
    deletes_foreign: ClassVar[bool] = False
    grows_online: ClassVar[bool] = True
    lets_go: ClassVar[bool] = False
    memory_only: ClassVar[bool] = False

    def __init__(self, context: Context) -> None:
        self.context = context

    def check(self, volume: Any, path: str) -> None:
        """Refuse, before anything is made, what cannot be done.

        :param volume: the checked dict, without an `id`: it is to be made.
        :param path: the parameter's name, for errors.
        :raises InvalidParameter: a value cannot be right here.
        :raises NotSupported: this host or provider cannot do that.
        """

    @abstractmethod
    def find(self, volume: Any) -> Any | None:
        """Look what the volume of this `id` is now.

        :param volume: its `id` counts, and of a caller's other keys only those that the provider does not know.
        :return: it, `device` set where it is attached here and None else; None where it is gone.
        """

    def find_made(self, volume: Any, key: str) -> Any | None:
        """Look for what an earlier call made under this key, whether or not it was told of its success.

        :return: as `find`.
        """
        return None

    @abstractmethod
    def make(self, volume: Any, key: str) -> tuple[Any, bool]:
        """Make it, from `volume.snap` where that is given, or take what `volume` names and is there already.

        :param key: names what is made (a tag at a provider, a file's name), so that `find_made` finds it.
        :return: it with its `id` and `size`, and whether it was made now: what was there before is never deleted.
        """

    @abstractmethod
    def attach(self, volume: Any) -> Any:
        """Make sure that it is attached to this host.

        :return: it with `device`, found by the volume's identity.
        :raises Refused: it is attached elsewhere, which is named.
        """

    @abstractmethod
    def detach(self, volume: Any, force: bool) -> None:
        """Take it from this host, where it is not mounted any more; what is detached already stays so."""

    @abstractmethod
    def delete(self, volume: Any, force: bool) -> None:
        """Delete it and what is in it, where it is detached; what is gone already stays so."""

    def snapshot(self, volume: Any, key: str, description: str, tags: dict[str, str], still: Still) -> dict[str, Any]:
        """Take a snapshot.

        :param volume: attached or not.
        :param key: names what is made.
        :param still: `with still():` freezes the file system; as short as can be, everything slow is outside.
        :return: the snapshot's dict: `{type, id, description, tags, status, size, …}`.
        """
        raise NotSupported(f"A volume of type {self.name} has no snapshots. Nothing was changed.")

    def find_snapshot(self, snapshot: dict[str, Any]) -> dict[str, Any] | None:
        """Look what the snapshot of this `id` is now; None where it is gone."""
        return None

    def delete_snapshot(self, snapshot: dict[str, Any]) -> None:
        """Delete a snapshot; what is gone already stays so."""
        raise NotSupported(f"A volume of type {self.name} has no snapshots. Nothing was changed.")

    def give_up_snapshot(self, key: str, volume: Any) -> None:
        """Delete whatever `snapshot` made under this key before it was cut off."""

    def check_growth(self, volume: Any, growth: dict[str, Any]) -> None:
        """Refuse what cannot be grown so: unknown keys, smaller than now, nothing to change.

        :raises InvalidParameter: with what was expected.
        """
        raise NotSupported(f"A volume of type {self.name} does not grow. Nothing was changed.")

    def grow(self, volume: Any, growth: dict[str, Any]) -> Any:
        """Grow it, whatever is on it.

        :return: it as it is then. On failure it is as it was.
        """
        raise NotSupported(f"A volume of type {self.name} does not grow. Nothing was changed.")

    def shrink_back(self, volume: Any, grown: Any) -> None:
        """Make it as it was before `grow`, where its file system did not grow with it; where it can."""

    def identified(self, volume: Any, path: str) -> Any:
        """Give the volume with its `id`, from which alone it is found.

        :raises InvalidParameter: it has none.
        """
        if volume.id is None:
            raise InvalidParameter(f"{path}.id", None, "the id of a volume, which storage.create gave")
        return volume

    def give_up(self, volume: Any, key: str) -> None:
        """Delete whatever `make` made under this key before it was cut off. What it is made of is not its business."""
        made = self.find_made(volume, key)
        if made is not None:
            self.detach(made, force=True)
            self.delete(made, force=True)

    def give_up_replacement(self, volume: Any) -> None:
        """End the replacement of one of its disks that was cut off."""

    def mount_options(self, volume: Any) -> tuple[str, ...]:
        """Give options that mounting it needs beside the caller's."""
        return ()

    def fstab_source(self, volume: Any, uuid: str | None) -> tuple[str, tuple[str, ...]]:
        """Give what stands for it in fstab, and further options.

        :param uuid: of its file system.
        """
        return f"UUID={uuid}", ()

    def fstab_sources(self, volume: Any, uuid: str | None) -> list[str]:
        """Give everything that may stand for it in fstab, for taking it out."""
        named = [volume.device] if volume.device else []
        return [*([f"UUID={uuid}", f"/dev/disk/by-uuid/{uuid}"] if uuid else []), *named]


def growth_to_size(growth: dict[str, Any], known: tuple[str, ...], type_name: str) -> Any:
    """Check a `growth` of which `size` is a key; gives that, None without.

    :param known: the keys that the type knows.
    :raises InvalidParameter: a key is unknown, or there is none.
    """
    from scalarizr.storage.model import check_size

    for name, value in growth.items():
        if name not in known:
            expected = f"one of the keys that {type_name} grows by: {', '.join(known)}"
            raise InvalidParameter(f"growth.{name}", shown(value), expected)
    if not growth:
        raise InvalidParameter("growth", "{}", f"an object with one of the keys {', '.join(known)}")
    if "size" not in growth:
        return None
    size = growth["size"]
    if isinstance(size, bool) or not isinstance(size, int | float | str):
        raise InvalidParameter("growth.size", shown(size), "a size in GB")
    check_size(size, "growth.size")
    return size
