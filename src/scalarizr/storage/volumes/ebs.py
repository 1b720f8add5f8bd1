"""EBS volumes: of Amazon's block storage, attached to the EC2 instance that this server is.

Whatever is made carries a tag with the key that it was made under: a call that was cut off before EC2's answer came
finds it by that.
"""

import re
import time
from typing import Any

import msgspec

from scalarizr.errors import InvalidParameter, Refused, ScalarizrError
from scalarizr.platform_access import current_platform_access
from scalarizr.rpc.types import shown
from scalarizr.storage.context import Context, Still
from scalarizr.storage.ec2 import attaching, making, modifying, snapshots
from scalarizr.storage.ec2.device_names import free_names
from scalarizr.storage.ec2.devices import Devices
from scalarizr.storage.ec2.errors import NO_ANSWER, code_of
from scalarizr.storage.ec2.tags import check_tags, plain_tags, specification
from scalarizr.storage.ec2.this_server import Facts, ThisServer, attachments, told_attachments
from scalarizr.storage.ec2.volume_kinds import DEFAULT, KINDS, check_kind, check_value
from scalarizr.storage.model import GIGABYTE, Volume, size_in_bytes
from scalarizr.storage.provider import OfRequest
from scalarizr.storage.steps import step
from scalarizr.storage.volume_type import VolumeType

_ID = re.compile(r"vol-[0-9a-f]{8,17}", re.ASCII)
# Seconds. EC2 needs a few for each as a rule; what takes longer than this hangs.
_ATTACHED_WITHIN = 180.0
_DETACHED_WITHIN = 180.0
# What a request made whose answer was lost shows up within this.
_SHOWS_UP_WITHIN = 10.0
_ASKED = "asked"
_MADE = "made"


class EbsVolume(Volume, kw_only=True, frozen=True):
    """A volume of EBS.

    :param name: its tag `Name`.
    :param avail_zone: where it is; made, that is where the instance is.
    :param volume_type: `gp3` where nothing else is said.
    :param iops: I/O operations a second that it is made for.
    :param throughput: MiB a second that it is made for.
    :param encrypted: whether it is; the account's default when None.
    :param kms_key_id: the key that it is encrypted with; the account's default when None.
    """

    name: str | None = None
    avail_zone: str | None = None
    volume_type: str | None = None
    iops: int | None = None
    throughput: int | None = None
    encrypted: bool | None = None
    kms_key_id: str | None = None


class EbsVolumes(VolumeType):
    """Volumes of type `ebs`."""

    name = "ebs"
    config = EbsVolume
    deletes_foreign = True

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        settings = context.settings
        devices = Devices(settings.storage.by_id_dir, context.host)
        self._servers = OfRequest(lambda: ThisServer(settings.ec2, current_platform_access(), devices))

    @property
    def _server(self) -> ThisServer:
        return self._servers.get()

    def identified(self, volume: EbsVolume, path: str) -> EbsVolume:
        if volume.id is None or not _ID.fullmatch(volume.id):
            expected = "the id of an EBS volume, such as vol-0123456789abcdef0"
            raise InvalidParameter(f"{path}.id", None if volume.id is None else shown(volume.id), expected)
        return volume

    def find(self, volume: EbsVolume) -> EbsVolume | None:
        facts = self._server.facts(_identity(volume))
        return None if facts is None else self._shown(volume, facts)

    def find_made(self, volume: EbsVolume, key: str) -> EbsVolume | None:
        record = self.context.records.find(key)
        identity = record.private.get(_MADE) if record is not None else None
        # An id is found before a tag is: EC2 takes its time with those.
        facts = (self._server.facts(identity) if identity is not None else None) or self._server.made_under(key)
        return None if facts is None else self._shown(volume, facts)

    def check(self, volume: EbsVolume, path: str) -> None:
        name = volume.volume_type or DEFAULT
        kind = check_kind(name, f"{path}.volume_type")
        if volume.snap is None and volume.size is None:
            raise InvalidParameter(f"{path}.size", None, "a size in GB, or a snapshot in `snap`")
        if volume.size is not None:
            check_value(_gigabytes(volume, path), kind.sizes, "the size in GB", name, f"{path}.size")
        if volume.iops is not None:
            check_value(volume.iops, kind.iops, "IOPS", name, f"{path}.iops")
        elif kind.iops_needed:
            raise InvalidParameter(f"{path}.iops", None, f"a number: a volume of the type {name} needs one")
        if volume.throughput is not None:
            check_value(volume.throughput, kind.throughput, "throughput in MiB/s", name, f"{path}.throughput")
        if volume.kms_key_id is not None and volume.encrypted is False:
            raise InvalidParameter(f"{path}.encrypted", "false", "true, or nothing, with a `kms_key_id`")
        check_tags(volume.tags, volume.name, path)
        if volume.snap is not None:
            snapshot = snapshots.present(self._server.ec2, snapshots.identity(volume.snap, f"{path}.snap"))
            least = int(snapshot["VolumeSize"])
            if volume.size is not None and _gigabytes(volume, path) < least:
                raise InvalidParameter(f"{path}.size", shown(volume.size), f"at least the {least} GB of the snapshot")
        here = self._server.zone
        if volume.avail_zone not in (None, here):
            raise InvalidParameter(
                f"{path}.avail_zone",
                shown(volume.avail_zone),
                f"{here}, where this server is: no other can be attached",
            )
        free_names(self._server.names_taken(), xen=self._server.xen)

    def make(self, volume: EbsVolume, key: str) -> tuple[EbsVolume, bool]:
        request: dict[str, Any] = {
            "AvailabilityZone": volume.avail_zone or self._server.zone,
            "VolumeType": volume.volume_type or DEFAULT,
            "TagSpecifications": specification("volume", key, volume.tags, volume.name),
        }
        if volume.snap is not None:
            snapshot = snapshots.usable(self._server.ec2, snapshots.identity(volume.snap, "snap"))
            request["SnapshotId"] = snapshot["SnapshotId"]
        if volume.size is not None:
            request["Size"] = _gigabytes(volume, "volume")
        if volume.encrypted or volume.kms_key_id is not None:
            request["Encrypted"] = True
        wishes = {"Iops": volume.iops, "Throughput": volume.throughput, "KmsKeyId": volume.kms_key_id}
        request |= {name: wish for name, wish in wishes.items() if wish is not None}
        self._note(key, asked=True)
        try:
            facts = making.make(self._server, request, key, lambda identity: self._note(key, asked=True, made=identity))
        except ScalarizrError as failure:
            if code_of(failure) != NO_ANSWER:
                self._note(key, asked=False)
            raise
        return self._shown(volume, facts), True

    def attach(self, volume: EbsVolume) -> EbsVolume:
        lock = self.context.state / "storage" / "locks" / "ec2-device-names"
        return self._shown(volume, attaching.attach(self._server, _identity(volume), lock, _ATTACHED_WITHIN))

    def detach(self, volume: EbsVolume, force: bool) -> None:
        attaching.detach(self._server, _identity(volume), _DETACHED_WITHIN, force=force)

    def delete(self, volume: EbsVolume, force: bool) -> None:
        identity = _identity(volume)
        facts = making.wait_while_it_is_made(self._server, identity)
        if facts is None:
            return
        for attachment in attachments(facts):
            self._server.refuse_root(attachment)
        if attachments(facts):
            raise Refused(
                f"{identity} is not deleted: it is {told_attachments(facts)}. Detach it there first.",
                {"volume": identity},
            )
        making.delete(self._server, identity)

    def give_up(self, volume: EbsVolume, key: str) -> None:
        record = self.context.records.find(key)
        unanswered = record is not None and record.id is None and bool(record.private.get(_ASKED))
        deadline = time.monotonic() + (_SHOWS_UP_WITHIN if unanswered else 0)
        while (made := self.find_made(volume, key)) is None:
            if time.monotonic() >= deadline:
                return
            time.sleep(1)
        # What hangs while it is attached, EC2 lets go only by force; anything else not for its own sake.
        self.detach(made, force=made.device is None)
        self.delete(made, force=False)

    def snapshot(
        self, volume: EbsVolume, key: str, description: str, tags: dict[str, str], still: Still
    ) -> dict[str, Any]:
        check_tags(tags, None, "snapshot")
        limit = float(self.context.settings.storage.freeze_limit)
        record = self.context.records.find(key)
        part = record is not None and bool(record.parent)
        return snapshots.take(self._server.ec2, _identity(volume), key, description, tags, still, limit, part=part)

    def find_snapshot(self, snapshot: dict[str, Any]) -> dict[str, Any] | None:
        facts = snapshots.facts_of(self._server.ec2, snapshots.identity(snapshot, "snapshot"))
        return None if facts is None else snapshots.shown_snapshot(facts)

    def delete_snapshot(self, snapshot: dict[str, Any]) -> None:
        snapshots.delete(self._server.ec2, snapshots.identity(snapshot, "snapshot"))

    def give_up_snapshot(self, key: str, volume: EbsVolume | None) -> None:
        snapshots.give_up(self._server.ec2, key)

    def check_growth(self, volume: EbsVolume, growth: dict[str, Any]) -> None:
        modifying.modification(self._server.present(_identity(volume)), growth)

    def grow(self, volume: EbsVolume, growth: dict[str, Any]) -> EbsVolume:
        facts = self._server.present(_identity(volume))
        request = modifying.modification(facts, growth)
        step(f"modifying {volume.id}")
        return self._shown(volume, modifying.modify(self._server, facts, request))

    def _shown(self, volume: EbsVolume, facts: Facts) -> EbsVolume:
        device = self._server.device(facts)
        tags, name = plain_tags(facts.get("Tags", []))
        # EC2 names IOPS of types, too, that cannot be asked for with any.
        kind = KINDS.get(facts["VolumeType"])
        return msgspec.structs.replace(
            volume,
            id=facts["VolumeId"],
            device=None if device is None else str(device),
            size=facts["Size"],
            tags=tags or None,
            name=name,
            avail_zone=facts["AvailabilityZone"],
            volume_type=facts["VolumeType"],
            iops=facts.get("Iops") if kind is None or kind.iops else None,
            throughput=facts.get("Throughput") if kind is None or kind.throughput else None,
            encrypted=facts.get("Encrypted"),
            kms_key_id=facts.get("KmsKeyId"),
        )

    def _note(self, key: str, *, asked: bool, made: str | None = None) -> None:
        """Remember whether EC2 may have made something that nobody has heard of, and its id once that is known."""
        record = self.context.records.find(key)
        if record is not None:
            known = {} if made is None else {_MADE: made}
            self.context.records.put(record, private={**record.private, _ASKED: asked, **known})


def _identity(volume: EbsVolume) -> str:
    assert volume.id is not None
    return volume.id


def _gigabytes(volume: EbsVolume, path: str) -> int:
    assert volume.size is not None
    return size_in_bytes(volume.size, f"{path}.size", unit=GIGABYTE) // GIGABYTE
