"""What EC2 says of this server and its volumes, asked with the credentials of one request."""

from pathlib import Path
from typing import Any

import msgspec

from scalarizr.errors import NotFound, Refused
from scalarizr.platform_access import PlatformAccess
from scalarizr.settings.model import Ec2 as Ec2Settings
from scalarizr.storage.ec2.client import Ec2
from scalarizr.storage.ec2.devices import Attachment, Devices
from scalarizr.storage.ec2.instance import Instance, this_instance
from scalarizr.storage.ec2.tags import KEY_TAG
from scalarizr.storage.model import GIGABYTE

Facts = dict[str, Any]
"""What EC2 says of a volume, in its own words."""

_GONE = ("deleting", "deleted")
_LEAVING = ("detaching", "detached")
_STATES = {"attaching": "still attaching to", "busy": "in use on", "detaching": "still detaching from"}


class ThisServer:
    """This server, as an EC2 instance.

    :param settings: the section `[ec2]`.
    :param access: the request's credentials.
    :param devices: of this host.
    """

    def __init__(self, settings: Ec2Settings, access: PlatformAccess | None, devices: Devices) -> None:
        self._here = this_instance(settings)
        self._devices = devices
        self._root: str | None = None
        self.ec2 = Ec2(self._here.region, settings.endpoint_url, access)

    def close(self) -> None:
        """Let the connections go."""
        self.ec2.close()

    @property
    def instance(self) -> Instance:
        """Which instance this is; its zone is asked for where nobody has told it."""
        if self._here.avail_zone is None:
            self._here = msgspec.structs.replace(
                self._here, avail_zone=str(self._described()["Placement"]["AvailabilityZone"])
            )
        return self._here

    @property
    def instance_id(self) -> str:
        """This instance's id."""
        return self._here.instance_id

    @property
    def zone(self) -> str:
        """This instance's availability zone."""
        return str(self.instance.avail_zone)

    @property
    def xen(self) -> bool:
        """Whether device names are those of Xen's disks."""
        return self._devices.is_xen()

    def facts(self, identity: str) -> Facts | None:
        """Ask for a volume; None where it is gone."""
        try:
            found = self.ec2.call("describe_volumes", VolumeIds=[identity])["Volumes"]
        except NotFound:
            return None
        return next((facts for facts in found if facts["State"] not in _GONE), None)

    def present(self, identity: str) -> Facts:
        """Ask for a volume.

        :raises NotFound: it is gone.
        """
        facts = self.facts(identity)
        if facts is None:
            raise NotFound(f"EC2 has no volume {identity} in {self._here.region}.", {"id": identity, "type": "ebs"})
        return facts

    def made_under(self, key: str) -> Facts | None:
        """Ask for the volume that carries a key of the agent's."""
        filters = [{"Name": f"tag:{KEY_TAG}", "Values": [key]}]
        found = [
            facts
            for facts in self.ec2.call("describe_volumes", Filters=filters)["Volumes"]
            if facts["State"] not in _GONE
        ]
        # There is one: the token of the request that makes it sees to that.
        return min(found, key=lambda facts: str(facts["CreateTime"]), default=None)

    def attachment(self, facts: Facts) -> Facts | None:
        """Give a volume's attachment to this instance."""
        return next((one for one in attachments(facts) if one.get("InstanceId") == self.instance_id), None)

    def device(self, facts: Facts) -> Path | None:
        """Give the device that a volume is here."""
        mine = self.attachment(facts)
        if mine is None or mine.get("State") in _LEAVING:
            return None
        size = int(facts["Size"]) * GIGABYTE
        return self._devices.find(Attachment(facts["VolumeId"], str(mine.get("Device") or ""), size))

    def device_size(self, device: Path) -> int:
        """Give the bytes of a device, as the kernel has them now."""
        return self._devices.size(device) or 0

    def names_taken(self, limit: float | None = None) -> set[str]:
        """Give the device names under which something is attached here.

        :param limit: seconds in which EC2 is to answer at once; it is asked again and again when None.
        """
        filters = [{"Name": "attachment.instance-id", "Values": [self.instance_id]}]
        if limit is None:
            volumes = self.ec2.call("describe_volumes", Filters=filters)["Volumes"]
        else:
            volumes = self.ec2.call_once("describe_volumes", limit, Filters=filters)["Volumes"]
        taken = {str(one.get("Device")) for facts in volumes for one in facts.get("Attachments", [])}
        return taken | self._devices.names_taken()

    def refuse_root(self, attachment: Facts) -> None:
        """Refuse to touch the root disk of this instance."""
        if attachment.get("InstanceId") != self.instance_id:
            return
        if self._root is None:
            self._root = str(self._described().get("RootDeviceName"))
        if attachment.get("Device") == self._root:
            raise Refused(
                f"{attachment.get('VolumeId')} is the root disk of this server. Nothing was changed.",
                {"device": self._root},
            )

    def where(self, identity: str) -> str:
        """Say, in a sentence, where a volume hangs: for whoever waited in vain."""
        facts = self.facts(identity)
        if facts is None:
            return f"EC2 does not know {identity} any more."
        return f"EC2 says that {identity} is {told_attachments(facts) or 'attached nowhere'}."

    def _described(self) -> Facts:
        reservations = self.ec2.call("describe_instances", InstanceIds=[self.instance_id])["Reservations"]
        found: Facts | None = next((one for group in reservations for one in group["Instances"]), None)
        if found is None:
            raise NotFound(f"EC2 knows no instance {self.instance_id} in {self._here.region}. Nothing was changed.")
        return found


def attachments(facts: Facts) -> list[Facts]:
    """Give the attachments of a volume that hold it."""
    return [one for one in facts.get("Attachments", []) if one.get("State") != "detached"]


def told_attachments(facts: Facts) -> str:
    """Say where a volume hangs; nothing where it does not."""
    return ", ".join(
        f"{_STATES.get(str(one.get('State')), 'attached to')} {one.get('InstanceId')} as {one.get('Device')}"
        for one in attachments(facts)
    )
