"""Which EC2 instance this server is: from the settings, else from the instance metadata service (IMDSv2)."""

import http.client
import os
import urllib.parse

import msgspec

from scalarizr.errors import NotConfigured, OutsideFailure
from scalarizr.settings.model import Ec2 as Ec2Settings

# The SDK reads the same variables, for the instance's credentials.
_ADDRESS_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
_OFF_VARIABLE = "AWS_EC2_METADATA_DISABLED"
_ADDRESS = "http://169.254.169.254"
# It answers within milliseconds or it is not there.
_TIMEOUT = 2.0
_LARGEST_ANSWER = 4096


class Instance(msgspec.Struct, frozen=True):
    """Where this server is.

    :param region: such as `eu-west-1`.
    :param instance_id: such as `i-0123456789abcdef0`.
    :param avail_zone: such as `eu-west-1a`; None where only EC2 itself can tell.
    """

    region: str
    instance_id: str
    avail_zone: str | None


def this_instance(settings: Ec2Settings) -> Instance:
    """Tell which instance this is.

    :param settings: the section `[ec2]`; what is set there is not asked for.
    :raises NotConfigured: something is not set, and there is no metadata service.
    """
    region, identity, zone = settings.region, settings.instance_id, settings.avail_zone
    if region is None or identity is None:
        metadata = Metadata()
        region = region or metadata.read("placement/region")
        identity = identity or metadata.read("instance-id")
        zone = zone or metadata.read("placement/availability-zone")
    return Instance(region, identity, zone)


class Metadata:
    """The instance metadata service, asked with a session token (IMDSv2)."""

    def __init__(self) -> None:
        self._token: str | None = None

    def read(self, name: str) -> str:
        """Read one line of it.

        :param name: below `/latest/meta-data/`.
        :raises NotConfigured: there is no such service here.
        :raises OutsideFailure: it answers with an error.
        """
        if self._token is None:
            self._token = self._ask("PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
        return self._ask("GET", f"/latest/meta-data/{name}", {"X-aws-ec2-metadata-token": self._token})

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> str:
        if os.environ.get(_OFF_VARIABLE, "").lower() == "true":
            raise _not_there(f"{_OFF_VARIABLE} is set")
        address = urllib.parse.urlsplit(os.environ.get(_ADDRESS_VARIABLE) or _ADDRESS)
        connection = http.client.HTTPConnection(address.hostname or "", address.port or 80, timeout=_TIMEOUT)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            text = answer.read(_LARGEST_ANSWER).decode("ascii", "replace").strip()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _not_there(str(error) or type(error).__name__) from None
        finally:
            connection.close()
        if answer.status != 200 or not text.isprintable() or not text:
            raise OutsideFailure(
                f"The instance metadata service answered {path} with {answer.status}. Nothing was changed; "
                "`region`, `instance_id` and `avail_zone` of the section [ec2] of the settings stand in for it."
            )
        return text


def _not_there(why: str) -> NotConfigured:
    return NotConfigured(
        f"This server is not known as an EC2 instance: there is no instance metadata service ({why}). Nothing was "
        "changed; set `region`, `instance_id` and `avail_zone` in the section [ec2] of the settings.",
        {"settings": ["ec2.region", "ec2.instance_id", "ec2.avail_zone"]},
    )
