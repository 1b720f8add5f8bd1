"""The account that the monitoring agent runs as: not root where that can be."""

import os
import pwd
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

# Those of MongoDB's own packages, which also own its data; else the one for daemons without an account of their own.
# `nobody` is none of them: it owns what comes from other hosts and other name spaces, and systemd warns of it.
ACCOUNTS = ("mongodb", "mongod", "mongodb-mms", "daemon")


class Account(msgspec.Struct, frozen=True):
    """Whose the monitoring agent's process and configuration are.

    :param name: of the account; empty: the agent's own.
    :param uid: its user.
    :param gid: its group.
    """

    name: str
    uid: int
    gid: int


def find_account(directory: Path, names: Sequence[str] = ACCOUNTS) -> Account:
    """Choose the first account that is there and can reach the directory.

    :return: it; the agent's own where none can, or where the agent is not root itself.
    """
    if os.geteuid() == 0:
        for name in names:
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            groups = set(os.getgrouplist(name, entry.pw_gid))
            if all(_passes(parent, entry.pw_uid, groups) for parent in (directory, *directory.parents)):
                return Account(name, entry.pw_uid, entry.pw_gid)
    return Account("", os.geteuid(), os.getegid())


def _passes(directory: Path, uid: int, groups: set[int]) -> bool:
    status = os.stat(directory)
    if status.st_uid == uid:
        needed = stat.S_IXUSR
    else:
        needed = stat.S_IXGRP if status.st_gid in groups else stat.S_IXOTH
    return bool(status.st_mode & needed)
