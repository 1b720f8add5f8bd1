"""The agent: everything is built here, once, from the settings, and handed down. Start and stop."""

import asyncio
import contextlib
import gc
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from scalarizr import __version__
from scalarizr.api.namespaces import ALIASES, NAMESPACES
from scalarizr.assembly import build_parts
from scalarizr.audit.log import AUDIT_LOG, AuditLog, head_file_of
from scalarizr.bookkeeping import Bookkeeping
from scalarizr.changes.confirmation import seconds_left
from scalarizr.changes.journal import Record
from scalarizr.envelope.envelopes import Envelopes
from scalarizr.envelope.replay import can_be_saved, open_store, save_store
from scalarizr.errors import NotConfigured, ScalarizrError
from scalarizr.gate import WorkerGate
from scalarizr.host import instance
from scalarizr.host.files import make_private_directory, sweep_staged
from scalarizr.host.threads import Threads
from scalarizr.logs import close_log, open_log
from scalarizr.operations.runner import Operations
from scalarizr.rpc import maintenance
from scalarizr.rpc.dispatch import Dispatcher
from scalarizr.rpc.registry import Method, Registry
from scalarizr.rpc.rights import Rights
from scalarizr.server.activation import PassedSockets
from scalarizr.server.endpoint import Endpoint
from scalarizr.server.idle_exit import IdleExit
from scalarizr.server.keys_in_force import KeysInForce
from scalarizr.server.listener import Listener, bind, close_unnamed
from scalarizr.server.listening_socket import LackOfResources
from scalarizr.settings.load import BadSettings, load_settings, where_set

if TYPE_CHECKING:
    from scalarizr.server.tls_in_force import TlsInForce

T = TypeVar("T")
# Seconds until a change that could not be taken back in time is tried again.
_TRY_AGAIN = 10.0
_HEAD_TOLD_EVERY = 3600.0


class CannotStart(Exception):
    """The agent cannot start; the text is one line that says which thing and why."""


class Agent:
    """One agent.

    :param etc: its configuration directory.
    :param listen: addresses that replace those of the settings.
    :param namespaces: name → `package.module:Class`, in place of the product's own table.
    :param passed: sockets that listen already.
    :ivar on_nothing_to_do: called when it may leave, having had nothing to do for as long as the settings say.
    :raises BadSettings: the settings cannot be used.
    :raises CannotStart: a file cannot be read or written, or another agent runs on the same state.
    """

    def __init__(
        self,
        etc: Path,
        *,
        listen: Sequence[str] | None = None,
        namespaces: Mapping[str, str] = NAMESPACES,
        passed: PassedSockets | None = None,
    ) -> None:
        # Workers and guards run in other directories.
        self._etc = etc = etc.absolute()
        self._listen = listen
        self._passed = passed or PassedSockets()
        self.settings = settings = load_settings(etc)
        self.registry = Registry(namespaces, ALIASES, self._build)
        default = settings.paths.key
        assert default is not None
        self._keys = KeysInForce(etc, default, self.registry.names, ALIASES, self._find)
        self.log = _opened(where_set(etc, "paths", "logs"), lambda: open_log(settings))
        try:
            state = settings.paths.state
            setting = where_set(etc, "paths", "state")
            _opened(setting, lambda: make_private_directory(state))
            lock = _opened(setting, lambda: instance.hold(state))
            if lock is None:
                raise CannotStart(f"{state}: another agent runs on this state directory.")
            self._lock = lock
            self._books = Bookkeeping(_opened(where_set(etc, "paths", "logs"), self._open_audit_log))
            self._tls = self._read_tls() if settings.tls.listen else None
            self._replay_file = state / "replay"
            self._replay = _opened(
                setting,
                lambda: open_store(self._replay_file, settings.api.clock_skew, settings.api.replay_entries, time.time),
            )
        except BaseException:
            close_log(self.log)
            raise
        self.addresses: list[str] = []
        self._executor = Threads(settings.api.threads, thread_name_prefix="call")
        modules = [path.partition(":")[0] for path in namespaces.values()]
        self._operations = Operations(settings, self.log, worker_command(), modules)
        self._operations.on_ended = self._books.operation_ended
        try:
            self.parts = build_parts(etc, settings, self.log, self._operations)
        except NotConfigured as error:
            self.close()
            raise CannotStart(error.message) from None
        self._gate = WorkerGate(self._operations, etc, namespaces)
        self._dispatcher = Dispatcher(
            self.registry,
            self._executor,
            self._gate,
            self.parts.changes,
            state / "locks",
            self.log,
            settings.api.queue,
            self._books,
        )
        self._envelopes = Envelopes(self._keys.ring, settings.api.envelopes, self._replay)
        self._endpoint = Endpoint(
            self._envelopes, self._keys, self._dispatcher, self._executor, self.log, self._books.message_refused
        )
        self._word = instance.Word(0.0)
        self._saying = threading.Lock()
        self._read_maintenance()
        self._listeners = [Listener(settings.api, self._endpoint.handle, self.log)]
        self._sockets_outlive_us = False
        self._idle_exit = IdleExit(self._has_something_to_do, self._accepted, self._leave)
        self.on_nothing_to_do: Callable[[], object] = lambda: None

    def _open_audit_log(self) -> AuditLog | None:
        logs, state = self.settings.logs, self.settings.paths.state
        if not logs.audit:
            return None
        path = self.settings.paths.logs / AUDIT_LOG
        return AuditLog(path, head_file_of(state), self.log, logs.audit_size, logs.audit_keep)

    def _read_tls(self) -> "TlsInForce":
        from scalarizr.server.tls_in_force import TlsInForce  # and with it `ssl`, which costs 3 MB of memory

        return TlsInForce(self._etc, self.settings.tls, self.log, self._books.handshake_refused)

    def _build(self, kind: type) -> object:
        # The one namespace that tells of all the others is built from the registry, not from the parts.
        return kind(self.registry) if getattr(kind, "describes_the_registry", False) else kind(self.parts)

    async def start(self) -> None:
        """Recover what was left over, then listen.

        :raises CannotStart: an address cannot be had.
        """
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._unexpected)
        self.log.gather(loop.call_soon)
        for directory in ("", "storage", "mongodb"):
            sweep_staged(self.settings.paths.state / directory)
        changes = self.parts.changes
        changes.recover()
        changes.on_waiting = lambda record: loop.call_soon_threadsafe(self._await_confirmation, record)
        self._gate.on_waiting = self._await_confirmations
        self._await_confirmations()
        self._close_unnamed_sockets()
        sockets = _bound(self._listen or self.settings.api.listen, self._passed)
        for_tls = _bound(self.settings.tls.listen or [], self._passed)
        self._sockets_outlive_us = self._passed.some and not self._passed.opened_here
        for_figures = self._bound_for_figures()
        self.addresses = [_address_text(listening.getsockname()) for listening in sockets]
        self.addresses += [f"{_address_text(listening.getsockname())} (TLS)" for listening in for_tls]
        await self._operations.recover()
        await self._listeners[0].listen(sockets)
        if self._tls is not None:
            await self._listeners[0].listen(for_tls, self._tls.over)
        if for_figures:
            await self._show_figures(for_figures)
        self._books.started(__version__)
        loop.call_later(_HEAD_TOLD_EVERY, self._tell_head)
        if self.settings.paths.scripting_logs.is_dir():
            self._executor.submit(self._prune_script_logs)
        if (self.settings.paths.state / "firewall.json").exists():
            self._executor.submit(self._settle_ports)
        if (self.settings.paths.state / "mongodb" / "monitoring.json").exists():
            self.registry.methods("mongodb")  # which takes up again what keeps the monitoring agent running
        self._main_task = asyncio.current_task()
        self._watch_for_idleness(self.settings.api.idle_exit)
        # What was built until now stays to the end: the collector need not walk it again and again.
        gc.collect()
        gc.freeze()
        self.log.info("started pid=%d listening=%s", os.getpid(), ",".join(self.addresses))

    def _close_unnamed_sockets(self) -> None:
        listen = [self._listen or self.settings.api.listen, self.settings.tls.listen, self.settings.metrics.listen]
        named = [one for some in listen for one in ([some] if isinstance(some, str) else some or ())]
        closed = close_unnamed(self._passed, named)
        if closed:
            self.log.error(
                "closed %s, which no `listen` of the settings names: let the socket's unit name the same addresses",
                closed,
            )

    def _watch_for_idleness(self, after: float | None) -> None:
        if after is not None and (not self._passed.some or self._passed.opened_here):
            here = ", ".join(self._passed.opened_here)
            self.log.warning("idle_exit is not in force: after leaving nobody would listen on %s", here)
            after = None
        self._idle_exit.apply(after)

    def _accepted(self) -> int:
        return sum(listener.accepted for listener in self._listeners)

    def _has_something_to_do(self) -> bool:
        return (
            any(listener.connected for listener in self._listeners)
            or self._operations.busy
            # What goes on though nobody waits for it any more, such as a call beyond its limit.
            or asyncio.all_tasks() != {self._main_task}
            # Their guards end their wait whether there is an agent or not; it stays for the one whose guard was killed.
            or bool(self.parts.changes.journal.waiting())
            # Without systemd it is the agent that keeps the monitoring agent running.
            or (
                (self.settings.paths.state / "mongodb" / "monitoring.json").exists()
                and not Path("/run/systemd/system").is_dir()
            )
        )

    def _leave(self) -> bool:
        if not can_be_saved(self._replay, self._replay_file):
            # It could not come back: on a full disk, say, which it may be asked to clean up.
            self.log.warning("it stays, though there is nothing to do: %s cannot be written", self._replay_file)
            return False
        self.log.info("there is nothing to do: leaving until the next connection")
        self.on_nothing_to_do()
        return True

    def _bound_for_figures(self) -> list[socket.socket]:
        listen = self.settings.metrics.listen
        if not listen:
            return []
        from scalarizr.server.figures_endpoint import not_of_this_host

        addresses = [listen] if isinstance(listen, str) else listen
        setting = where_set(self._etc, "metrics", "listen")
        try:
            others = not_of_this_host(addresses)
        except ValueError as error:
            raise CannotStart(f"{setting}: expected {error}.") from error
        if others:
            raise CannotStart(
                f"{setting}: {others[0]} can be reached from other hosts, and nobody is asked there who he is. "
                'Use a loopback address such as "127.0.0.1:9810".'
            )
        return _bound(addresses, self._passed)

    async def _show_figures(self, sockets: Sequence[socket.socket]) -> None:
        from scalarizr.metrics.page import page_of
        from scalarizr.server.figures_endpoint import FiguresEndpoint

        async def page() -> bytes:
            running, queued = self._operations.at_work()
            history = await asyncio.get_running_loop().run_in_executor(None, self.parts.changes.journal.history)
            changes: Counter[tuple[str, str]] = Counter((record.service, record.status) for record in history)
            return page_of(self._books.figures, __version__, running, queued, changes)

        listener = Listener(self.settings.api, FiguresEndpoint(page).handle, self.log)
        await listener.listen(sockets)
        self._listeners.append(listener)

    def _tell_head(self) -> None:
        self._books.tell_head()
        asyncio.get_running_loop().call_later(_HEAD_TOLD_EVERY, self._tell_head)

    def _prune_script_logs(self) -> None:
        from scalarizr.system.script_logs import prune

        settings = self.settings.system
        prune(self.settings.paths.scripting_logs, settings.script_logs_keep, settings.script_logs_size)

    def reload(self) -> None:
        """Read keys and settings again: put in force what can change, and say what needs a restart.

        What cannot be read stays as it was; the keys do not wait for the settings to be right, nor the other way round.
        """
        began = instance.now()
        problems = []
        for read_again in (self._reload_keys, self._read_maintenance, self._reload_settings, self._reload_tls):
            try:
                read_again()
            except BadSettings as error:
                self.log.error("not re-read, the old ones stay in force: %s", error)
                problems.append(str(error))
        self._word = instance.Word(began, problems)
        # Whoever waits for it does not wait for the calls that have all other threads.
        threading.Thread(target=self._say, name="word", daemon=True).start()

    def _say(self) -> None:
        with self._saying:  # so that an older word never comes to stand in a newer one's place
            instance.say(self.settings.paths.state, self._word)

    def _find(self, name: str, rights: Rights) -> Method:
        return self.registry.find(name, rights=rights)

    def _reload_keys(self) -> None:
        old = set(self._keys.rights)
        self._keys.read()
        self._envelopes.keys = self._keys.ring
        gone = ",".join(sorted(old - set(self._keys.rights)))
        self.log.info("keys re-read keys=%s gone=%s", ",".join(self._keys.rights) or "-", gone or "-")

    def _read_maintenance(self) -> None:
        was, self._dispatcher.maintenance = self._dispatcher.maintenance, maintenance.words(self.settings.paths.state)
        if was != self._dispatcher.maintenance:
            self.log.warning("maintenance %s", self._dispatcher.maintenance or "off")

    def _reload_settings(self) -> None:
        new = load_settings(self._etc)
        from scalarizr.settings.change import LIVE, changed_settings

        changed = changed_settings(self.settings, new)
        applied = [name for name in changed if name in LIVE]
        restart = [name for name in changed if name not in LIVE]
        for listener in self._listeners:
            listener.apply(new.api)
        if self._tls is not None:
            self._tls.name(new.tls)
        self._replay.bound(new.api.clock_skew, new.api.replay_entries)
        self._dispatcher.queue = new.api.queue
        self._watch_for_idleness(new.api.idle_exit)
        self._operations.apply(new)
        self.log.info(
            "settings re-read changed=%s needs-restart=%s", ",".join(applied) or "-", ",".join(restart) or "-"
        )

    def _reload_tls(self) -> None:
        if self._tls is not None:
            self._tls.read()

    async def stop(self) -> None:
        """Stop accepting, finish what runs, keep what the next start needs.

        Where the sockets outlive the agent nobody is refused: who is connected already gets one more answer, who comes
        now gets his from the next agent.
        """
        self._idle_exit.stop()
        self._endpoint.stopping = not self._sockets_outlive_us
        await asyncio.gather(*(listener.stop(answering=self._sockets_outlive_us) for listener in self._listeners))
        self._endpoint.stopping = True
        await self._operations.close()
        self.close()

    def close(self) -> None:
        """Let go of everything."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        save_store(self._replay, self._replay_file)
        if self.addresses:
            self._books.stopped()
            self.log.info("stopped pid=%d", os.getpid())
        self._books.close()
        close_log(self.log)
        os.close(self._lock)

    def _await_confirmations(self) -> None:
        for record in self.parts.changes.journal.waiting():
            self._await_confirmation(record)

    def _await_confirmation(self, record: Record) -> None:
        """Be there at the end of a change's wait, should its guard be gone by then."""
        loop = asyncio.get_running_loop()
        changes = self.parts.changes

        def end() -> None:
            with contextlib.suppress(RuntimeError):  # the agent stops at this very moment
                self._executor.submit(take_back)

        def take_back() -> None:
            changes.recover()
            if any(waiting.id == record.id for waiting in changes.journal.waiting()):
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(loop.call_later, _TRY_AGAIN, end)

        loop.call_later(seconds_left(record) + 1, end)

    def _settle_ports(self) -> None:
        from scalarizr.api.configured import settle_ports

        try:
            settle_ports(self.parts)
        except (ScalarizrError, OSError) as failure:
            self.log.error("the firewall is not as it was left: %s", failure)

    def _unexpected(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if isinstance(context.get("exception"), LackOfResources):
            return
        self.log.error("event loop: %s", context.get("message"), exc_info=context.get("exception"))


def worker_command() -> list[str]:
    """Give the argument vector of a worker process."""
    return [sys.executable, "-m", "scalarizr.worker"]


def _opened(setting: str, action: Callable[[], T]) -> T:
    try:
        return action()
    except OSError as error:
        raise CannotStart(f"{setting}: {error.filename} cannot be used: {error.strerror or error}.") from error


def _bound(listen: str | Sequence[str], passed: PassedSockets) -> list[socket.socket]:
    try:
        return bind([listen] if isinstance(listen, str) else listen, passed)
    except (OSError, ValueError) as error:
        raise CannotStart(f"{error.strerror or error}." if isinstance(error, OSError) else f"{error}.") from error


def _address_text(place: tuple[Any, ...]) -> str:
    host, port = place[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
