"""The monitoring agent from its package to its running: installed, configured, supervised; or stopped."""

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from scalarizr.errors import UNCHANGED, InvalidParameter, NotSupported, OutsideFailure, ScalarizrError
from scalarizr.host.files import fsync_directory, write_file
from scalarizr.mongodb.account import Account, find_account
from scalarizr.mongodb.archive import unpack
from scalarizr.mongodb.layout import Keys, Layout, find_layout
from scalarizr.mongodb.package import fetched
from scalarizr.mongodb.place import Login
from scalarizr.mongodb.record import MonitoringRecord, Wanted
from scalarizr.secret import Secret
from scalarizr.settings.model import MonitoringAgent

_KEY_LENGTH = 256
_KEY_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~+/=@-")
_LARGEST_CONFIGURATION = 1 << 20


class Supervisor(Protocol):
    """What keeps the monitoring agent running, or stopped."""

    def look(self) -> None:
        """Take up, at the agent's start, what is wanted."""

    def start(self, wanted: Wanted) -> str | None:
        """Start it, or start it anew; gives why it does not run, in words."""

    def stop(self) -> str | None:
        """Stop it; gives why it still runs, in words."""

    def runs(self, generation: str) -> bool:
        """Tell whether it runs with this configuration."""


def checked_keys(api_key: Secret, secret_key: Secret) -> Keys:
    """Check the keys: they become a line of a configuration file, or of a Python script.

    :raises InvalidParameter: one has characters that no key has.
    """
    for name, key in (("api_key", api_key), ("secret_key", secret_key)):
        text = key.reveal()
        if not 1 <= len(text) <= _KEY_LENGTH or not _KEY_CHARACTERS.issuperset(text):
            raise InvalidParameter(name, None, f"1 to {_KEY_LENGTH} letters, digits and any of . _ ~ + / = @ -")
    return Keys(api_key, secret_key)


class Monitoring:
    """The monitoring agent of this server.

    :param package: the setting `[mongodb] monitoring_agent`.
    :param directory: where it is unpacked.
    :param record: what is wanted.
    :param supervisor: what keeps it running.
    :param log: the agent's log.
    """

    def __init__(
        self,
        package: str | MonitoringAgent | None,
        directory: Path,
        record: MonitoringRecord,
        supervisor: Supervisor,
        log: logging.Logger,
    ) -> None:
        self._package = package
        self._directory = directory
        self._record = record
        self._supervisor = supervisor
        self._log = log

    def enable(self, keys: Keys, login: Callable[[], Login | None]) -> None:
        """Install, configure and start it; re-configure and start anew one that runs with other keys.

        :param login: gives what it logs in with at the servers it watches.
        :raises ScalarizrError: it does not run as asked; where another configuration was in force, that one is again.
        """
        try:
            tree = self._installed()
            layout = find_layout(tree)
            self._run(layout, keys, login())
            self._forget_others(tree)
        except OSError as error:
            raise OutsideFailure(
                f"{error.filename or self._directory}: {error.strerror or error}. "
                f"{UNCHANGED} Make room, or correct its permissions.",
                {"path": str(error.filename or self._directory)},
            ) from error

    def disable(self) -> None:
        """Stop it, and keep it stopped over restarts and boots.

        :raises OutsideFailure: it still runs; nothing starts it again.
        """
        self._record.want(msgspec.structs.replace(self._record.wanted(), enabled=False))
        problem = self._supervisor.stop()
        if problem is not None:
            raise OutsideFailure(
                f"The monitoring agent is not started again, but it still runs: {problem}. Call again, or end it."
            )

    def resume(self) -> None:
        """Take up again, at the agent's start, what is to be kept running, or had still to be stopped."""
        self._supervisor.look()

    def log_in_with(self, login: Login) -> None:
        """Tell the one that runs the new password of the user that it logs in as.

        :raises ScalarizrError: it was not told, or does not run since.
        """
        wanted = self._record.wanted()
        if not wanted.enabled:
            return
        configuration = Path(wanted.directory)
        try:
            layout = find_layout(configuration)
        except NotSupported:
            return  # a Debian package has its program elsewhere: an automation agent, which logs in nowhere
        before = _content(layout.configuration)
        after = _changed(before, lambda text: layout.with_login(text, login))
        if after != before:
            account = find_account(configuration)
            self._bring_about(layout, before, after, _of_its_generation(wanted, after), account)

    def _installed(self) -> Path:
        """Give the directory that the package of the settings is unpacked in."""
        programs = self._directory / "programs"
        for directory in (self._directory, programs):
            if not directory.is_dir():
                directory.mkdir(parents=True)
                directory.chmod(0o755)
        for leftover in (*programs.glob(".unpacking.*"), *self._directory.glob(".package.*")):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        with fetched(self._package, self._directory) as (package, digest):
            tree = programs / digest[:32]
            if tree.is_dir():
                return tree
            forming = programs / f".unpacking.{digest[:32]}"
            try:
                forming.mkdir(mode=0o700)
                unpack(package, forming)
                find_layout(forming)
                forming.chmod(0o755)
                os.rename(forming, tree)
                fsync_directory(programs)
            finally:
                shutil.rmtree(forming, ignore_errors=True)
        self._log.info("monitoring agent sha256=%s unpacked into %s", digest, tree)
        return tree

    def _run(self, layout: Layout, keys: Keys, login: Login | None) -> None:
        account = find_account(layout.configuration.parent)
        if not account.name and os.geteuid() == 0:
            self._log.warning("no unprivileged account reaches %s: the monitoring agent runs as root", self._directory)
        data = self._data_directory(account)
        before = _content(layout.configuration)
        after = _changed(before, lambda text: layout.configured(text, keys, login, data))
        wanted = Wanted(
            enabled=True,
            command=layout.command(),
            directory=str(layout.configuration.parent),
            home=str(data),
            output=str(self._directory / "output.log"),
            account=account.name,
        )
        wanted = _of_its_generation(wanted, after)
        if after == before and wanted == self._record.wanted() and self._supervisor.runs(wanted.generation):
            self._log.info("monitoring agent: it runs with this configuration already")
            return
        self._bring_about(layout, before, after, wanted, account)

    def _bring_about(self, layout: Layout, before: bytes, after: bytes, wanted: Wanted, account: Account) -> None:
        wanted_before = self._record.wanted()
        # First the configuration, then what is wanted: a crash in between is a difference that the next call sees.
        write_file(layout.configuration, after, mode=0o600, owner=(account.uid, account.gid))
        try:
            self._record.want(wanted)
            problem = self._supervisor.start(wanted)
            if problem is not None:
                raise OutsideFailure(
                    f"The monitoring agent does not run: {problem}. What was in force before is again."
                )
        except (ScalarizrError, OSError):
            self._back_to(layout, before, account, wanted_before)
            raise

    def _back_to(self, layout: Layout, before: bytes, account: Account, wanted: Wanted) -> None:
        write_file(layout.configuration, before, mode=0o600, owner=(account.uid, account.gid))
        self._record.want(wanted)
        problem = self._supervisor.start(wanted) if wanted.enabled else self._supervisor.stop()
        if problem is not None:
            self._log.error("monitoring agent: what was in force before is not: %s", problem)

    def _data_directory(self, account: Account) -> Path:
        data = self._directory / "data"
        with contextlib.suppress(FileExistsError):
            data.mkdir(mode=0o700)
        os.chown(data, account.uid, account.gid, follow_symlinks=False)
        return data

    def _forget_others(self, tree: Path) -> None:
        for other in tree.parent.iterdir():
            if other != tree:
                shutil.rmtree(other, ignore_errors=True)


def _changed(content: bytes, change: Callable[[str], str]) -> bytes:
    return change(content.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def _of_its_generation(wanted: Wanted, configuration: bytes) -> Wanted:
    all_but_that = msgspec.structs.replace(wanted, generation="")
    digest = hashlib.sha256(msgspec.json.encode(all_but_that) + configuration).hexdigest()
    return msgspec.structs.replace(wanted, generation=digest)


def _content(path: Path) -> bytes:
    with open(path, "rb") as file:
        content = file.read(_LARGEST_CONFIGURATION + 1)
    if len(content) > _LARGEST_CONFIGURATION:
        raise OutsideFailure(f"{path.name} in the package is larger than 1 MiB, which no configuration is. {UNCHANGED}")
    return content
