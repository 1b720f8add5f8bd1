"""Servers that join or leave an upstream with the next command that writes (`update_conf: false`)."""

from pathlib import Path

import msgspec

from scalarizr.changes.transaction import Transaction
from scalarizr.nginx.server_edits import Edit

_MOST = 10_000


def remember(transaction: Transaction, state: Path, edit: Edit) -> None:
    """Plan that an edit is remembered; one that is remembered already is not remembered twice."""
    edits = [known for known in _read(transaction, state) if known != edit][-_MOST:]
    transaction.write(_file(state), msgspec.json.encode([*edits, edit]), mode=0o600)


def take(transaction: Transaction, state: Path) -> list[Edit]:
    """Give what is remembered, and plan that it is forgotten."""
    edits = _read(transaction, state)
    if edits:
        transaction.delete(_file(state))
    return edits


def _read(transaction: Transaction, state: Path) -> list[Edit]:
    content = transaction.read(_file(state))
    return msgspec.json.decode(content, type=list[Edit]) if content else []


def _file(state: Path) -> Path:
    return state / "later.json"
