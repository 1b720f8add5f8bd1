"""The virtual hosts of this server: making, changing and removing them, each as one transaction on Apache's files."""

import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from scalarizr.apache import tls_module
from scalarizr.apache.certificate_files import identity_in, plan_certificate
from scalarizr.apache.check import Checker, Source
from scalarizr.apache.configuration import served_files
from scalarizr.apache.description import Description
from scalarizr.apache.expectation import Expectation, Known, Outdated, after
from scalarizr.apache.host_files import HostFiles
from scalarizr.apache.parameters import Host
from scalarizr.apache.ports import opened_ports_in
from scalarizr.apache.program import ApacheProgram
from scalarizr.apache.sites import Places
from scalarizr.apache.syntax import BadSyntax
from scalarizr.apache.template import (
    CertificatePaths,
    HostText,
    at_port,
    certificate_of,
    read_host,
    section_port,
    speaks_tls,
    with_certificate,
    with_name,
    with_port,
    without_certificate,
)
from scalarizr.changes.changes import Changes
from scalarizr.changes.journal import PlannedFile
from scalarizr.changes.mode import DryRun
from scalarizr.changes.transaction import Effect, Transaction
from scalarizr.environment.source import EnvironmentSource
from scalarizr.errors import AlreadyExists, InvalidParameter, NotFound, Refused, ScalarizrError
from scalarizr.host.firewall import Firewall
from scalarizr.operations.progress import current

_SERVICE = "apache"


class _Plan:
    """One change of the virtual hosts."""

    def __init__(self, transaction: Transaction, described: Description, places: Places) -> None:
        self.transaction = transaction
        self.described = described
        self.modules = described.modules
        self.places = places
        self.sources: dict[Path, Source] = {}
        self.allowed: set[int] = set()


class Hosting:
    """The virtual hosts, and Apache as the service that their files configure.

    :param program: the Apache.
    :param changes: makes the transactions.
    :param environment: certificates and virtual hosts.
    :param firewall: opens ports.
    :param directory: of the agent's private files; virtual hosts and keys are below it.
    :param state: directory of the agent's own.
    :param log: the agent's log.
    """

    def __init__(
        self,
        program: ApacheProgram,
        changes: Changes,
        environment: EnvironmentSource,
        firewall: Firewall,
        directory: Path,
        state: Path,
        log: logging.Logger,
    ) -> None:
        self.program = program
        self._changes = changes
        self._environment = environment
        self._firewall = firewall
        self._files = HostFiles(directory / "vhosts")
        self._keys = directory / "keys"
        self._state = state
        self._log = log
        self._expected: Description | None = None

    # The service, as a transaction sees it

    def validate(self, files: list[PlannedFile]) -> str:
        """Check planned files with the real program."""
        return self._checker().check(files)

    def reload(self) -> None:
        """Make the live files effective."""
        current().progress(2, 3, step="Apache loads the new configuration")
        self.program.reload()

    def is_running(self) -> bool:
        """Tell whether Apache runs."""
        return self.program.is_running()

    def open_ports(self, files: list[PlannedFile]) -> None:
        """Let the ports through the firewall for which a caller asked that, once or again."""
        for file in files:
            if file.path == self._files.ports:
                wanted = opened_ports_in(file.new.content) - opened_ports_in(file.old.content)
                self._firewall.open(_SERVICE, wanted)

    def close_ports(self) -> None:
        """Close the ports on which no virtual host is any more."""
        if self._firewall.opened(_SERVICE):
            self._firewall.close_all_but(_SERVICE, {port for _name, port in self._files.present()})

    # Virtual hosts

    def create(self, host: Host, *, reload: bool) -> str:
        """Make a virtual host, or replace the one of the same name and port.

        :return: the path of its file.
        """
        self._change("apache.create_vhost", lambda plan: self._write(plan, host), reload=reload)
        return str(self._files.path(host.hostname, host.port))

    def update(
        self,
        signature: tuple[str, int],
        *,
        hostname: str | None,
        port: int | None,
        text: HostText | None,
        ssl: bool | None,
        ssl_certificate_id: str | None,
        reload: bool,
    ) -> str:
        """Change a virtual host; what is None stays.

        :return: the path of its file.
        :raises NotFound: there is none of that name on that port.
        :raises AlreadyExists: there is another one of the new name and port.
        """
        old_name, old_port = signature
        new_name, new_port = hostname or old_name, port or old_port
        old_path, new_path = self._files.path(old_name, old_port), self._files.path(new_name, new_port)

        def edit(plan: _Plan) -> None:
            content = plan.transaction.read(old_path)
            if content is None:
                raise self._no_host(old_name, old_port)
            if new_path != old_path and plan.transaction.exists(new_path):
                raise AlreadyExists(
                    f"There is a virtual host {new_name}:{new_port} already. Nothing was changed.",
                    {"hostname": new_name, "port": new_port},
                )
            present = read_host(content)
            tls = speaks_tls(present) if ssl is None else ssl
            identity = ssl_certificate_id
            if identity is None:
                identity = identity_in(certificate_of(present))
            changed = text or present
            if new_port != old_port:
                changed = with_port(changed, old_port, new_port)
            if new_name != old_name:
                changed = with_name(changed, old_name, new_name)
            if ssl is False and speaks_tls(changed):
                changed = without_certificate(changed)
            if new_path != old_path:
                plan.transaction.delete(old_path)
            # Who moves keeps its way through the firewall.
            opened = opened_ports_in(plan.transaction.read(self._files.ports)) | self._firewall.opened(_SERVICE)
            allow = new_port != old_port and old_port in opened
            self._write(
                plan,
                Host(
                    hostname=new_name,
                    port=new_port,
                    text=changed,
                    ssl=tls,
                    ssl_certificate_id=identity,
                    allow_port=allow,
                ),
            )

        self._change("apache.update_vhost", edit, reload=reload)
        return str(new_path)

    def delete(self, signatures: Sequence[tuple[str, int]], *, reload: bool) -> tuple[list[str], list[tuple[str, int]]]:
        """Remove virtual hosts, never their content.

        :return: the removed files, and the ones that there were not.
        """
        removed: list[str] = []
        unknown: list[tuple[str, int]] = []

        def edit(plan: _Plan) -> None:
            removed.clear()
            unknown.clear()
            for signature in signatures:
                path = self._files.path(*signature)
                if plan.transaction.exists(path):
                    plan.transaction.delete(path)
                    removed.append(str(path))
                elif str(path) not in removed:
                    unknown.append(signature)

        self._change("apache.delete_vhosts", edit, reload=reload)
        if unknown:
            names = ", ".join(f"{name}:{port}" for name, port in unknown)
            self._log.warning("apache.delete_vhosts: there were no virtual hosts %s", names)
        return removed, unknown

    def replace_all(self, hosts: list[Host], bad: list[str], *, reload: bool, all_or_nothing: bool) -> list[str]:
        """Make the agent's whole set exactly these.

        :param bad: what is wrong with those that the caller left out already.
        :param all_or_nothing: one bad host, and nothing changes; else the good ones are applied.
        :return: the paths of their files.
        :raises Refused: says which hosts are bad, and what was done.
        """
        self._refuse_twins(hosts)
        while True:
            try:
                self._change("apache.reconfigure", partial(self._write_all, hosts), reload=reload)
                break
            except ScalarizrError as failure:
                index = failure.facts.get("index")
                culprit = next((host for host in hosts if host.index == index), None) if index is not None else None
                if all_or_nothing or culprit is None:
                    raise
                bad.append(str(failure))
                hosts = [host for host in hosts if host is not culprit]
        paths = [str(self._files.path(host.hostname, host.port)) for host in hosts]
        if bad:
            bad = [one.removesuffix("Nothing was changed.").strip() for one in bad]
            one, others = len(bad) == 1, "There was no other."
            if paths:
                others = "The other one was applied." if len(paths) == 1 else f"The other {len(paths)} were applied."
            raise Refused(
                f"{'One' if one else len(bad)} of the virtual hosts {'is bad and was' if one else 'are bad and were'} "
                f"left out: {' '.join(bad)} {others}",
                {"bad": list(bad), "applied": list(paths)},
            )
        return paths

    def served(self) -> list[str]:
        """Give the agent's files whose virtual hosts Apache serves."""
        ours = {str(self._files.path(name, port)) for name, port in self._files.present()}
        return [path for path in served_files(self.program) if path in ours]

    def set_default_certificate(self, identity: str) -> None:
        """Put a certificate into the distribution's default virtual host for TLS.

        :raises NotFound: there is no such virtual host.
        """
        layout = self.program.layout
        sites = [self.program.config_dir / name for name in layout.default_tls_sites]

        def edit(plan: _Plan) -> None:
            site = next((path for path in sites if plan.transaction.exists(path)), None)
            if site is None:
                names = " or ".join(map(str, sites))
                raise NotFound(f"There is no default virtual host for TLS: no {names}. Nothing was changed.")
            try:
                paths = self._certificate(plan, identity, "ssl_certificate_id")
            except NotFound:
                certificate, key = layout.own_certificate
                self._log.warning("there is no certificate %s: the system's own is used", identity)
                paths = CertificatePaths(certificate, key, None)
            host = read_host(plan.transaction.read(site) or b"")
            port = next((number for one in host.virtual_hosts() if (number := section_port(one))), 443)
            plan.transaction.write(site, with_certificate(host, paths, port).text.encode("utf-8", "surrogateescape"))

        self._change("apache.set_default_ssl_certificate", edit, reload=True)

    def enable_mod_ssl(self) -> None:
        """Load mod_ssl."""

        def edit(plan: _Plan) -> None:
            plan.modules = tls_module.enable(plan.transaction, self.program, plan.modules)

        self._change("apache.enable_mod_ssl", edit, reload=True)

    def disable_mod_ssl(self) -> None:
        """Do not load mod_ssl any more.

        :raises Refused: virtual hosts need it; names them.
        """

        def edit(plan: _Plan) -> None:
            needing = []
            untouched = tls_module.untouched_default_host(plan.transaction, self.program)
            for path in plan.described.files:
                if path == untouched:
                    continue
                with contextlib.suppress(ScalarizrError, BadSyntax):  # it is Apache that says what is wrong with a file
                    content = plan.transaction.read(path) or b""
                    if b"SSLEngine" in content and speaks_tls(read_host(content)):
                        needing.append(str(path))
            if needing and "ssl_module" in plan.modules:
                raise Refused(
                    f"mod_ssl is needed by {', '.join(needing)}. Nothing was changed; turn TLS off there first.",
                    {"vhosts": list(needing)},
                )
            tls_module.disable(plan.transaction, self.program, plan.described)
            plan.modules = plan.modules - {"ssl_module"}

        self._change("apache.disable_mod_ssl", edit, reload=True)

    # How

    def _change(self, method: str, edit: Callable[[_Plan], None], *, reload: bool) -> None:
        with self._changes.transaction(_SERVICE, method) as transaction:
            expected, self._expected = self._expected, None
            current().progress(0, 3, step="writing the new configuration")
            if expected is not None:
                try:
                    with Expectation(expected, self.program.describe) as known:
                        self._carry_out(transaction, edit, known, reload=reload)
                    return
                except Outdated as found:
                    transaction.return_to({})
                    described = found.described
            else:
                described = self.program.describe()
            self._carry_out(transaction, edit, Known(described), reload=reload)

    def _carry_out(
        self, transaction: Transaction, edit: Callable[[_Plan], None], known: Expectation | Known, *, reload: bool
    ) -> None:
        running = current()
        plan = _Plan(transaction, known.described, Places(known.described.run))
        checker = self._checker()

        def validate(files: list[PlannedFile]) -> str:
            running.progress(1, 3, step="Apache checks the new configuration")
            loaded = msgspec.structs.replace(plan.described, modules=plan.modules)
            said = checker.check(files, plan.sources, plan.places.log_directories, loaded)
            known.confirm()
            return said

        try:
            edit(plan)
            self._files.listen(transaction, plan.described, plan.modules, plan.allowed)
            self._files.be_included(transaction, self.program.main_config)
            files = transaction.plan
            if not files:
                known.confirm()
            record = transaction.apply(
                Effect(
                    service=self,
                    name=_SERVICE,
                    reload=reload,
                    validate=validate,
                    preparations=(*plan.places.steps, *self._opening(plan)),
                    decided=running.end,
                )
            )
        except (ScalarizrError, DryRun):
            known.confirm()
            raise
        self._expected = after(plan.described, plan.modules, files)
        running.progress(3, 3, step="done" if record else "everything was so already")

    def _opening(self, plan: _Plan) -> tuple[tuple[Callable[[], None], Callable[[], None]], ...]:
        if not plan.allowed:
            return ()
        return ((lambda: self._firewall.open(_SERVICE, plan.allowed), self.close_ports),)

    def _checker(self) -> Checker:
        return Checker(self.program, self._state / "check", (self.program.config_dir, self._files.directory))

    def _write_all(self, hosts: list[Host], plan: _Plan) -> None:
        kept = {self._files.path(host.hostname, host.port) for host in hosts}
        for name, port in self._files.present():
            path = self._files.path(name, port)
            if path not in kept:
                plan.transaction.delete(path)
        for host in hosts:
            try:
                self._write(plan, host)
            except ScalarizrError as failure:
                failure.facts |= {"index": host.index, "hostname": host.hostname}
                if not isinstance(failure, InvalidParameter):
                    failure.begin_with(f"In {host.called}: ")
                raise

    def _write(self, plan: _Plan, host: Host) -> None:
        path = self._files.path(host.hostname, host.port)
        text = at_port(host.text, host.hostname, host.port, host.parameter("template"))
        if host.ssl:
            plan.modules = tls_module.enable(plan.transaction, self.program, plan.modules)
            paths = self._certificate(plan, host.ssl_certificate_id, host.parameter("ssl_certificate_id"))
            text = with_certificate(text, paths, host.port)
        plan.places.add(text, host.called)
        if host.allow_port:
            plan.allowed.add(host.port)
        plan.sources[path] = Source(
            host.called, host.parameter("template"), tuple(number for number, _line in text.lines), host.index
        )
        plan.transaction.write(path, text.text.encode("utf-8", "surrogateescape"))

    def _certificate(self, plan: _Plan, identity: str | None, parameter: str) -> CertificatePaths:
        return plan_certificate(plan.transaction, self._keys, self._environment, identity, parameter, self._log)

    def _no_host(self, hostname: str, port: int) -> NotFound:
        known = ", ".join(f"{name}:{number}" for name, number in self._files.present()[:8])
        return NotFound(
            f"There is no virtual host {hostname}:{port}. "
            + (f"There are {known}. " if known else "There is none at all. ")
            + "Nothing was changed.",
            {"hostname": hostname, "port": port},
        )

    def _refuse_twins(self, hosts: list[Host]) -> None:
        seen: dict[tuple[str, int], Host] = {}
        for host in hosts:
            other = seen.setdefault((host.hostname, host.port), host)
            if other is not host:
                error = InvalidParameter(
                    host.parameter("hostname"),
                    f"{host.hostname}:{host.port}",
                    f"a name and port of its own: {other.place} has them already",
                )
                error.facts |= {"index": host.index, "hostname": host.hostname}
                raise error
