"""The reverse proxies of this server: making, changing and removing them, each as one transaction on nginx's files."""

import contextlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from scalarizr.certificates import check_certificate
from scalarizr.changes.changes import Changes
from scalarizr.changes.journal import PlannedFile, Record
from scalarizr.changes.transaction import Effect, Transaction
from scalarizr.environment.source import EnvironmentSource, Role
from scalarizr.errors import InvalidParameter, NotFound, ScalarizrError
from scalarizr.host.firewall import Firewall
from scalarizr.nginx import later, names, servers
from scalarizr.nginx.check import Checker, new_ports, ports_in
from scalarizr.nginx.document import Block, KnownDocuments
from scalarizr.nginx.parameters import Destination, Proxy, Server
from scalarizr.nginx.plan import PROXIES, Plan
from scalarizr.nginx.program import NginxProgram
from scalarizr.nginx.render import Network, Upstream, render_servers, render_upstream, upstreams_of
from scalarizr.nginx.server_edits import Addition, Edit, Removal, carry_out, upstreams_for
from scalarizr.operations.progress import current

_SERVICE = "nginx"
_APPLICATION = "app"
_ALL_NAMES = "_"


class Proxying:
    """The proxies, and nginx as the service that their files configure.

    :param program: the nginx.
    :param changes: makes the transactions.
    :param environment: roles and certificates.
    :param firewall: opens the ports.
    :param keys: directory of certificates and keys.
    :param state: directory of the agent's own.
    :param cloud_location: of this server.
    :param log: the agent's log.
    """

    def __init__(
        self,
        program: NginxProgram,
        changes: Changes,
        environment: EnvironmentSource,
        firewall: Firewall,
        keys: Path,
        state: Path,
        cloud_location: str | None,
        log: logging.Logger,
    ) -> None:
        self.program = program
        self._changes = changes
        self._environment = environment
        self._firewall = firewall
        self._keys = keys
        self._state = state
        self._network = Network(cloud_location)
        self._log = log
        self._known = KnownDocuments()

    # The service, as a transaction sees it

    def validate(self, files: list[PlannedFile]) -> str:
        """Check planned files with the real program."""
        return self._checker().check(files)

    def reload(self) -> None:
        """Make the live files effective."""
        current().progress(2, 3, step="nginx loads the new configuration")
        self.program.reload()

    def is_running(self) -> bool:
        """Tell whether nginx runs."""
        return self.program.is_running()

    def open_ports(self, files: list[PlannedFile]) -> None:
        """Let the ports that proxies newly listen on through the firewall."""
        self._firewall.open(_SERVICE, new_ports([file for file in files if file.path.name == PROXIES]))

    def close_ports(self) -> None:
        """Close the ports that no proxy listens on any more."""
        if not self._firewall.opened(_SERVICE):
            return
        live = b""
        with contextlib.suppress(FileNotFoundError):
            live = (self.program.config_dir / PROXIES).read_bytes()
        self._firewall.close_all_but(_SERVICE, ports_in(live))

    # Whole proxies

    def make(self, proxy: Proxy, method: str) -> None:
        """Create or replace one proxy."""
        self._change(method, lambda plan: self._put(plan, [proxy]), reload=proxy.reload_service)

    def remove(self, hostname: str, *, reload: bool) -> None:
        """Remove a proxy: its servers and upstreams.

        :raises NotFound: there is none of that name.
        """

        def edit(plan: Plan) -> None:
            if not self._take_out(plan, hostname):
                raise _no_proxy(hostname, plan)

        self._change("nginx.remove_proxy", edit, reload=reload)

    def replace_all(self, proxies: list[Proxy], method: str, *, reload: bool) -> None:
        """Make the whole set exactly these.

        :raises InvalidParameter: two of them claim one name on one port.
        """
        self._refuse_twins(proxies)
        if not proxies and method == "nginx.reconfigure":
            proxies = [self._default_proxy()]

        def edit(plan: Plan) -> None:
            kept = {proxy.hostname for proxy in proxies} | {None}
            for document in (plan.proxies, plan.upstreams):
                document.remove([block for block in document.blocks if block.owner not in kept])
            by_name: dict[str, list[Proxy]] = {}
            for proxy in proxies:
                by_name.setdefault(proxy.hostname, []).append(proxy)
            self._put_many(plan, list(by_name.values()))

        self._change(method, edit, reload=reload and all(proxy.reload_service for proxy in proxies))

    # Servers of upstreams

    def add_server(self, backend: str, server: Server, *, now: bool, reload: bool) -> None:
        """Add a server to the upstreams of a name.

        :raises NotFound: there is no such upstream.
        """
        self._edit_servers("nginx.add_server", Addition(backend=backend, server=server), now=now, reload=reload)

    def remove_server(self, backend: str, server: Server, *, now: bool, reload: bool) -> None:
        """Take a server out of the upstreams of a name.

        :raises NotFound: there is no such upstream.
        """
        self._edit_servers("nginx.remove_server", Removal(backend=backend, server=server), now=now, reload=reload)

    def add_server_to_role(self, role: str, server: Server, *, now: bool, reload: bool) -> None:
        """Add a server to every upstream that uses a role."""
        self._edit_servers("nginx.add_server_to_role", Addition(role=role, server=server), now=now, reload=reload)

    def remove_server_from_role(self, role: str, server: Server, *, now: bool, reload: bool) -> None:
        """Take a server out of every upstream that uses a role."""
        edit = Removal(role=role, server=server)
        self._edit_servers("nginx.remove_server_from_role", edit, now=now, reload=reload)

    def remove_server_everywhere(self, server: Server, *, now: bool, reload: bool) -> None:
        """Take a server out of every upstream."""
        edit = Removal(server=server)
        self._edit_servers("nginx.remove_server_from_all_backends", edit, now=now, reload=reload)

    # TLS of an existing proxy

    def enable_ssl(self, hostname: str, port: int | None, certificate_id: str | None, *, reload: bool) -> None:
        """Let a proxy speak TLS.

        :raises NotFound: there is no such proxy, or no such certificate.
        """

        def edit(plan: Plan) -> None:
            blocks = plan.servers_of(hostname)
            if not blocks:
                raise _no_proxy(hostname, plan)
            plan.for_all_names = hostname == _ALL_NAMES
            present = next((number for block in blocks if (number := servers.tls_port(block))), None)
            chosen = port or present or 443
            plain = {number for block in blocks for number in servers.plain_ports(block)}
            if chosen in plain:
                raise InvalidParameter("ssl_port", str(chosen), f"another port than the one for http of {hostname}")
            known = next((pair for block in blocks if (pair := servers.certificate_of(block))), None)
            pair = known if known and certificate_id is None else self._certificate(plan.transaction, certificate_id)
            for block in blocks:
                if servers.is_redirect(block):
                    plan.proxies.swap(block, servers.redirecting_to(block, chosen))
                else:
                    plan.proxies.swap(block, servers.with_tls(block, chosen, pair, ipv6=_has_ipv6()))

        self._change("nginx.enable_ssl", edit, reload=reload)

    def disable_ssl(self, hostname: str, *, reload: bool) -> None:
        """Let a proxy speak plain http only; one that redirected to https serves on its http port then.

        :raises NotFound: there is no such proxy.
        """

        def edit(plan: Plan) -> None:
            blocks = plan.servers_of(hostname)
            if not blocks:
                raise _no_proxy(hostname, plan)
            plan.for_all_names = hostname == _ALL_NAMES
            redirects = [block for block in blocks if servers.is_redirect(block)]
            plain = {number for block in redirects for number in servers.plain_ports(block)} or {80}
            if any(servers.tls_port(block) for block in blocks):
                for block in blocks:
                    if not servers.is_redirect(block):
                        plan.proxies.swap(block, servers.without_tls(block, plain, ipv6=_has_ipv6()))
                plan.proxies.remove(redirects)

        self._change("nginx.disable_ssl", edit, reload=reload)

    # How

    def _change(self, method: str, edit: Callable[[Plan], None], *, reload: bool) -> Record | None:
        with self._changes.transaction(_SERVICE, method) as transaction:
            running = current()
            running.progress(0, 3, step="writing the new configuration")
            plan = self._plan(transaction)
            self._catch_up(plan)
            edit(plan)
            plan.store()
            checker = self._checker()

            def validate(files: list[PlannedFile]) -> str:
                running.progress(1, 3, step="nginx checks the new configuration")
                return checker.check(files, plan.documents)

            record = transaction.apply(
                Effect(service=self, name=_SERVICE, reload=reload, validate=validate, decided=running.end)
            )
            running.progress(3, 3, step="done" if record else "everything was so already")
            return record

    def _plan(self, transaction: Transaction) -> Plan:
        return Plan(transaction, self.program.config_dir, self.program.main_config, self._known)

    def _checker(self) -> Checker:
        return Checker(self.program, self._state / "check", (self.program.config_dir, self._keys))

    def _edit_servers(self, method: str, edit: Edit, *, now: bool, reload: bool) -> None:
        if now:
            self._change(method, lambda plan: carry_out(plan, edit), reload=reload)
            return
        with self._changes.transaction(_SERVICE, method) as transaction:
            plan = self._plan(transaction)
            if edit.backend is not None:
                upstreams_for(plan, edit)
            later.remember(transaction, self._state, edit)
            transaction.apply()

    def _catch_up(self, plan: Plan) -> None:
        for edit in later.take(plan.transaction, self._state):
            # What it was for may be gone by now.
            with contextlib.suppress(NotFound):
                carry_out(plan, edit)

    def _put(self, plan: Plan, proxies: list[Proxy]) -> None:
        self._put_many(plan, [proxies])

    def _put_many(self, plan: Plan, groups: Iterable[list[Proxy]]) -> None:
        """Write proxies; those of one group have one hostname."""
        groups = list(groups)
        roles: dict[str, Role] = {}
        for group in groups:
            for proxy in group:
                if any(destination.role is not None for destination in proxy.destinations):
                    self._find_roles(proxy, roles)
        wanted = {group[0].hostname for group in groups}
        plan.for_all_names |= _ALL_NAMES in wanted
        old_servers, old_upstreams = plan.servers_of_all(wanted), plan.upstreams_of_all(wanted)
        ipv6 = _has_ipv6()
        pairs: dict[str | None, tuple[Path, Path]] = {}
        upstream_swaps: list[tuple[list[Block], list[Block]]] = []
        server_swaps: list[tuple[list[Block], list[Block]]] = []
        for group in groups:
            hostname = group[0].hostname
            new_upstreams: dict[str, Block] = {}
            new_servers: list[Block] = []
            for proxy in group:
                try:
                    made = self._upstreams(proxy, new_upstreams, roles)
                    if proxy.ssl and proxy.write_proxies and proxy.ssl_certificate_id not in pairs:
                        pairs[proxy.ssl_certificate_id] = self._certificate(plan.transaction, proxy.ssl_certificate_id)
                except ScalarizrError as failure:
                    _say_whose(failure, proxy)
                    raise
                pair = pairs[proxy.ssl_certificate_id] if proxy.ssl and proxy.write_proxies else None
                if proxy.write_proxies:
                    new_servers += render_servers(proxy, made, pair, ipv6=ipv6)
            upstream_swaps.append((old_upstreams.get(hostname, []), list(new_upstreams.values())))
            if any(proxy.write_proxies for proxy in group):
                server_swaps.append((old_servers.get(hostname, []), new_servers))
        for document, swaps in ((plan.upstreams, upstream_swaps), (plan.proxies, server_swaps)):
            document.replace(swaps)

    def _upstreams(self, proxy: Proxy, made: dict[str, Block], roles: dict[str, Role]) -> list[Upstream]:
        base = (
            "backend"
            if proxy.hostname == _ALL_NAMES
            else names.upstream_base(proxy.hostname, hashed=proxy.hash_backend_name)
        )
        upstreams = upstreams_of(proxy, base)
        if proxy.hostname == _ALL_NAMES and not upstreams:
            upstreams = [Upstream(base, "/", ())]
        blocks = [render_upstream(proxy, upstream, roles, self._network) for upstream in upstreams]
        if made and any(block.label in made and made[block.label].text != block.text for block in blocks):
            # The same name on another port, handed on elsewhere.
            upstreams = upstreams_of(proxy, f"{base}_{proxy.port if proxy.http else proxy.ssl_port}")
            blocks = [render_upstream(proxy, upstream, roles, self._network) for upstream in upstreams]
        for block in blocks:
            made[block.label] = block
        return upstreams

    def _find_roles(self, proxy: Proxy, found: dict[str, Role]) -> None:
        for destination in proxy.destinations:
            if destination.role is not None and destination.role not in found:
                try:
                    found[destination.role] = self._environment.role(destination.role)
                except ScalarizrError as error:
                    if isinstance(error, NotFound):
                        error.say_further(f"({destination.parameter}.) Nothing was changed.")
                        error.facts["parameter"] = destination.parameter
                    _say_whose(error, proxy)
                    raise

    def _take_out(self, plan: Plan, hostname: str) -> bool:
        old_servers, old_upstreams = plan.servers_of(hostname), plan.upstreams_of(hostname)
        plan.proxies.remove(old_servers)
        plan.upstreams.remove(old_upstreams)
        return bool(old_servers or old_upstreams)

    def _certificate(self, transaction: Transaction, identity: str | None) -> tuple[Path, Path]:
        """Plan a certificate's files as nginx wants them: the chain behind the certificate."""
        stem = "nginx-https" if identity is None else f"nginx-https_{identity}"
        paths = self._keys / f"{stem}.crt", self._keys / f"{stem}.key"
        try:
            checked = check_certificate(self._environment.certificate(identity), self._log)
        except NotFound as error:
            if all(transaction.exists(path) for path in paths):
                return paths  # fetched once, and not taken away since
            error.say_further("Nothing was changed.")
            error.facts["parameter"] = "ssl_certificate_id"
            raise
        transaction.write(paths[0], checked.full_chain.encode(), mode=0o644)
        transaction.write(paths[1], checked.key.reveal().encode(), mode=0o600, secret=True)
        return paths

    def _default_proxy(self) -> Proxy:
        roles = [role for role in self._environment.roles() if _APPLICATION in role.behaviours]
        destinations = tuple(Destination(role=role.id, parameter=f"role {role.id}") for role in roles)
        return Proxy(hostname=_ALL_NAMES, destinations=destinations)

    def _refuse_twins(self, proxies: list[Proxy]) -> None:
        seen: dict[tuple[str, int], Proxy] = {}
        for proxy in proxies:
            ports = [(proxy.port, "port")] + ([(proxy.ssl_port, "ssl_port")] if proxy.ssl else [])
            for port, parameter in ports:
                other = seen.setdefault((proxy.hostname, port), proxy)
                if other is not proxy:
                    raise InvalidParameter(
                        proxy.parameter(parameter),
                        str(port),
                        f"a port of its own for {proxy.hostname}: {other.place} claims that name there already",
                    )


def _say_whose(failure: ScalarizrError, proxy: Proxy) -> None:
    """Have an error say which proxy of the caller's list it is about."""
    failure.facts["hostname"] = proxy.hostname
    if proxy.index is not None:
        failure.facts["index"] = proxy.index
    parameter = failure.facts.get("parameter")
    if isinstance(parameter, str) and not parameter.startswith(proxy.place):
        failure.facts["parameter"] = proxy.parameter(parameter)
    if not isinstance(failure, InvalidParameter):
        failure.begin_with(f"In {proxy.called}: ")


def _no_proxy(hostname: str, plan: Plan) -> NotFound:
    import difflib

    known = sorted({block.owner for block in plan.proxies.of("server") if block.owner})
    near = difflib.get_close_matches(hostname, known, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return NotFound(f"There is no proxy {hostname}.{hint} Nothing was changed.", {"hostname": hostname})


def _has_ipv6() -> bool:
    try:
        return bool(Path("/proc/net/if_inet6").read_bytes())
    except OSError:
        return False
