"""What the volume types of several clouds expect of each: what it tells of volumes and snapshots, and what it does."""

from typing import Protocol, TypeVar


class FoundVolume(Protocol):
    """A volume as its cloud tells of it."""

    @property
    def id(self) -> str:
        """What identifies it."""

    @property
    def gigabytes(self) -> int:
        """Its size, in whole GB."""

    @property
    def tags(self) -> dict[str, str]:
        """Its tags, with the agent's own."""

    @property
    def holders(self) -> tuple[str, ...]:
        """The servers that it is attached to."""


class FoundSnapshot(Protocol):
    """A snapshot as its cloud tells of it."""

    @property
    def id(self) -> str:
        """What identifies it."""

    @property
    def size(self) -> int:
        """The size of its volume in GB, rounded up."""

    @property
    def status(self) -> str:
        """The cloud's word for how far it is."""

    @property
    def description(self) -> str:
        """What is said of it; "" where the cloud keeps nothing of the kind."""

    @property
    def tags(self) -> dict[str, str]:
        """Its tags, with the agent's own."""


AnySnapshot = TypeVar("AnySnapshot", bound=FoundSnapshot, covariant=True)


class Cloud(Protocol[AnySnapshot]):
    """A cloud, with the credentials of one call."""

    @property
    def here(self) -> str:
        """This server, as it stands among a volume's holders."""

    def snapshot(self, identity: str, /) -> AnySnapshot | None:
        """Give a snapshot; None where there is none of that id."""

    def delete_snapshot(self, identity: str, /) -> None:
        """Delete a snapshot; none of that id is as well."""

    def close(self) -> None:
        """Close the connections."""
