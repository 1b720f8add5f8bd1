"""Cloud credentials of one request (`_platform_access_data`): seen by that request alone, in memory alone."""

from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from scalarizr.secret import MASK, Secret


class PlatformAccess(Mapping[str, Any]):
    """What came with the request: every string in it a `Secret`, nested objects too.

    :param data: the decoded object.
    """

    __slots__ = ("_data", "_texts")

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._texts: list[str] = []
        self._data: dict[str, Any] = {str(name): self._wrap(value) for name, value in data.items()}

    def _wrap(self, value: Any) -> Any:
        if isinstance(value, str):
            self._texts.append(value)
            return Secret(value)
        if isinstance(value, dict):
            return {name: self._wrap(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._wrap(item) for item in value]
        return value

    def __getitem__(self, name: str) -> Any:
        return self._data[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        return f"PlatformAccess({MASK})"

    def texts(self) -> list[str]:
        """Give every string of it, for masking them in the words of others."""
        return list(self._texts)

    def revealed(self) -> dict[str, Any]:
        """Give the plain data: for a worker's standard input, and nothing else."""
        return {name: _reveal(value) for name, value in self._data.items()}


def _reveal(value: Any) -> Any:
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, dict):
        return {name: _reveal(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_reveal(item) for item in value]
    return value


# One request's, by the context that it runs in: two requests never see each other's.
_current: ContextVar[PlatformAccess | None] = ContextVar("platform_access", default=None)


def current_platform_access() -> PlatformAccess | None:
    """Give the credentials of the request that this code runs for; None where it brought none."""
    return _current.get()


def set_platform_access(access: PlatformAccess | None) -> None:
    """Put the credentials into the present context: for the dispatcher and the worker."""
    _current.set(access)
