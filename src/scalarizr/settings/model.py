"""Every setting of the agent: its name, type, default and meaning, declared once.

`load` reads them from `<etc>/scalarizr.toml`, `template` writes that file with each one commented. The names are a
contract (CLI.md, "Settings").
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from scalarizr.settings.quantities import Seconds, Size


def _about(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[section]` of the file; an unknown key in it is an error."""


class Api(Section, frozen=True):
    """The endpoint."""

    listen: Annotated[
        str | list[str], _about('Address and port to listen on ("[::]:8010" for IPv6), or a list of them.')
    ] = "0.0.0.0:8010"
    max_body: Annotated[Size, _about("Largest request body; a larger one is answered 413.")] = Size(8 * 2**20)
    clock_skew: Annotated[Seconds, _about("How far a message's date may be off this server's clock, either way.")] = (
        Seconds(300)
    )
    envelopes: Annotated[
        list[Literal["founding", "sealed"]],
        _about('Accepted envelopes. ["sealed"] where every client can do better than 3DES and SHA-1.'),
    ] = msgspec.field(default_factory=lambda: ["founding", "sealed"])
    replay_entries: Annotated[
        int, _about("How many accepted messages are remembered against replay; 8 to 32 bytes each.")
    ] = 500_000
    connections: Annotated[int, _about("Connections at once; one address never holds more than half.")] = 1024
    bodies_in_memory: Annotated[
        Size, _about("Request bodies in memory at once, over all connections; beyond it 503.")
    ] = Size(64 * 2**20)
    head_timeout: Annotated[Seconds, _about("Time for a whole request head.")] = Seconds(10)
    body_timeout: Annotated[Seconds, _about("Time for a whole request body.")] = Seconds(30)
    idle_timeout: Annotated[Seconds, _about("How long a kept connection may stay idle.")] = Seconds(60)
    idle_exit: Annotated[
        Seconds | None,
        _about(
            'How long the agent stays when it has nothing to do, such as "10 min", where systemd holds its sockets: it '
            "leaves then, and the next connection brings it back. It always stays when not set."
        ),
    ] = None
    queue: Annotated[int, _about("Calls running or waiting at once; beyond it 503 with Retry-After.")] = 256
    threads: Annotated[int, _about("Threads for calls that may wait for a disk, a program or a server.")] = 16


class Paths(Section, frozen=True):
    """Where the agent reads and writes."""

    state: Annotated[Path, _about("What must survive a restart: operations, journals, replay store.")] = Path(
        "/var/lib/scalarizr"
    )
    logs: Annotated[Path, _about("Directory of scalarizr.log, scalarizr_debug.log, scalarizr_update.log.")] = Path(
        "/var/log"
    )
    scripting_logs: Annotated[Path, _about("Directory of the output of scripts.")] = Path(
        "/var/log/scalarizr/scripting"
    )
    auth_shutdown_hook: Annotated[Path, _about("Program that system.call_auth_shutdown_hook runs.")] = Path(
        "/usr/local/scalarizr/hooks/auth-shutdown"
    )
    root: Annotated[
        Path,
        _about("What /proc, /sys, /etc, /dev and /usr are looked up under: the real root, or a recorded tree."),
    ] = Path("/")
    key: Annotated[Path | None, _about("The server's key; private.d/keys/default beside this file when not set.")] = (
        None
    )


class Logs(Section, frozen=True):
    """The agent's own logs."""

    max_size: Annotated[Size, _about("A log is rotated when it grows past this.")] = Size(10 * 2**20)
    keep: Annotated[int, _about("How many rotated files of each log are kept.")] = 5
    debug: Annotated[bool, _about("Write scalarizr_debug.log too.")] = True
    audit: Annotated[bool, _about("Write scalarizr_audit.log: a chained line a command.")] = True
    audit_size: Annotated[Size, _about("The audit log is rotated when it grows past this.")] = Size(16 * 2**20)
    audit_keep: Annotated[int, _about("How many rotated files of the audit log are kept."), msgspec.Meta(ge=1)] = 20


class Tls(Section, frozen=True):
    """A listener that speaks TLS 1.2 and 1.3, beside the plain one of `[api] listen`."""

    listen: Annotated[
        str | list[str] | None,
        _about(
            'Address and port to listen on with TLS, such as "0.0.0.0:8011", or a list of them; off when not set. '
            'With `[api] listen = "127.0.0.1:8010"` it is the only way in from other hosts.'
        ),
    ] = None
    certificate: Annotated[
        Path | None,
        _about("The server's certificate, followed by those of its issuers (PEM). Read again when it changes."),
    ] = None
    key: Annotated[
        Path | None, _about("Its private key (PEM): without a passphrase, and readable by the agent alone.")
    ] = None
    client_ca: Annotated[
        Path | None,
        _about(
            "Who issues the clients' certificates (PEM): where it is set, a client without such a certificate is "
            "refused."
        ),
    ] = None


class Metrics(Section, frozen=True):
    """Figures for a monitoring system."""

    listen: Annotated[
        str | list[str] | None,
        _about('Loopback address and port where GET /metrics is answered, such as "127.0.0.1:9810"; off when not set.'),
    ] = None


class Environment(Section, frozen=True):
    """Where roles, certificates, virtual hosts and metrics come from."""

    source: Annotated[
        Literal["local", "queryenv"],
        _about('"local": files; "queryenv": the control plane\'s QueryEnv service.'),
    ] = "local"
    directory: Annotated[Path | None, _about("Of the local source; `environment` beside this file when not set.")] = (
        None
    )
    url: Annotated[str | None, _about("Of the QueryEnv service; https unless `insecure`.")] = None
    insecure: Annotated[bool, _about("Accept an http URL: its answers can be forged on the way.")] = False
    server_id: Annotated[str | None, _about("This server's id at the control plane.")] = None
    farm_role_id: Annotated[str | None, _about("The farm role that this server belongs to.")] = None
    cloud_location: Annotated[str | None, _about("Region or zone, for choosing private addresses.")] = None
    private_address: Annotated[
        str | None, _about("This server's private address; found from the interfaces when not set.")
    ] = None


class Nginx(Section, frozen=True):
    """nginx."""

    binary: Annotated[Path | None, _about("The program; found by looking when not set.")] = None
    config_dir: Annotated[Path | None, _about("Its configuration directory.")] = None
    manager: Annotated[
        Literal["auto", "systemd", "sysv", "direct"],
        _about('What starts and stops it; "auto" looks, "direct" is its own control (containers).'),
    ] = "auto"
    template_directives: Annotated[
        Literal["safe", "any"], _about('"any" lifts the list of directives refused in templates.')
    ] = "safe"


class Apache(Section, frozen=True):
    """Apache httpd."""

    binary: Annotated[Path | None, _about("The program; found by looking when not set.")] = None
    control: Annotated[Path | None, _about("apachectl or apache2ctl.")] = None
    config_dir: Annotated[Path | None, _about("Its configuration directory.")] = None
    status_url: Annotated[str | None, _about("Where mod_status answers.")] = None
    manager: Annotated[
        Literal["auto", "systemd", "sysv", "direct"],
        _about('What starts and stops it; "auto" looks, "direct" is its own control (containers).'),
    ] = "auto"
    template_directives: Annotated[
        Literal["safe", "any"], _about('"any" lifts the list of directives refused in templates.')
    ] = "safe"


class PostgresqlVolume(Section, frozen=True):
    """The volume that a cluster lies on."""

    type: Annotated[str, _about("Its type, as storage.create takes it.")]
    id: Annotated[str, _about("Its id.")]


class Postgresql(Section, frozen=True):
    """PostgreSQL."""

    socket_dir: Annotated[Path | None, _about("Directory of the server's Unix socket.")] = None
    port: Annotated[int | None, _about("Port, which also names the socket.")] = None
    os_user: Annotated[str, _about("The account that owns the cluster.")] = "postgres"
    master_role: Annotated[str, _about("Role whose password reset_password sets.")] = "scalr_master"
    data_dir: Annotated[Path | None, _about("The cluster's data directory.")] = None
    manager: Annotated[
        Literal["auto", "systemd", "sysv", "direct"],
        _about('What starts and stops it; "auto" looks, "direct" is pg_ctlcluster or pg_ctl (containers).'),
    ] = "auto"
    volume: Annotated[
        PostgresqlVolume | None,
        _about("The volume that holds the cluster, where storage.create did not make it: { type, id }."),
    ] = None


class MonitoringAgent(Section, frozen=True):
    """The MongoDB monitoring agent's package."""

    package: Annotated[str, _about("Its file or URL.")] = ""
    sha256: Annotated[str, _about("Its SHA-256, in hex.")] = ""


class Mongodb(Section, frozen=True):
    """MongoDB."""

    uri: Annotated[str | None, _about("Where the server is, with credentials: keep this file 0600 then.")] = None
    user: Annotated[str, _about("User whose password reset_password sets.")] = "scalr"
    monitoring_agent: Annotated[
        str | MonitoringAgent | None, _about("Its package file or URL; with a checksum: { package, sha256 }.")
    ] = None
    monitoring_dir: Annotated[
        Path | None, _about("Where the monitoring agent is unpacked; beside the state directory when not set.")
    ] = None


class Backup(Section, frozen=True):
    """Backups."""

    store: Annotated[str, _about("Object store: file://, s3://, gs://, azure://, swift://.")] = (
        "file:///var/lib/scalarizr/backups"
    )
    endpoint_url: Annotated[str | None, _about("Of an S3-compatible store.")] = None
    compression: Annotated[str, _about('"zstd", with a level as "zstd:3", or "none".')] = "zstd"
    jobs: Annotated[
        int | None, _about("Databases dumped at once; when not set, half the processors and a small one.")
    ] = None
    keep: Annotated[int | None, _about("How many backups are kept; all when not set.")] = None
    lock_timeout: Annotated[Seconds, _about("How long a dump waits for a lock that somebody holds.")] = Seconds(300)
    store_timeout: Annotated[
        Seconds, _about("How long a request that the object store does not take is tried again; 280 s at most.")
    ] = Seconds(180)


class Storage(Section, frozen=True):
    """Volumes."""

    loop_dir: Annotated[Path | None, _about("Directory of the files of `loop` volumes.")] = None
    freeze_limit: Annotated[Seconds, _about("Longest time a file system is held frozen.")] = Seconds(60)
    by_id_dir: Annotated[Path, _about("Where devices are found by their identity.")] = Path("/dev/disk/by-id")


class Ec2(Section, frozen=True):
    """EC2; each found from the instance metadata service when not set."""

    endpoint_url: Annotated[str | None, _about("Of the EC2 API.")] = None
    region: Annotated[str | None, _about("Region.")] = None
    instance_id: Annotated[str | None, _about("This server's instance id.")] = None
    avail_zone: Annotated[str | None, _about("Availability zone.")] = None


class Gce(Section, frozen=True):
    """Google Compute Engine; each found from the instance metadata service when not set."""

    endpoint_url: Annotated[str | None, _about("Of the Compute Engine API.")] = None
    metadata_url: Annotated[str, _about("The instance metadata service.")] = "http://metadata.google.internal"
    project_id: Annotated[str | None, _about("Project of this server; the credentials may name another.")] = None
    zone: Annotated[str | None, _about("Zone of this server.")] = None
    instance: Annotated[str | None, _about("Name of this server's instance.")] = None


class Openstack(Section, frozen=True):
    """OpenStack; each found from the instance metadata service when not set."""

    metadata_url: Annotated[str, _about("The instance metadata service.")] = "http://169.254.169.254"
    instance_id: Annotated[str | None, _about("This server's UUID.")] = None
    avail_zone: Annotated[str | None, _about("Availability zone of new volumes; the cloud's default when not set.")] = (
        None
    )


class Cloudstack(Section, frozen=True):
    """CloudStack; found from the instance metadata service when not set."""

    metadata_url: Annotated[str, _about("The instance metadata service: the virtual router.")] = "http://data-server"
    instance_id: Annotated[str | None, _about("This server's UUID.")] = None


class Operations(Section, frozen=True):
    """Long operations."""

    keep: Annotated[Seconds, _about("How long a finished operation's record is kept.")] = Seconds(2 * 86400)
    parallel: Annotated[int, _about("Operations running at once; more wait their turn.")] = 4
    cancel_timeout: Annotated[Seconds, _about("Time a cancelled operation has to clean up by itself.")] = Seconds(30)


class Changes(Section, frozen=True):
    """The history of configuration changes."""

    keep: Annotated[int, _about("How many changes are kept, with what it takes to go back."), msgspec.Meta(ge=1)] = 64


class System(Section, frozen=True):
    """The `system` namespace."""

    hook_timeout: Annotated[Seconds, _about("Time limit of the auth-shutdown hook.")] = Seconds(60)
    metric_timeout: Annotated[Seconds, _about("Time limit of one scaling metric.")] = Seconds(3)
    script_timeout: Annotated[Seconds, _about("Time limit of a script that brings none of its own.")] = Seconds(1200)
    script_logs_keep: Annotated[
        Seconds, _about("How long the output of a script is kept after its end, in `[paths] scripting_logs`.")
    ] = Seconds(86400)
    script_log_size: Annotated[
        Size, _about("How much of a script's output, and of its errors, is kept; the rest is thrown away.")
    ] = Size(10 * 2**20)
    script_logs_size: Annotated[
        Size, _about("How much the output of all scripts may take; beyond it the oldest goes first.")
    ] = Size(2**30)
    script_dir: Annotated[
        Path | None,
        _about(
            "Where a script that came as text lies while it runs: a directory that every account can go through. "
            "/run/scalarizr-scripts, or, where the agent is not root, scripts in the state directory, when not set."
        ),
    ] = None
    reboot_delay: Annotated[
        Seconds, _about("Time between the answer of system.reboot and the reboot; the answer needs it to get away.")
    ] = Seconds(2)
    log_size: Annotated[
        Size, _about("How much of a log get_log and its kin return when not asked for another size.")
    ] = Size(5 * 2**20)


class Settings(Section, frozen=True):
    """The whole file. `etc` is the directory that it came from, not a key of it."""

    api: Api = Api()
    paths: Paths = Paths()
    logs: Logs = Logs()
    tls: Tls = Tls()
    metrics: Metrics = Metrics()
    environment: Environment = Environment()
    operations: Operations = Operations()
    changes: Changes = Changes()
    system: System = System()
    nginx: Nginx = Nginx()
    apache: Apache = Apache()
    postgresql: Postgresql = Postgresql()
    mongodb: Mongodb = Mongodb()
    backup: Backup = Backup()
    storage: Storage = Storage()
    ec2: Ec2 = Ec2()
    gce: Gce = Gce()
    openstack: Openstack = Openstack()
    cloudstack: Cloudstack = Cloudstack()
