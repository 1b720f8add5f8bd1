"""The table of volume types: adding one is a module with a class, and a line here or an entry point elsewhere."""

from importlib import import_module

from scalarizr.errors import InvalidParameter, NotSupported
from scalarizr.rpc.types import shown
from scalarizr.storage.volume_type import VolumeType

GROUP = "scalarizr.volumes"
TYPES = {
    "base": "scalarizr.storage.volumes.base:BaseVolumes",
    "csvol": "scalarizr.storage.volumes.csvol:CloudStackVolumes",
    "cinder": "scalarizr.storage.volumes.cinder:CinderVolumes",
    "ebs": "scalarizr.storage.volumes.ebs:EbsVolumes",
    "eph": "scalarizr.storage.volumes.eph:EphemeralVolumes",
    "gce_persistent": "scalarizr.storage.volumes.gce_persistent:PersistentDisks",
    "loop": "scalarizr.storage.volumes.loop:LoopVolumes",
    "lvm": "scalarizr.storage.volumes.lvm:LvmVolumes",
    "raid": "scalarizr.storage.volumes.raid:RaidVolumes",
    "tmpfs": "scalarizr.storage.volumes.tmpfs:TmpfsVolumes",
}


def find_type(name: object, path: str) -> type[VolumeType]:
    """Give the class of a type; the module of no other is imported.

    :param name: what a dict has as its `type`.
    :param path: the parameter's name, for errors.
    :raises InvalidParameter: there is no such type; the known ones are named.
    :raises NotSupported: the package of a third party's type cannot be loaded.
    """
    place = TYPES.get(name) if isinstance(name, str) else None
    if place is not None:
        module, _, kind = place.partition(":")
        found: type[VolumeType] = getattr(import_module(module), kind)
        return found
    # Slow to import, and rarely needed.
    from importlib.metadata import entry_points

    others = {point.name: point for point in entry_points(group=GROUP)}
    if isinstance(name, str) and name in others:
        try:
            loaded: type[VolumeType] = others[name].load()
        except Exception as failure:
            raise NotSupported(
                f"The volume type {name} of the package {others[name].value} cannot be loaded: {failure}. "
                "Nothing was changed."
            ) from failure
        return loaded
    known = ", ".join(sorted({*TYPES, *others}))
    raise InvalidParameter(f"{path}.type", None if name is None else shown(name), f"one of {known}")
