"""Tags of volumes and snapshots: the caller's, and the one by which the agent finds what it made."""

from collections.abc import Iterable, Mapping
from typing import Any

from scalarizr.errors import InvalidParameter
from scalarizr.rpc.types import shown

KEY_TAG = "scalarizr"
_NAME = "Name"
# EC2 takes 50; these two are the agent's.
_MOST = 48


def check_tags(tags: Mapping[str, str] | None, name: str | None, path: str) -> None:
    """Refuse tags that EC2 does not take, or that are not the caller's.

    :param name: what becomes the tag `Name`.
    :param path: the parameter's name, for errors.
    """
    if len(tags or {}) > _MOST:
        raise InvalidParameter(f"{path}.tags", f"{len(tags or {})} tags", f"{_MOST} at most")
    for tag in tags or {}:
        if tag.lower().startswith("aws:") or tag == KEY_TAG:
            raise InvalidParameter(f"{path}.tags.{tag}", shown(tag), "a name that is not Amazon's or the agent's own")
    if name is not None and (tags or {}).get(_NAME, name) != name:
        raise InvalidParameter(f"{path}.tags.{_NAME}", shown((tags or {})[_NAME]), "the same as `name`, or nothing")
    if name is not None and not 0 < len(name) <= 255:
        raise InvalidParameter(f"{path}.name", shown(name), "1 to 255 characters")


def specification(kind: str, key: str, tags: Mapping[str, str] | None, name: str | None = None) -> list[dict[str, Any]]:
    """Give the tags that something is made with, in the same request that makes it.

    :param kind: `volume` or `snapshot`.
    :param key: by which the agent finds it.
    """
    wanted = {**(tags or {}), **({_NAME: name} if name is not None else {}), KEY_TAG: key}
    return [
        {"ResourceType": kind, "Tags": [{"Key": tag, "Value": value} for tag, value in wanted.items()]},
    ]


def plain_tags(tags: Iterable[Mapping[str, str]]) -> tuple[dict[str, str], str | None]:
    """Give the caller's tags, without Amazon's and the agent's own, and the name.

    :param tags: as EC2 gives them.
    """
    found = {one["Key"]: one["Value"] for one in tags}
    name = found.pop(_NAME, None)
    return {tag: value for tag, value in found.items() if tag != KEY_TAG and not tag.startswith("aws:")}, name
