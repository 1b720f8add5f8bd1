"""The volume that holds a cluster: found by what is mounted there, refused where it does not hold all of it, grown."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scalarizr.errors import NotConfigured, NotFound, Refused
from scalarizr.host.paths import HostPaths
from scalarizr.operations.progress import current
from scalarizr.postgresql.cluster import Cluster, find_cluster
from scalarizr.postgresql.connection import Server
from scalarizr.postgresql.program import PostgresqlProgram
from scalarizr.services.status import Status
from scalarizr.settings.load import load_settings
from scalarizr.settings.model import PostgresqlVolume
from scalarizr.storage import filesystems, mounting
from scalarizr.storage.model import as_dict
from scalarizr.storage.mount_table import is_below, mount_table
from scalarizr.storage.storage import Storage, same_device

_START_AGAIN = "scalarizr.postgresql.volume:start_again"


def require_whole(host: HostPaths, cluster: Cluster, tablespaces: Sequence[str]) -> None:
    """Refuse a cluster of which a part lies on another file system than its data directory.

    :param tablespaces: the directories of its tablespaces.
    :raises Refused: naming each part, and where it lies.
    """
    data_dir = cluster.data_dir.resolve()
    table = mount_table(host)
    home = mounting.mount_that_holds(host, data_dir)
    parts = [("pg_wal", (data_dir / "pg_wal").resolve())]
    parts += [("a tablespace", Path(location).resolve()) for location in tablespaces]
    # What is mounted somewhere inside, by hand, on a directory of the cluster.
    inside = [Path(mounted.mpoint) for mounted in table if is_below(mounted.mpoint, f"{data_dir}/")]
    parts += [("a part of it", path) for path in inside]
    elsewhere = []
    for what, path in parts:
        mounted = mounting.mount_that_holds(host, path)
        if home is None or mounted is None or mounted.number != home.number:
            elsewhere.append(f"{what} in {path}")
    if elsewhere:
        raise Refused(
            f"The cluster in {data_dir} lies on more than one file system: {', '.join(elsewhere)}. One snapshot cannot "
            "hold all of it. Nothing was changed. Move it onto the volume of the data directory, or take a backup "
            "(postgresql.create_backup).",
            {"elsewhere": [str(path) for _what, path in parts[:20]]},
        )


def volume_of(storage: Storage, cluster: Cluster, named: PostgresqlVolume | None) -> dict[str, Any]:
    """Give the volume that holds the cluster's data directory.

    :param named: the setting `[postgresql] volume`, for one that this agent did not make.
    :return: its dict.
    :raises NotConfigured: it is none that snapshots can be taken of, or the setting names another.
    """
    data_dir = cluster.data_dir.resolve()
    try:
        mounted = storage.mounted_at(data_dir)
    except NotFound as nothing:
        raise NotConfigured(
            f"The cluster in {data_dir} lies on no block device of its own. Nothing was changed. Move it onto a volume."
        ) from nothing
    if named is not None:
        volume = {"type": named.type, "id": named.id}
        if not _is_mounted_as(storage, volume, mounted["device"]):
            raise NotConfigured(
                f"[postgresql] volume names {named.id}, and {data_dir} lies on another device ({mounted['device']}). "
                "Nothing was changed."
            )
        return {**volume, "mpoint": mounted["mpoint"]}
    if mounted["type"] == "base":
        raise NotConfigured(
            f"The cluster in {data_dir} lies on {mounted['device']}, mounted on {mounted['mpoint']}, which this agent "
            'did not make. Nothing was changed. Set [postgresql] volume to { type = "…", id = "…" } of the volume that '
            "it is, or move the cluster onto a volume of storage.create."
        )
    return mounted


def _is_mounted_as(storage: Storage, volume: Mapping[str, Any], device: str) -> bool:
    found = storage.catalogue.present(storage.catalogue.named(volume, "volume"))
    return found.device is not None and same_device(found.device, device)


def grow_volume(
    storage: Storage,
    program: PostgresqlProgram,
    cluster: Cluster,
    volume: dict[str, Any],
    growth: dict[str, Any],
    etc: Path,
) -> dict[str, Any]:
    """Grow the volume that holds a cluster; the server is stopped only where the volume cannot grow while it runs.

    :param volume: a volume that `storage.create` gave.
    :param growth: as `storage.grow` takes it.
    :param etc: the agent's configuration directory, for whoever has to start the server again.
    :return: the volume as it is then.
    :raises Refused: it is not the volume that holds the cluster.
    """
    mounted = mounting.mount_that_holds(storage.host, cluster.data_dir.resolve())
    device = mounting.device_of(storage.host, mounted) if mounted is not None else None
    named = storage.catalogue.named(volume, "volume")
    found = storage.catalogue.present(named)
    if mounted is None or device is None or found.device is None or not same_device(found.device, device):
        raise Refused(
            f"{named.volume.id} is not the volume that holds the cluster in {cluster.data_dir}, which lies on "
            f"{device}. Nothing was changed. storage.grow grows any volume."
        )
    # A wish that cannot be fulfilled stops no server.
    named.kind.check_growth(found, growth)
    online = named.kind.grows_online and filesystems.grows_online(mounted.fstype)
    if online or program.status() != Status.RUNNING:
        return storage.grow(volume, growth)
    running = current()
    number = running.before(_START_AGAIN, etc=str(etc))
    running.log(f"stopping the server: {as_dict(found)['id']} grows only unmounted")
    program.stop()
    try:
        return storage.grow(volume, growth)
    finally:
        with running.uninterrupted():
            running.log("starting the server")
            program.start()
            running.done_with(number)


def start_again(etc: str) -> None:
    """Start the server that was stopped for its volume to grow: after a kill. One that runs is left alone.

    :param etc: the agent's configuration directory.
    """
    settings = load_settings(Path(etc))
    server = Server(find_cluster(settings.postgresql, HostPaths(settings.paths.root)), settings.postgresql.os_user)
    PostgresqlProgram(server.cluster, server, settings.postgresql.manager).start()
