"""The `apache` namespace: virtual hosts."""

from typing import Any, TypedDict

from scalarizr.apache.parameters import Host, read_host_parameters, site_name, tcp_port
from scalarizr.apache.statistics import read_statistics
from scalarizr.apache.template import check_template
from scalarizr.api.configured import any_directive, hosting_of
from scalarizr.api.parts import Parts
from scalarizr.errors import InvalidParameter
from scalarizr.rpc.method import command, operation, query

_RESOURCE = "apache"


class Deletion(TypedDict):
    """What became of virtual hosts that were to be removed."""

    deleted: list[str]
    unknown: list[list[Any]]


class ApacheAPI:
    """Apache httpd: its virtual hosts and certificates, the service itself.

    :param parts: the agent's shared mechanisms.
    """

    def __init__(self, parts: Parts) -> None:
        self._hosting = hosting_of(parts)
        self._program = self._hosting.program
        self._environment = parts.environment
        self._status_url = parts.settings.apache.status_url
        self._directives = parts.settings.apache.template_directives
        self._log = parts.log

    # Virtual hosts

    @command(resource=_RESOURCE, dry_run=True)
    def create_vhost(
        self,
        hostname: str,
        port: int,
        template: str,
        ssl: bool,
        ssl_certificate_id: int | str | None = None,
        reload: bool = True,
        allow_port: bool = False,
    ) -> str:
        """Make a name-based virtual host, or replace the one of the same name and port.

        The new configuration is checked by Apache before a live file changes; on any error everything is as it was.
        Missing document roots are made with a default page, missing log directories too; Apache is made to listen on
        the port where it does not.

        :param hostname: its name; an internationalised name becomes punycode.
        :param port: its port.
        :param template: the whole text of its `<VirtualHost>`; one without `ServerName` gets it.
        :param ssl: enable mod_ssl, and point the host at the certificate: whatever paths the template has are replaced.
        :param ssl_certificate_id: of the environment's certificate; its default one where not given.
        :param reload: false: write and check, and leave the running Apache alone.
        :param allow_port: open the port in an active firewall.
        :return: the path of its file.
        :raises InvalidParameter: names the parameter, and the template's line; nothing was changed.
        :raises Refused: Apache refuses the result; with its own words and the template's line.
        """
        described = {
            "hostname": hostname,
            "port": port,
            "template": template,
            "ssl": ssl,
            "ssl_certificate_id": ssl_certificate_id,
            "allow_port": allow_port,
        }
        return self._hosting.create(
            read_host_parameters(described, any_directive=any_directive(self._directives)), reload=reload
        )

    @command(resource=_RESOURCE, dry_run=True)
    def update_vhost(
        self,
        signature: tuple[str, int],
        hostname: str | None = None,
        port: int | None = None,
        template: str | None = None,
        ssl: bool | None = None,
        ssl_certificate_id: int | str | None = None,
        reload: bool = True,
    ) -> str:
        """Change a virtual host; what is not given stays.

        :param signature: `[hostname, port]` of the existing one.
        :param hostname: its new name, in `ServerName` and the file's name.
        :param port: its new port, in `<VirtualHost>` and the file's name.
        :param template: its new text.
        :param ssl: turn TLS on or off.
        :param ssl_certificate_id: another certificate of the environment.
        :param reload: false: write and check, and leave the running Apache alone.
        :return: the path of its file.
        :raises NotFound: there is none of that name on that port.
        :raises AlreadyExists: there is another one of the new name and port.
        """
        text = template and check_template(template, "template", any_directive=any_directive(self._directives))
        return self._hosting.update(
            (site_name(signature[0], "signature[0]"), tcp_port(signature[1], "signature[1]")),
            hostname=None if hostname is None else site_name(hostname, "hostname"),
            port=None if port is None else tcp_port(port, "port"),
            text=text or None,
            ssl=ssl,
            ssl_certificate_id=None if ssl_certificate_id is None else str(ssl_certificate_id),
            reload=reload,
        )

    @command(resource=_RESOURCE, dry_run=True)
    def delete_vhosts(self, vhosts: list[tuple[str, int]], reload: bool = True) -> Deletion:
        """Remove virtual hosts; site content, logs and certificates stay.

        :param vhosts: a list of `[hostname, port]`.
        :param reload: false: write and check, and leave the running Apache alone.
        :return: the removed files, and those of the list that there were not.
        """
        signatures = [
            (site_name(name, f"vhosts[{index}][0]"), tcp_port(port, f"vhosts[{index}][1]"))
            for index, (name, port) in enumerate(vhosts)
        ]
        deleted, unknown = self._hosting.delete(signatures, reload=reload)
        return Deletion(deleted=deleted, unknown=[list(signature) for signature in unknown])

    @operation(resource=_RESOURCE, dry_run=True)
    def reconfigure(
        self,
        vhosts: list[dict[str, Any]] | None = None,
        reload: bool = True,
        rollback_on_error: bool = True,
        async_: bool = True,
    ) -> list[str]:
        """Make the agent's whole set of virtual hosts exactly this one, as an operation.

        :param vhosts: each with the parameters of `create_vhost`; none: those of the environment.
        :param reload: false: write and check, and leave the running Apache alone.
        :param rollback_on_error: one bad host, and nothing changes; false: the good ones are applied, and the error
            lists the bad.
        :param async_: give the operation's id at once.
        :return: the paths of their files.
        :raises InvalidParameter: names the host by its index and name, and the parameter.
        :raises Refused: Apache refuses the result; with its own words and the template's line.
        """
        del async_
        hosts: list[Host] = []
        bad: list[str] = []
        for index, described in enumerate(self._from_environment() if vhosts is None else vhosts):
            place = f"vhosts[{index}]"
            try:
                host = read_host_parameters(
                    described, place=place, index=index, any_directive=any_directive(self._directives)
                )
            except InvalidParameter as error:
                name = described.get("hostname")
                error.facts |= {"index": index, "hostname": name if isinstance(name, str) else None}
                if rollback_on_error:
                    raise
                bad.append(f"{place} ({str(name)[:100]}): {error.facts_as_text()}")
            else:
                hosts.append(host)
        return self._hosting.replace_all(hosts, bad, reload=reload, all_or_nothing=rollback_on_error)

    @query
    def list_served_virtual_hosts(self) -> list[str]:
        """List the agent's virtual hosts that Apache serves (`apachectl -S`).

        :return: the paths of their files.
        """
        return self._hosting.served()

    # TLS

    @command(resource=_RESOURCE, dry_run=True)
    def set_default_ssl_certificate(self, id: int | str) -> None:  # noqa: A002  the wire's name
        """Put a certificate into the distribution's default virtual host for TLS.

        :param id: the certificate's; where there is none of it, the system's own is put there.
        :raises NotFound: there is no default virtual host for TLS.
        """
        self._hosting.set_default_certificate(str(id))

    @command(resource=_RESOURCE, dry_run=True)
    def enable_mod_ssl(self) -> None:
        """Load mod_ssl, the distribution's way.

        :raises NotConfigured: it is not installed.
        """
        self._hosting.enable_mod_ssl()

    @command(resource=_RESOURCE, dry_run=True)
    def disable_mod_ssl(self) -> None:
        """Do not load mod_ssl any more.

        :raises Refused: virtual hosts need it; names them.
        """
        self._hosting.disable_mod_ssl()

    # The service

    @query
    def get_webserver_statistics(self) -> dict[str, str]:
        """Give the figures of mod_status.

        :return: names and values as Apache prints them; `{"errmsg": …}` where there is no answer.
        """
        return read_statistics(self._program, self._status_url)

    @command(resource=_RESOURCE)
    def start_service(self) -> None:
        """Start Apache; returns when it takes connections.

        :raises OutsideFailure: it does not run; with its own words.
        """
        self._program.start()

    @command(resource=_RESOURCE)
    def stop_service(self, reason: str | None = None) -> None:
        """Stop Apache; returns when it is gone.

        :param reason: goes to the log.
        """
        self._note("stop", reason)
        self._program.stop()

    @command(resource=_RESOURCE)
    def restart_service(self, reason: str | None = None) -> None:
        """Stop and start Apache; with a configuration that is not valid it is left running.

        :param reason: goes to the log.
        :raises OutsideFailure: with Apache's own words.
        """
        self._note("restart", reason)
        self._program.restart()

    @command(resource=_RESOURCE)
    def reload_service(self, reason: str | None = None) -> None:
        """Let Apache load its configuration gracefully; a stopped one is started.

        Returns when the new generation takes connections.

        :param reason: goes to the log.
        :raises OutsideFailure: with Apache's own words.
        """
        self._note("reload", reason)
        self._program.refuse_invalid()
        self._program.reload()

    @query
    def get_service_status(self) -> int:
        """Tell whether Apache runs.

        :return: 0 running, 1 dead with a pid file, 2 dead with a lock, 3 not running, 4 unknown (LSB).
        """
        return int(self._program.status())

    @query(limit=120)
    def configtest(self) -> None:
        """Check the live configuration.

        :raises OutsideFailure: it is not valid; with Apache's own words.
        """
        self._program.refuse_invalid()

    def _from_environment(self) -> list[dict[str, Any]]:
        return [
            {
                "hostname": host.hostname,
                "port": host.port,
                "template": host.template,
                "ssl": host.ssl,
                "ssl_certificate_id": host.ssl_certificate_id,
            }
            for host in self._environment.virtual_hosts()
        ]

    def _note(self, action: str, reason: str | None) -> None:
        self._log.info("apache %s reason=%r", action, (reason or "-")[:300])
