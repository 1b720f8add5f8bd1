"""The `nginx` namespace: reverse proxying."""

from typing import Any

from scalarizr.api.configured import any_directive, proxying_of
from scalarizr.api.parts import Parts
from scalarizr.errors import InvalidParameter
from scalarizr.nginx import names
from scalarizr.nginx.parameters import Proxy, read_proxies, read_proxy, read_server
from scalarizr.rpc.method import command, operation, query

_RESOURCE = "nginx"


class NginxAPI:
    """nginx: reverse proxying, its upstreams and certificates, the service itself.

    :param parts: the agent's shared mechanisms.
    """

    def __init__(self, parts: Parts) -> None:
        self._proxying = proxying_of(parts)
        self._program = self._proxying.program
        self._directives = parts.settings.nginx.template_directives
        self._log = parts.log

    # Proxies

    @command(resource=_RESOURCE, dry_run=True, together=True)
    def make_proxy(
        self,
        hostname: str | None = None,
        backends: list[dict[str, Any]] | None = None,
        port: int | None = None,
        http: bool | None = None,
        ssl: bool | None = None,
        ssl_port: int | None = None,
        ssl_certificate_id: int | str | None = None,
        backend_port: int | None = None,
        backend_ip_hash: bool | None = None,
        backend_least_conn: bool | None = None,
        backend_max_fails: int | None = None,
        backend_fail_timeout: int | str | None = None,
        backend_weight: int | None = None,
        templates: list[dict[str, Any]] | None = None,
        hash_backend_name: bool | None = None,
        write_proxies: bool | None = None,
        reload_service: bool | None = None,
        name: str | None = None,
    ) -> None:
        """Create a proxy, or replace the one of the same hostname.

        The new configuration is checked by nginx before a live file changes; on any error everything is as it was. The
        same call again changes nothing and reloads nothing.

        :param hostname: its `server_name`: a host name, `*.example.com` or `.example.com`; an internationalised name
            becomes punycode.
        :param backends: where requests go: a list of `{"host": address}` or `{"farm_role_id": id}`, each with optional
            `port`, `location` ("/"), `backup`, `down`, `weight`, `max_fails`, `fail_timeout` (seconds) and `network`
            ("private" or "public"). A role's servers come from the environment; a role without servers gets a
            placeholder that answers 502 until one comes.
        :param port: for http; 80 where not given.
        :param http: listen for http, true where not given; false with `ssl`: the http port redirects to https.
        :param ssl: listen for https, too.
        :param ssl_port: for https; 443 where not given.
        :param ssl_certificate_id: of the environment's certificate; its default one where not given.
        :param backend_port: default `port` of the backends.
        :param backend_ip_hash: one client's requests go to one backend.
        :param backend_least_conn: requests go to the backend with the fewest connections.
        :param backend_max_fails: default `max_fails` of the backends.
        :param backend_fail_timeout: default `fail_timeout` of the backends, in seconds.
        :param backend_weight: default `weight` of the backends.
        :param templates: raw nginx directives: a list of `{"content": text, "location": path}`, merged into that
            location, or `{"content": text, "server": true}`, put into the server in place of the default headers.
        :param hash_backend_name: name the upstreams by the hostname's SHA-1, true where not given, else by itself.
        :param write_proxies: false: write the upstreams only.
        :param reload_service: false: write and check, and leave the running nginx alone.
        :param name: another name of `hostname`.
        :raises InvalidParameter: names the parameter; nothing was changed.
        :raises Refused: nginx refuses the result; with its own words and the line of what was sent.
        """
        described = dict(locals())
        del described["self"]
        self._proxying.make(read_proxy(described, any_directive=any_directive(self._directives)), "nginx.make_proxy")

    @command(resource=_RESOURCE, dry_run=True, together=True)
    def remove_proxy(self, hostname: str, reload_service: bool = True) -> None:
        """Remove a proxy: its servers and upstreams.

        Ports that the agent had opened for it in a firewall are closed, where no other proxy uses them.

        :param hostname: the proxy's.
        :param reload_service: false: write and check, and leave the running nginx alone.
        :raises NotFound: there is no such proxy.
        """
        self._proxying.remove(names.server_name(hostname, "hostname"), reload=reload_service)

    @command(resource=_RESOURCE, dry_run=True, limit=600)
    def recreate_proxying(self, proxy_list: list[dict[str, Any]], reload_service: bool = True) -> None:
        """Make the whole set of proxies exactly this one.

        :param proxy_list: each with the parameters of `make_proxy`; an empty list removes all.
        :param reload_service: false: write and check, and leave the running nginx alone.
        :raises InvalidParameter: names the proxy by its index and hostname, and the parameter; nothing was changed.
        :raises Refused: nginx refuses the result; with its own words and the line of what was sent.
        """
        self._proxying.replace_all(
            self._read(proxy_list, "proxy_list"), "nginx.recreate_proxying", reload=reload_service
        )

    @operation(resource=_RESOURCE, dry_run=True)
    def reconfigure(self, proxies: list[dict[str, Any]] | None = None, async_: bool = True) -> None:
        """Make the whole set of proxies exactly this one, as an operation.

        :param proxies: each with the parameters of `make_proxy`; none: one proxy for every name, to all servers of the
            environment's roles with the behaviour `app`.
        :param async_: give the operation's id at once.
        :raises InvalidParameter: names the proxy by its index and hostname, and the parameter; nothing was changed.
        :raises Refused: nginx refuses the result; with its own words and the line of what was sent.
        """
        del async_
        self._proxying.replace_all(self._read(proxies or [], "proxies"), "nginx.reconfigure", reload=True)

    # Servers of upstreams

    @command(resource=_RESOURCE, dry_run=True, together=True)
    def add_server(
        self,
        backend: str,
        server: str | dict[str, Any],
        update_conf: bool = True,
        reload_service: bool = True,
        update_backend_table: bool = False,
    ) -> None:
        """Add a server to upstreams; where it is there already, nothing changes.

        Many calls at once are made as one change, with one reload.

        :param backend: an upstream's name, or what the names of several have before an underscore.
        :param server: an address, such as `10.0.0.11:8080`, or `{"host", "port", "down", "backup", "weight",
            "max_fails", "fail_timeout"}`.
        :param update_conf: false: only remember it for the next command that writes.
        :param reload_service: false: write and check, and leave the running nginx alone.
        :param update_backend_table: means nothing any more.
        :raises NotFound: there is no such upstream.
        """
        del update_backend_table
        self._proxying.add_server(_backend(backend), read_server(server), now=update_conf, reload=reload_service)

    @command(resource=_RESOURCE, dry_run=True, together=True)
    def remove_server(
        self,
        backend: str,
        server: str | dict[str, Any],
        update_conf: bool = True,
        reload_service: bool = True,
        update_backend_table: bool = False,
    ) -> None:
        """Take a server out of upstreams; the last one leaves a placeholder that answers 502.

        :param backend: an upstream's name, or what the names of several have before an underscore.
        :param server: as for `add_server`; without a port: on whatever port.
        :param update_conf: false: only remember it for the next command that writes.
        :param reload_service: false: write and check, and leave the running nginx alone.
        :param update_backend_table: means nothing any more.
        :raises NotFound: there is no such upstream.
        """
        del update_backend_table
        self._proxying.remove_server(_backend(backend), read_server(server), now=update_conf, reload=reload_service)

    @command(resource=_RESOURCE, dry_run=True, together=True)
    def add_server_to_role(
        self,
        server: str | dict[str, Any],
        role_id: int | str,
        update_conf: bool = True,
        reload_service: bool = True,
        update_backend_table: bool = False,
    ) -> None:
        """Add a server to every upstream that uses a role, on the port and with the options that the role has there.

        :param server: as for `add_server`.
        :param role_id: the farm role.
        :param update_conf: false: only remember it for the next command that writes.
        :param reload_service: false: write and check, and leave the running nginx alone.
        :param update_backend_table: means nothing any more.
        """
        del update_backend_table
        self._proxying.add_server_to_role(str(role_id), read_server(server), now=update_conf, reload=reload_service)

    @command(resource=_RESOURCE, dry_run=True, together=True)
    def remove_server_from_role(
        self,
        server: str | dict[str, Any],
        role_id: int | str,
        update_conf: bool = True,
        reload_service: bool = True,
        update_backend_table: bool = False,
    ) -> None:
        """Take a server out of every upstream that uses a role.

        :param server: as for `remove_server`.
        :param role_id: the farm role.
        :param update_conf: false: only remember it for the next command that writes.
        :param reload_service: false: write and check, and leave the running nginx alone.
        :param update_backend_table: means nothing any more.
        """
        del update_backend_table
        self._proxying.remove_server_from_role(
            str(role_id), read_server(server), now=update_conf, reload=reload_service
        )

    @command(resource=_RESOURCE, dry_run=True, together=True)
    def remove_server_from_all_backends(
        self,
        server: str | dict[str, Any],
        update_conf: bool = True,
        reload_service: bool = True,
        update_backend_table: bool = False,
    ) -> None:
        """Take a server out of every upstream.

        :param server: as for `remove_server`.
        :param update_conf: false: only remember it for the next command that writes.
        :param reload_service: false: write and check, and leave the running nginx alone.
        :param update_backend_table: means nothing any more.
        """
        del update_backend_table
        self._proxying.remove_server_everywhere(read_server(server), now=update_conf, reload=reload_service)

    # TLS

    @command(resource=_RESOURCE, dry_run=True)
    def enable_ssl(
        self,
        hostname: str,
        ssl_port: int | None = None,
        ssl_certificate_id: int | str | None = None,
        reload_service: bool = True,
    ) -> None:
        """Let an existing proxy speak https, too; what somebody added to its server by hand stays.

        :param hostname: the proxy's.
        :param ssl_port: its port for https; as it is where not given, else 443.
        :param ssl_certificate_id: of the environment's certificate; as it is where not given, else the default one.
        :param reload_service: false: write and check, and leave the running nginx alone.
        :raises NotFound: there is no such proxy, or no such certificate.
        :raises Refused: the certificate cannot be used; says why.
        """
        identity = None if ssl_certificate_id is None else str(ssl_certificate_id)
        chosen = None if ssl_port is None else names.port(ssl_port, "ssl_port")
        self._proxying.enable_ssl(names.server_name(hostname, "hostname"), chosen, identity, reload=reload_service)

    @command(resource=_RESOURCE, dry_run=True)
    def disable_ssl(self, hostname: str, reload_service: bool = True) -> None:
        """Let an existing proxy speak plain http only; one that redirected to https serves on its http port then.

        :param hostname: the proxy's.
        :param reload_service: false: write and check, and leave the running nginx alone.
        :raises NotFound: there is no such proxy.
        """
        self._proxying.disable_ssl(names.server_name(hostname, "hostname"), reload=reload_service)

    # The service

    @command(resource=_RESOURCE)
    def start_service(self) -> None:
        """Start nginx; returns when its workers serve.

        :raises OutsideFailure: it does not run; with its own words.
        """
        self._program.start()

    @command(resource=_RESOURCE)
    def stop_service(self, reason: str | None = None) -> None:
        """Stop nginx; returns when it is gone.

        :param reason: goes to the log.
        """
        self._note("stop", reason)
        self._program.stop()

    @command(resource=_RESOURCE)
    def restart_service(self, reason: str | None = None) -> None:
        """Stop and start nginx; with a configuration that is not valid it is left running.

        :param reason: goes to the log.
        :raises OutsideFailure: with nginx's own words.
        """
        self._note("restart", reason)
        self._program.restart()

    @command(resource=_RESOURCE, limit=600)
    def reload_service(self, reason: str | None = None) -> None:
        """Let nginx load its configuration without dropping a connection; a stopped one is started.

        Returns when workers of the new generation serve.

        :param reason: goes to the log.
        :raises OutsideFailure: it goes on with the old configuration; with its own words.
        """
        self._note("reload", reason)
        self._program.reload()

    @query
    def get_service_status(self) -> int:
        """Tell whether nginx runs.

        :return: 0 running, 1 dead with a pid file, 2 dead with a lock, 3 not running, 4 unknown (LSB).
        """
        return int(self._program.status())

    @query(limit=300)
    def configtest(self) -> None:
        """Check the live configuration.

        :raises OutsideFailure: it is not valid; with nginx's own words.
        """
        self._program.refuse_invalid()

    def _read(self, described: list[dict[str, Any]], parameter: str) -> list[Proxy]:
        return read_proxies(described, parameter, any_directive=any_directive(self._directives))

    def _note(self, action: str, reason: str | None) -> None:
        self._log.info("nginx %s reason=%r", action, (reason or "-")[:300])


def _backend(name: str) -> str:
    if not names.UPSTREAM.fullmatch(name):
        raise InvalidParameter("backend", repr(name)[:80], "an upstream's name: letters, digits, dots, - and _")
    return name
