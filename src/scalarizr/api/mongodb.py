"""The `mongodb` namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

from scalarizr.api.parts import Parts
from scalarizr.errors import ScalarizrError
from scalarizr.rpc.method import command
from scalarizr.secret import Secret

if TYPE_CHECKING:
    from scalarizr.mongodb.monitoring import Monitoring
    from scalarizr.mongodb.passwords import KeptPasswords


# Below the state directory: where it is there, the agent builds this namespace at its start.
_RECORD = "mongodb/monitoring.json"


class MonitoringStatus(TypedDict):
    """Whether the monitoring agent is as it was asked to be; `error` says why not, null where it is."""

    status: Literal["Ok", "Fail"]
    error: str | None


class MongoDBAPI:
    """MongoDB: passwords and the monitoring agent.

    :param parts: the agent's shared mechanisms.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._monitoring: Monitoring | None = None
        # In the agent, and in no worker: what an earlier agent kept running, or had still to stop, is taken up again.
        if parts.operations is not None and (parts.settings.paths.state / _RECORD).exists():
            self._its_monitoring().resume()

    @command(resource="mongodb")
    def reset_password(self) -> str:
        """Give the user of the setting `[mongodb] user` a new password, proved by a login with it.

        The user is made in the database `admin`, with the role root, where there is none. On a replica set it happens
        on the primary. The server and credentials that may change users are those of `[mongodb] uri`, else the
        password that an earlier call made; a server without users takes its first one from its own host. A classic
        monitoring agent that runs is told the new password.

        :return: the password, 20 letters and digits.
        :raises PermissionRefused: the server does not take the credentials, or they may not change users.
        :raises OutsideFailure: the server is down, no primary, or in no state to do it; the message says which.
        :raises TimedOut: the server does not answer.
        :raises NotConfigured: `[mongodb] uri` cannot be used.
        """
        from scalarizr.mongodb.place import Login, read_place
        from scalarizr.mongodb.users import reset_password

        settings = self._parts.settings.mongodb
        password = reset_password(read_place(settings.uri), settings.user, self._kept_passwords())
        try:
            self._its_monitoring().log_in_with(Login(settings.user, password))
        except (ScalarizrError, OSError) as failure:
            # The password is in force whatever became of that.
            self._parts.log.error("the monitoring agent was not told the new password: %s", failure)
        return password.reveal()

    @command(resource="mongodb", limit=900)
    def enable_mms(self, api_key: Secret, secret_key: Secret) -> MonitoringStatus:
        """Install, configure and start the monitoring agent, and keep it running; re-configure one that runs.

        Its package is that of `[mongodb] monitoring_agent`: the classic agent (`agent.py`, `settings.py`) or the
        automation agent (`automation-agent.config`), as a tar archive or a Debian package.

        :param api_key: the name of the group at the monitoring service.
        :param secret_key: the group's secret there.
        :return: `Ok`, or `Fail` with the reason; what was in force before is again then.
        :raises InvalidParameter: a key has characters that no key has.
        """
        from scalarizr.mongodb.monitoring import checked_keys
        from scalarizr.mongodb.users import login_of

        keys = checked_keys(api_key, secret_key)
        settings = self._parts.settings.mongodb
        try:
            self._its_monitoring().enable(keys, lambda: login_of(settings.uri, settings.user, self._kept_passwords()))
        except ScalarizrError as failure:
            return self._failed(failure)
        return {"status": "Ok", "error": None}

    @command(resource="mongodb")
    def disable_mms(self) -> MonitoringStatus:
        """Stop the monitoring agent and keep it stopped, over restarts of the agent and boots too.

        :return: `Ok`, or `Fail` with the reason.
        """
        try:
            self._its_monitoring().disable()
        except ScalarizrError as failure:
            return self._failed(failure)
        return {"status": "Ok", "error": None}

    def _failed(self, failure: ScalarizrError) -> MonitoringStatus:
        self._parts.log.warning("monitoring agent: %s", failure.message)
        return {"status": "Fail", "error": failure.message}

    def _kept_passwords(self) -> KeptPasswords:
        from scalarizr.mongodb.passwords import KeptPasswords

        return KeptPasswords(self._parts.etc / "private.d" / "mongodb.json", self._parts.settings.mongodb.user)

    def _its_monitoring(self) -> Monitoring:
        """Give the one that supervises for this agent's whole life. Only one call at a time gets here."""
        if self._monitoring is None:
            from scalarizr.mongodb.keeper import Keeper
            from scalarizr.mongodb.monitoring import Monitoring
            from scalarizr.mongodb.record import MonitoringRecord
            from scalarizr.mongodb.unit import Unit, systemd_runs

            parts = self._parts
            record = MonitoringRecord((parts.settings.paths.state / _RECORD).parent)
            supervisor = (
                Unit(parts.host.etc / "systemd/system", record)
                if systemd_runs() and parts.host.live
                else Keeper(record, parts.log)
            )
            state, settings = parts.settings.paths.state, parts.settings.mongodb
            # Beside the state directory and not below it, where nobody but the agent itself can reach it.
            directory = settings.monitoring_dir or state.with_name(f"{state.name}-mongodb-monitoring")
            self._monitoring = Monitoring(settings.monitoring_agent, directory, record, supervisor, parts.log)
        return self._monitoring
