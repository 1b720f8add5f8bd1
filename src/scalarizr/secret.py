"""Values that must not be seen: a `Secret` prints as `******` wherever it is formatted, logged or represented."""

from collections.abc import Iterable
from typing import Any, NoReturn

MASK = "******"
PASSWORD_LENGTH = 20


class Secret:
    """A string that is masked by construction; only `reveal()` gives it out.

    :param value: the secret text.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Give the secret itself: for the call that needs it, never for a message."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, _spec: str) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: hand it over on a pipe, by name")


def new_password() -> Secret:
    """Make a password: 20 letters and digits of the system's random source, 119 bits."""
    from secrets import choice
    from string import ascii_letters, digits

    return Secret("".join(choice(ascii_letters + digits) for _ in range(PASSWORD_LENGTH)))


def masked(value: Any) -> Any:
    """Copy plain data with every `Secret` in it replaced by the mask: what may be stored or shown."""
    if isinstance(value, Secret):
        return MASK
    if isinstance(value, dict):
        return {key: masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item) for item in value]
    return value


def revealed(value: Any) -> Any:
    """Copy plain data with every `Secret` in it revealed: for a worker's standard input alone."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, dict):
        return {name: revealed(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [revealed(item) for item in value]
    return value


def secrets_in(value: Any) -> list[str]:
    """Give every secret in plain data."""
    found: list[str] = []
    waiting: list[Any] = [value]
    for one in waiting:
        if isinstance(one, dict):
            waiting.extend(one.values())
        elif isinstance(one, (list, tuple)):
            waiting.extend(one)
        elif isinstance(one, Secret):
            found.append(one.reveal())
    return found


def without(text: str, secrets: Iterable[str]) -> str:
    """Replace each of `secrets` in `text` by the mask: for the words of programs and services outside.

    Secrets of fewer than four characters are left: masking every `a` would make the text unreadable and hide nothing.
    """
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= 4:
            text = text.replace(secret, MASK)
    return text
